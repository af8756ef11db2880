#include "base/size.hpp"

#include <string>

#include "base/error.hpp"

namespace pylrp {
namespace {

// Of factors that are not negative. false: the product is more than kMostEntries.
bool multiply(std::initializer_list<Index> factors, Index* product) {
  *product = 1;
  for (const Index factor : factors) {
    if (factor == 0) {  // whatever the others are
      *product = 0;
      return true;
    }
  }
  for (const Index factor : factors) {
    if (factor > kMostEntries / *product) {
      return false;
    }
    *product *= factor;
  }
  return true;
}

}  // namespace

Index checked_product(std::initializer_list<Index> factors, const char* what) {
  for (const Index factor : factors) {
    if (factor < 0) {
      throw Error(std::string(what) + " has a size of " + std::to_string(factor));
    }
  }
  Index product = 1;
  if (!multiply(factors, &product)) {
    std::string text;
    for (const Index factor : factors) {
      text += (text.empty() ? "" : " * ") + std::to_string(factor);
    }
    throw Error(std::string(what) + " has " + text + " entries, more than an address space holds");
  }
  return product;
}

Index bounded_product(std::initializer_list<Index> factors) {
  Index product = 1;
  return multiply(factors, &product) ? product : kMostEntries;
}

void require_fit(bool fits, const char* what) {
  if (!fits) {
    throw Error(std::string(what) + " do not fit");
  }
}

}  // namespace pylrp
