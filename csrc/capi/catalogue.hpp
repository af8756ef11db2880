// The catalogue of rules by name, for those who have no Python: what pylrp/rules/catalogue.py, conventions.py and
// composites.py say, entry by entry. tests/core/test_capi.py holds them against each other.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/rule.hpp"
#include "capi/pylrp.h"

namespace pylrp::capi {

// An error with the code it becomes.
struct Failure : Error {
  Failure(pylrp_status status_, const std::string& text) : Error(text), status(status_) {}
  pylrp_status status;
};

using Parameters = std::vector<std::pair<std::string, double>>;

// Names are read in small letters without "_", "-", "^" and blanks; "z+", "w2" and "zb" are understood, too.
// Throws Failure where a name, a parameter or a combination is unknown.
Rule rule_by_name(const std::string& name, const std::string& convention, const Parameters& parameters);

struct Composite {
  const char* name;
  const char* first;  // rule of the first layer; null: the composite is none for dense networks
  const char* others;
  bool bare;  // nothing is added to a denominator: no stabilizer, no bias
};
const Composite& composite_by_name(const std::string& name);
// Its rule for a layer. Throws Failure where it has none for dense layers.
Rule rule_of(const Composite& composite, bool first, const std::string& convention);

// Throws Failure if there is no such convention.
void require_convention(const std::string& name);

const char* rule_name(std::size_t i);
const char* composite_name(std::size_t i);
const char* convention_name(std::size_t i);

}  // namespace pylrp::capi
