// From a rule to the fewest products with W.
//
// Terms that read the same part of the input differ only in (p, n), so their products span at most two:
// W+ x and W- x. Forward, products that enter every group alike are summed in one accumulator; backward, a group
// needs W+^T s and W-^T s at most, whatever its number of terms. docs/architecture.md has the table of counts.
#pragma once

#include <array>
#include <vector>

#include "base/rule.hpp"

namespace pylrp {

struct ProductTerm {
  Part part;
  WeightMap map;
};
// Z = sum over terms of rho(W) x
using Sum = std::vector<ProductTerm>;

// z = sum_q coef[q] Z_q + constants + rho_b(b)
struct Denominator {
  std::vector<double> coef;
  std::vector<Term> constants;  // terms whose input part is the same for every sample
  BiasMap bias;
  double coefficient;
  Mask mask;
  Guard guard;
  double epsilon;
};

// R_in += (sum_parts factor[part] * part of the input) * rho(W)^T s_group
struct BackProduct {
  int group;
  WeightMap map;
  std::array<double, kParts> factor;
};

struct LoweredRule {
  std::vector<Sum> sums;
  std::vector<Denominator> groups;
  bool masked = false;
  std::vector<double> plain;  // coefficients of the plain output W a, where masked
  std::vector<BackProduct> back;
  bool half_sum_and_difference = false;  // back[0] reads (s_0 + s_1) / 2 and back[1] (s_0 - s_1) / 2
  // Of what by_magnitude() makes: a denominator may be a small part of v, which cancels; biases count as contributions.
  bool may_cancel = false, bias_by_sign = false;

  bool passes() const { return groups.empty(); }
  bool reads(Part part) const;       // in the forward or the backward half
  bool reads_input() const;          // any part that depends on the sample
  bool vanishes_with_input() const;  // R_i = 0 wherever a_i = 0
  bool sum_is_plain_output() const;  // one sum, W a as it is
  bool two_sums_make_plain_output() const;
  // The same parts of the input multiply back[b] and the product before it: their sums are one.
  bool joins(std::size_t b) const { return b > 0 && back[b].factor == back[b - 1].factor; }
};

// Of a rule whose one sum is the plain output: whether that may hold the bias, too.
bool sum_takes_whole_bias(const LoweredRule& rule, bool has_bias);

// input_nonnegative: a >= 0 is known, so a- terms are empty and a+ is a.
// output_positive: z > 0 wherever there is relevance (a ReLU follows whose zeros get none), so masks are decided.
// Throws Error on a rule too wide for the kernels.
LoweredRule lower(const Rule& rule, bool input_nonnegative, bool output_positive = false);

// The same with constant terms as sums of their own, for layers where they differ from position to position.
LoweredRule with_constants_as_sums(LoweredRule rule);

// The same rule by fewer products, where its groups read nothing but P and N, the sums of the contributions w a above
// and below zero (z+, gamma, alpha-beta of inputs of both signs): out of u = W a and v = |W| |a|, P = (u + v) / 2 and N
// = (u - v) / 2; and, of two groups, R = a W^T (s_0 + s_1) / 2 + |a| |W|^T (s_0 - s_1) / 2, where group 0 takes P as
// group 1 takes N. Of one group the way back stays as it is. False if the rule is none of this kind.
bool by_magnitude(const LoweredRule& rule, LoweredRule* result);

// A rule with all its lowered forms, made once.
class CompiledRule {
 public:
  explicit CompiledRule(Rule rule);
  const LoweredRule& form(bool input_nonnegative, bool output_positive = false) const {
    return forms_[(input_nonnegative ? 1 : 0) + (output_positive ? 2 : 0)];
  }
  // The form that holds always.
  const LoweredRule& any() const { return forms_[0]; }
  const Rule& rule() const { return rule_; }
  bool passes() const { return rule_.passes(); }
  // Of a layer without weights: in proportion to its contributions, without a stabilizer?
  bool is_exact() const { return rule_.groups.size() == 1 && rule_.groups[0].epsilon == 0; }
  // Of one with weights: the same, R = a W^T (R / (W a + b))?
  bool is_plain_and_exact(bool has_bias) const;

 private:
  Rule rule_;
  std::vector<LoweredRule> forms_;
};

// Of a layer's rule; no rule: its own way.
inline Treatment treatment_of(const CompiledRule* rule) {
  return rule == nullptr ? Treatment::kNone : rule->rule().treatment;
}
inline bool is_gradient(const CompiledRule* rule) { return treatment_of(rule) == Treatment::kGradient; }

}  // namespace pylrp
