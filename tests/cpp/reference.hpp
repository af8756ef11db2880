// The relevance of one dense layer as base/rule.hpp states it, written out in double, with the error that a computation
// in T may make. No step is shared with the library: the rule is read as it is, not lowered, in the order of the
// indices.
//
// Errors: u = epsilon / 2. A sum of n products in any order is off by at most (n + c) u times the sum of magnitudes, c
// for the few roundings of the weight map, of signs and coefficients. An error dz of a denominator d changes s = r / d
// by at most s dz / (|d| - dz).
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "base/rule.hpp"
#include "fenced.hpp"
#include "layers/dense.hpp"

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

// A layer with everything a rule may read.
template <class T>
struct Layer {
  Layer(Index batch, Index n_in, Index n_out, unsigned seed, bool nonnegative)
      : weight(n_out, n_in, 5),
        bias(1, n_out, 0),
        low(1, n_in, 0),
        high(1, n_in, 0),
        input(batch, n_in),
        relevance(batch, n_out, 2) {
    Random random(seed);
    weight.fill(random);
    bias.fill([&] { return random() / 2; });
    low.fill([&] { return random(-2, -1); });
    high.fill([&] { return random(1, 2); });
    input.fill([&] { return random.chance(0.3) ? 0 : (nonnegative ? random(0, 1) : random()); });
    relevance.fill([&] { return random.chance(0.2) ? 0 : random(); });
    if (n_out > 3) {  // a neuron without receivers
      for (Index k = 0; k < n_in; ++k) {
        weight.at(2, k) = 0;
      }
      bias.at(0, 2) = 0;
    }
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
    }
    return 0;
  }
  bool intact() {
    return weight.intact() && bias.intact() && low.intact() && high.intact() && input.intact() && relevance.intact();
  }

  Fenced<T> weight, bias, low, high, input, relevance;
};

struct Reference {
  std::vector<Sum64> relevance;    // (batch, n_in); error: what the result may be off by
  std::vector<Sum64> absorbed[3];  // bias, stabilizer, dead (batch)
  std::vector<Index> unsure;       // denominators whose sign a computation in T may get wrong (batch)
};

// Where rounding decides about a sign, no tolerance helps: such a relevance is set to zero first (settle), or counted.
template <class T>
Reference reference(Layer<T>& layer, const Rule& rule, bool with_bias, bool settle) {
  const Index batch = layer.input.rows(), n_in = layer.input.cols(), n_out = layer.weight.rows();
  const auto weight = [&](Index j, Index k) { return static_cast<double>(layer.weight.at(j, k)); };
  const auto product_error = [&](const Sum64& z, std::size_t terms) {
    return bound<T>(z, n_in * static_cast<Index>(terms));
  };
  Reference result;
  result.unsure.resize(static_cast<std::size_t>(batch));
  for (auto& column : result.absorbed) {
    column.resize(static_cast<std::size_t>(batch));
  }
  struct Share {
    double s, error;
  };
  std::vector<Share> shares(rule.groups.size() * static_cast<std::size_t>(n_out));
  for (Index i = 0; i < batch; ++i) {
    for (Index j = 0; j < n_out; ++j) {
      const double b = with_bias ? static_cast<double>(layer.bias.at(0, j)) : 0;
      Sum64 plain;
      plain.add(b);
      for (Index k = 0; k < n_in; ++k) {
        plain.add(weight(j, k) * layer.part(Part::kInput, i, k));
      }
      std::vector<Sum64> z(rule.groups.size());
      std::vector<double> d(rule.groups.size());
      bool unsure = false;
      for (std::size_t g = 0; g < z.size(); ++g) {
        const Group& group = rule.groups[g];
        z[g].add(rho(group.bias, b));
        for (const Term& term : group.terms) {
          for (Index k = 0; k < n_in; ++k) {
            z[g].add(term.sign * rho(term.map, weight(j, k)) * layer.part(term.part, i, k));
          }
        }
        const double v = z[g].value;
        d[g] = group.guard == Guard::kSigned ? (v < 0 ? v - group.epsilon : v + group.epsilon)
                                             : (v == 0 ? group.epsilon : v);
        z[g].error = product_error(z[g], group.terms.size());
        unsure = unsure || (z[g].size > 0 && std::abs(v) <= 4 * z[g].error);
        unsure = unsure ||
                 (group.mask != Mask::kAll && plain.size > 0 && std::abs(plain.value) <= 4 * product_error(plain, 2));
      }
      double r = static_cast<double>(layer.relevance.at(i, j));
      if (unsure && r != 0) {
        ++result.unsure[static_cast<std::size_t>(i)];
        if (settle) {
          layer.relevance.at(i, j) = 0;
          r = 0;
        }
      }
      double unserved = r;
      const auto at = static_cast<std::size_t>(i);
      for (std::size_t g = 0; g < z.size(); ++g) {
        const Group& group = rule.groups[g];
        const bool serves =
            group.mask == Mask::kAll || (group.mask == Mask::kPositive ? plain.value > 0 : plain.value < 0);
        const double numerator = serves ? group.coefficient * r : 0;
        const double s = numerator == 0 || d[g] == 0 ? 0 : numerator / d[g];
        const double error = s == 0 ? 0 : std::abs(s) * (z[g].error / (std::abs(d[g]) - z[g].error) + kFew * kUnit<T>);
        shares[g * static_cast<std::size_t>(n_out) + static_cast<std::size_t>(j)] = {s, error};
        unserved -= numerator;
        result.absorbed[2][at].error += kFew * kUnit<T> * std::abs(numerator);
        if (z[g].value == 0 || s == 0) {
          result.absorbed[2][at].add(numerator);
        } else if (group.epsilon != 0) {
          result.absorbed[1][at].add(
              numerator - z[g].value * s,
              kFew * kUnit<T> * std::abs(numerator) + z[g].error * std::abs(s) + std::abs(z[g].value) * error);
        }
        result.absorbed[0][at].add(rho(group.bias, b) * s, std::abs(rho(group.bias, b)) * error);
      }
      result.absorbed[2][at].add(unserved);
    }
    for (Index k = 0; k < n_in; ++k) {
      Sum64 total;
      for (std::size_t g = 0; g < rule.groups.size(); ++g) {
        for (const Term& term : rule.groups[g].terms) {
          const double x = term.sign * layer.part(term.part, i, k);
          for (Index j = 0; x != 0 && j < n_out; ++j) {
            const Share& share = shares[g * static_cast<std::size_t>(n_out) + static_cast<std::size_t>(j)];
            const double factor = x * rho(term.map, weight(j, k));
            total.add(factor * share.s, std::abs(factor) * share.error);
          }
        }
      }
      total.error = bound<T>(total, n_out);
      result.relevance.push_back(total);
    }
    for (auto& column : result.absorbed) {
      Sum64& lost = column[static_cast<std::size_t>(i)];
      lost.error = bound<T>(lost, n_out);
    }
  }
  return result;
}

}  // namespace pylrp
