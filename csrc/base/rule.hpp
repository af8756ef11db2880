// A relevance propagation rule as data. Python's catalogue writes these; nothing here knows a rule's name.
//
//   z_g   = sum_t sign_t * rho_t(W) x_t + rho_b(b)
//   s_g   = coefficient * mask * R / stab(z_g)
//   R_in += sum_t sign_t * x_t * (rho_t(W)^T s_g)
#pragma once

#include <cstdint>
#include <vector>

namespace pylrp {

// x_t: which part of the layer's input a term reads. kMagnitude, |a|, is for lowered rules only: a rule's own terms
// read one of the first kRuleParts.
enum class Part : std::uint8_t { kInput, kPositive, kNegative, kOne, kLow, kHigh, kMagnitude };
inline constexpr int kParts = 7;
inline constexpr int kRuleParts = 6;

// rho(w) = p * max(w, 0) + n * min(w, 0), or w^2, or 1.
enum class MapKind : std::uint8_t { kSigns, kSquare, kOne };
struct WeightMap {
  MapKind kind = MapKind::kSigns;
  double p = 1, n = 1;
};
inline bool operator==(const WeightMap& a, const WeightMap& b) {
  return a.kind == b.kind && (a.kind != MapKind::kSigns || (a.p == b.p && a.n == b.n));
}

enum class BiasKind : std::uint8_t { kNone, kSigns, kSquare };
struct BiasMap {
  BiasKind kind = BiasKind::kNone;
  double p = 1, n = 1;
};

// Which outputs a group serves, by the sign of the plain output z = W a + b.
enum class Mask : std::uint8_t { kAll, kPositive, kNegative };

// kSigned: z < 0 ? z - eps : z + eps.   kWhereZero: z == 0 ? eps : z.
enum class Guard : std::uint8_t { kSigned, kWhereZero };

struct Term {
  Part part = Part::kInput;
  WeightMap map;
  double sign = 1;
};

struct Group {
  std::vector<Term> terms;
  BiasMap bias;
  double coefficient = 1;
  Mask mask = Mask::kAll;
  Guard guard = Guard::kSigned;
  double epsilon = 0;
};

// Layers without weights have formulas of their own, which a rule calls by name; layers/ has them.
enum class Treatment : std::uint8_t {
  kNone,
  kTaylor,      // softmax: its first-order Taylor expansion
  kStop,        // softmax: a constant
  kDetach,      // normalisation: the statistic that it divides by is a constant
  kDetachAll,   // normalisation: the mean, too
  kHalf,        // a product of two values: half to each factor
  kValueLeft,   // all to the left factor, the right one is a constant
  kValueRight,  // all to the right factor
  kSignal,      // product, elementwise: all to the one that the layer has for the signal
  kSpread,      // recurrent: what stabilisers and biases take goes to all inputs in equal parts; has a group, too
  kGradient,    // any: input times the derivative of the output, c = R / y the gradient of what is above
};

// No groups and no treatment: relevance passes through unchanged (equal widths).
struct Rule {
  std::vector<Group> groups;
  Treatment treatment = Treatment::kNone;
  bool passes() const { return groups.empty() && treatment == Treatment::kNone; }
};

// What Part::kLow and Part::kHigh stand for, the bounds of a z-box, one an input.
template <class T>
struct Bounds {
  const T* low = nullptr;
  const T* high = nullptr;
};

}  // namespace pylrp
