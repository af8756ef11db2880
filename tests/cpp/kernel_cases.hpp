// What the tests of the kernels share: both types, every way to read a weight.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "check.hpp"
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

template <class... Parts>
void say(const char* what, Parts... parts) {
  check::context = what;
  ((check::context += ' ' + std::to_string(parts)), ...);
}

}  // namespace pylrp
