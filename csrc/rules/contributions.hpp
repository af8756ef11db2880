// A lowered rule in terms of the contributions c = w a of inputs of any sign: denominators that are sums of f(c), and
// f(c) times the shares sent back, where f weighs what is above and what is below zero.
#pragma once

#include <vector>

#include "rules/lower.hpp"

namespace pylrp {

// f(c) = above * max(c, 0) + below * min(c, 0)
struct OfContribution {
  double above = 0, below = 0;
};
inline bool operator==(const OfContribution& f, const OfContribution& g) {
  return f.above == g.above && f.below == g.below;
}

// Of one sum; false: it is no f(c).
bool by_contribution(const Sum& sum, OfContribution* f);

struct ByContribution {
  std::vector<OfContribution> denominators, sent;  // of each group
  OfContribution plain;                            // of the plain output, where the rule is masked
};

// False where a denominator or what a group sends is none of that kind: it tells the signs of inputs and of weights
// apart in another way, or reads squares or constants.
bool by_contribution(const LoweredRule& rule, ByContribution* result);

}  // namespace pylrp
