// Sizes that come from outside. Every product of them is checked in 64 bits and bounded before anything is allocated or
// reached by it; Buffer asks here, and each layer where the graph is made.
#pragma once

#include <initializer_list>

#include "base/view.hpp"

namespace pylrp {

// What an address space holds. Sums of a few sizes up to here, and small multiples, need no check of their own.
inline constexpr Index kMostEntries = Index{1} << 47;

// Throws Error where a factor is negative or the product is more than kMostEntries.
Index checked_product(std::initializer_list<Index> factors, const char* what);

// kMostEntries where the product is more: to compare amounts of work. Factors are not negative.
Index bounded_product(std::initializer_list<Index> factors);

// Throws Error("... do not fit") unless they do.
void require_fit(bool fits, const char* what);

}  // namespace pylrp
