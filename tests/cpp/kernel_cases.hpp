// What the tests of the kernels share: both types, every way to read a weight.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "check.hpp"
#include "fenced.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/table.hpp"

namespace pylrp {

using kernels::Read;

template <class F>
void both_types(F test) {
  test(float{});
  test(double{});
}

template <class T>
std::vector<kernels::Weights<T>> all_weights() {
  return {{Read::kPlain, 1, 1},  {Read::kPositive, 1, 0}, {Read::kNegative, 0, 1},
          {Read::kMixed, 2, -3}, {Read::kSquare, 1, 1},   {Read::kOne, 1, 1}};
}
// The same in double.
template <class T>
double mapped(const kernels::Weights<T>& weights, T value) {
  const double w = static_cast<double>(value);
  switch (weights.read) {
    case Read::kPlain:
      return w;
    case Read::kPositive:
      return std::max(w, 0.0);
    case Read::kNegative:
      return std::min(w, 0.0);
    case Read::kMixed:
      return w * static_cast<double>(w < 0 ? weights.n : weights.p);
    case Read::kSquare:
      return w * w;
    case Read::kOne:
      return 1;
  }
  return 0;
}

// The kernel that makes shares, of at most two sums and to at most two groups.
template <class T>
void make_shares(const kernels::Shares<T>& rule, Fenced<T>& z0, Fenced<T>& z1, Fenced<T>& r, Fenced<T>& s0,
                 Fenced<T>& s1, kernels::Absorbed* ledger, int ledger_step = 1) {
  const T* const z[] = {z0.data(), z1.data()};
  T* const s[] = {s0.data(), s1.data()};
  kernels::table<T>().shares({.rows = r.rows(),
                              .cols = r.cols(),
                              .rule = rule,
                              .z = z,
                              .z_stride = z0.stride(),
                              .r = r.data(),
                              .r_stride = r.stride(),
                              .s = s,
                              .s_stride = s0.stride(),
                              .ledger = ledger,
                              .ledger_step = ledger_step});
  CHECK(z0.intact() && z1.intact() && r.intact() && s0.intact() && s1.intact());
}

template <class... Parts>
void say(const char* what, Parts... parts) {
  check::context = what;
  ((check::context += ' ' + std::to_string(parts)), ...);
}

}  // namespace pylrp
