// The relevance of one layer with weights as base/rule.hpp states it, written out in double, with the error that a
// computation in T may make. No step is shared with the library: the rule is read as it is, not lowered, and the layer,
// dense or convolution, is a list of wires.
//
// Errors: u = epsilon / 2. A sum of n products in any order is off by at most (n + c) u times the sum of magnitudes, c
// for the few roundings of the weight map, of signs and coefficients. An error dz of a denominator d changes s = r / d
// by at most s dz / (|d| - dz).
#pragma once

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/rule.hpp"
#include "fenced.hpp"
#include "layers/dense/dense.hpp"

namespace pylrp {

struct Sum64 {
  double value = 0, size = 0, error = 0;  // size: of the magnitudes

  void add(double v, double e = 0) {
    value += v;
    size += std::abs(v);
    error += e;
  }
};
template <class T>
constexpr double kUnit = static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
inline constexpr double kFew = 16;

// value and all errors of a sum of n terms computed in T.
template <class T>
double bound(const Sum64& sum, Index n) {
  return sum.error + (static_cast<double>(n) + kFew) * kUnit<T> * sum.size;
}
// NaN is not near anything.
inline bool near(double got, double expected, double tolerance) { return std::abs(got - expected) <= tolerance; }
template <class T>
bool near(T got, const Sum64& expected) {
  return near(static_cast<double>(got), expected.value, expected.error);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline double rho(const WeightMap& map, double w) {
  if (map.kind == MapKind::kSquare) {
    return w * w;
  }
  return map.kind == MapKind::kOne ? 1 : (w > 0 ? map.p : map.n) * w;
}
inline double rho(const BiasMap& map, double b) {
  if (map.kind == BiasKind::kSquare) {
    return b * b;
  }
  return map.kind == BiasKind::kNone ? 0 : (b > 0 ? map.p : map.n) * b;
}

// What a layer with weights computes, output by output.
struct Wire {
  Index input;
  double weight;
};
struct Wires {
  Index inputs = 0;
  std::vector<std::vector<Wire>> outputs;
  std::vector<double> bias;
};

// What a rule may read besides the weights.
template <class T>
struct LayerArrays {
  // Relevance: row t * batch + i is that of target t and sample i.
  LayerArrays(Index batch, Index targets, Index n_in, Index n_out)
      : low(1, n_in, 0), high(1, n_in, 0), input(batch, n_in), relevance(targets * batch, n_out, 2) {}
  void fill(Random& random, bool nonnegative) {
    low.fill([&] { return random(-2, -1); });
    high.fill([&] { return random(1, 2); });
    input.fill([&] { return random.chance(0.3) ? 0 : (nonnegative ? random(0, 1) : random()); });
    relevance.fill([&] { return random.chance(0.2) ? 0 : random(); });
  }
  double part(Part which, Index i, Index k) {
    const double a = static_cast<double>(input.at(i, k));
    switch (which) {
      case Part::kInput:
        return a;
      case Part::kPositive:
        return a > 0 ? a : 0;
      case Part::kNegative:
        return a < 0 ? a : 0;
      case Part::kOne:
        return 1;
      case Part::kLow:
        return static_cast<double>(low.at(0, k));
      case Part::kHigh:
        return static_cast<double>(high.at(0, k));
      case Part::kMagnitude:  // of lowered rules
        break;
    }
    return 0;
  }
  Bounds<T> bounds() { return {low.data(), high.data()}; }
  bool intact() { return low.intact() && high.intact() && input.intact() && relevance.intact(); }

  Fenced<T> low, high, input, relevance;
};

// A dense layer with everything a rule may read.
template <class T>
struct DenseData : LayerArrays<T> {
  DenseData(Index batch, Index n_in, Index n_out, unsigned seed, bool nonnegative)
      : LayerArrays<T>(batch, 1, n_in, n_out), weight(n_out, n_in, 5), bias(1, n_out, 0) {
    Random random(seed);
    weight.fill(random);
    bias.fill([&] { return random() / 2; });
    this->fill(random, nonnegative);
    if (n_out > 3) {  // a neuron without receivers
      for (Index k = 0; k < n_in; ++k) {
        weight.at(2, k) = 0;
      }
      bias.at(0, 2) = 0;
    }
  }
  Wires wires(bool with_bias) {
    Wires wires{weight.cols(), {}, {}};
    for (Index j = 0; j < weight.rows(); ++j) {
      auto& fed = wires.outputs.emplace_back();
      for (Index k = 0; k < weight.cols(); ++k) {
        fed.push_back({k, static_cast<double>(weight.at(j, k))});
      }
      wires.bias.push_back(with_bias ? static_cast<double>(bias.at(0, j)) : 0);
    }
    return wires;
  }
  DenseWeights<T> layer(bool with_bias = true) { return {weight.read(), with_bias ? bias.data() : nullptr}; }
  bool intact() { return weight.intact() && bias.intact() && LayerArrays<T>::intact(); }

  Fenced<T> weight, bias;
};

struct Reference {
  std::vector<Sum64> output;       // (batch, n_out); error: what the result may be off by
  std::vector<Sum64> relevance;    // (targets * batch, n_in)
  std::vector<Sum64> absorbed[3];  // bias, stabilizer, dead (targets * batch)
  std::vector<Index> unsure;       // denominators whose sign a computation in T may get wrong (targets * batch)
};

// Where rounding decides about a sign, no tolerance helps: such a relevance is counted, and (kSettle) set to zero
// first. kPositive: so is that of outputs that are not positive, as behind a ReLU.
enum class Care { kCount, kSettle, kPositive };

// Errors of denominators that a case allows beyond those of their own sums, for layers that may derive a denominator
// from others. None of them: every denominator comes from its own sum.
struct Derived {
  // > 0: the second denominator may be the output minus the first one's sum, with the errors of both, unless less than
  // first / remainder_of_first or bias / remainder_of_bias is left.
  double remainder_of_first = 0, remainder_of_bias = 0;
  // > 0: both may be half the sum and half the difference of W a and |W| |a|, with the errors of both, unless one is
  // less than |W| |a| / half_of_magnitude.
  double half_of_magnitude = 0;
  bool counts_bias = false;  // as a contribution, in W a and |W| |a|
};

template <class T>
Reference reference(const Wires& wires, LayerArrays<T>& data, const Rule& rule, Care care,
                    const Derived& derived = {}) {
  const Index batch = data.input.rows(), targets = batch == 0 ? 0 : data.relevance.rows() / batch;
  const std::size_t n_in = static_cast<std::size_t>(wires.inputs), n_out = wires.outputs.size();
  const std::size_t rows = static_cast<std::size_t>(data.relevance.rows()), groups = rule.groups.size();
  Reference result;
  result.unsure.resize(rows);
  result.relevance.resize(rows * n_in);
  for (auto& column : result.absorbed) {
    column.resize(rows);
  }
  struct Denominator64 {
    Sum64 z;
    double d;
  };
  std::vector<Denominator64> of(groups);
  std::vector<Index> receives(n_in);
  for (const auto& fed : wires.outputs) {
    for (const Wire& wire : fed) {
      ++receives[static_cast<std::size_t>(wire.input)];
    }
  }
  for (Index i = 0; i < batch; ++i) {
    for (std::size_t j = 0; j < n_out; ++j) {
      const double b = wires.bias[j];
      const std::vector<Wire>& fed = wires.outputs[j];
      const Index n = static_cast<Index>(fed.size());
      Sum64 plain;
      plain.add(b);
      for (const Wire& wire : fed) {
        plain.add(wire.weight * data.part(Part::kInput, i, wire.input));
      }
      plain.error = bound<T>(plain, 2 * n);
      result.output.push_back(plain);
      const bool plain_unsure = plain.size > 0 && std::abs(plain.value) <= 4 * plain.error;
      bool unsure = care == Care::kPositive && plain_unsure;
      bool halves = false;
      if (derived.half_of_magnitude > 0) {
        double above = 0, below = 0;
        for (const Wire& wire : fed) {
          const double p = wire.weight * data.part(Part::kInput, i, wire.input);
          (p > 0 ? above : below) += std::abs(p);
        }
        if (derived.counts_bias) {
          (b > 0 ? above : below) += std::abs(b);
        }
        halves = derived.half_of_magnitude * std::min(above, below) >= above + below;
      }
      for (std::size_t g = 0; g < groups; ++g) {
        const Group& group = rule.groups[g];
        Sum64 z;
        z.add(rho(group.bias, b));
        for (const Term& term : group.terms) {
          for (const Wire& wire : fed) {
            z.add(term.sign * rho(term.map, wire.weight) * data.part(term.part, i, wire.input));
          }
        }
        const double v = z.value;
        z.error = bound<T>(z, n * static_cast<Index>(group.terms.size()));
        if (halves) {
          z.error += (static_cast<double>(n) + kFew) * kUnit<T> * plain.size;
        }
        if (derived.remainder_of_first > 0 && g == 1) {
          const double first = of[0].z.value - rho(rule.groups[0].bias, b), left = v - rho(group.bias, b);
          const double more = plain.error + of[0].z.error;
          const double most = std::abs(left) + more;
          const bool enough =
              derived.remainder_of_first * most >= std::abs(first) && derived.remainder_of_bias * most >= std::abs(b);
          z.error += enough ? more : 0;
        }
        of[g] = {z, group.guard == Guard::kSigned ? (v < 0 ? v - group.epsilon : v + group.epsilon)
                                                  : (v == 0 ? group.epsilon : v)};
        unsure = unsure || (z.size > 0 && std::abs(v) <= 4 * z.error) || (group.mask != Mask::kAll && plain_unsure);
      }
      for (Index t = 0; t < targets; ++t) {
        const std::size_t row = static_cast<std::size_t>(t * batch + i);
        T& entry = data.relevance.at(t * batch + i, static_cast<Index>(j));
        if (care == Care::kPositive && !(plain.value > 0)) {
          entry = 0;
        }
        if (unsure && entry != 0) {
          ++result.unsure[row];
          entry = care == Care::kCount ? entry : 0;
        }
        const double r = static_cast<double>(entry);
        double unserved = r, shares = 0;
        for (std::size_t g = 0; g < groups; ++g) {
          const Group& group = rule.groups[g];
          const auto& [z, d] = of[g];
          const bool serves =
              group.mask == Mask::kAll || (group.mask == Mask::kPositive ? plain.value > 0 : plain.value < 0);
          const double numerator = serves ? group.coefficient * r : 0;
          const double s = numerator == 0 || d == 0 ? 0 : numerator / d;
          const double error = s == 0 ? 0 : std::abs(s) * (z.error / (std::abs(d) - z.error) + kFew * kUnit<T>);
          unserved -= numerator;
          shares += std::abs(s);
          Sum64 &bias = result.absorbed[0][row], &stabilizer = result.absorbed[1][row], &dead = result.absorbed[2][row];
          dead.error += kFew * kUnit<T> * std::abs(numerator);
          if (z.value == 0 || s == 0) {
            dead.add(numerator);
          } else if (group.epsilon != 0) {
            stabilizer.add(numerator - z.value * s,
                           kFew * kUnit<T> * std::abs(numerator) + z.error * std::abs(s) + std::abs(z.value) * error);
          }
          bias.add(rho(group.bias, b) * s, std::abs(rho(group.bias, b)) * error);
          for (const Term& term : group.terms) {
            for (const Wire& wire : fed) {
              const double x = term.sign * data.part(term.part, i, wire.input);
              if (s != 0 && x != 0) {
                const double factor = x * rho(term.map, wire.weight);
                result.relevance[row * n_in + static_cast<std::size_t>(wire.input)].add(factor * s,
                                                                                        std::abs(factor) * error);
              }
            }
          }
        }
        result.absorbed[2][row].add(unserved);
        for (const Wire& wire : fed) {
          if (halves) {  // half sum and half difference of s, each with a product of its own
            const double p = wire.weight * data.part(Part::kInput, i, wire.input);
            result.relevance[row * n_in + static_cast<std::size_t>(wire.input)].size += std::abs(p) * shares;
          }
        }
      }
    }
  }
  for (std::size_t n = 0; n < result.relevance.size(); ++n) {
    result.relevance[n].error = bound<T>(result.relevance[n], receives[n % n_in]);
  }
  for (auto& column : result.absorbed) {
    for (Sum64& lost : column) {
      lost.error = bound<T>(lost, static_cast<Index>(n_out));
    }
  }
  return result;
}

}  // namespace pylrp
