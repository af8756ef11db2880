// The C interface: rules, and the text of the last error.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "capi/handles.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp::capi {
namespace {

// No std::string: its destructor at a thread's end would outlive a library that was unloaded.
thread_local char last_error[1024] = "";

constexpr pylrp_map kMaps[] = {PYLRP_SIGNS, PYLRP_SQUARE, PYLRP_ONES};
constexpr pylrp_map kBiasMaps[] = {PYLRP_NONE, PYLRP_SIGNS, PYLRP_SQUARE};

pylrp_term to_c(const Term& term) {
  return {static_cast<pylrp_part>(term.part), kMaps[static_cast<int>(term.map.kind)], term.map.p, term.map.n,
          term.sign};
}

// An enumerator that C may have made of any number.
template <class E>
E checked(int value, int count, const char* what) {
  if (value < 0 || value >= count) {
    throw Failure(PYLRP_INVALID, joined(what, " is ", value, ", there are 0 to ", count - 1));
  }
  return static_cast<E>(value);
}

void require_finite(double value, const char* what) {
  if (!std::isfinite(value)) {
    throw Failure(PYLRP_INVALID, joined("a rule's ", what, " is not finite"));
  }
}

Group from_c(const pylrp_group& from) {
  Group group;
  require(from.terms != nullptr || from.term_count == 0, "a group's terms are null");
  require(from.term_count > 0, "a group has no terms");
  for (std::size_t t = 0; t < from.term_count; ++t) {
    const pylrp_term& term = from.terms[t];
    require_finite(term.positive, "weight map");
    require_finite(term.negative, "weight map");
    require_finite(term.sign, "sign");
    group.terms.push_back({checked<Part>(term.part, kRuleParts, "a term's part"),
                           {checked<MapKind>(term.map, 3, "a term's map"), term.positive, term.negative},
                           term.sign});
  }
  require_finite(from.bias_positive, "bias map");
  require_finite(from.bias_negative, "bias map");
  require_finite(from.coefficient, "coefficient");
  require_finite(from.stabilizer, "stabilizer");
  require(from.stabilizer >= 0, "a rule's stabilizer is negative");
  switch (static_cast<int>(from.bias)) {
    case PYLRP_SIGNS:
      group.bias = {BiasKind::kSigns, from.bias_positive, from.bias_negative};
      break;
    case PYLRP_SQUARE:
      group.bias = {BiasKind::kSquare};
      break;
    case PYLRP_NONE:
      break;
    default:
      throw Failure(PYLRP_INVALID, "a group's bias is PYLRP_SIGNS, PYLRP_SQUARE or PYLRP_NONE");
  }
  group.coefficient = from.coefficient;
  group.mask = checked<Mask>(from.mask, 3, "a group's mask");
  group.guard = checked<Guard>(from.guard, 2, "a group's guard");
  group.epsilon = from.stabilizer;
  return group;
}

}  // namespace

void set_last_error(const char* text) noexcept {
  std::strncpy(last_error, text, sizeof last_error - 1);
  last_error[sizeof last_error - 1] = '\0';
}

}  // namespace pylrp::capi

pylrp_rule::pylrp_rule(pylrp::Rule rule) : compiled(std::make_shared<const pylrp::CompiledRule>(std::move(rule))) {
  using namespace pylrp;
  for (const Group& from : compiled->rule().groups) {
    auto& made = terms.emplace_back();
    std::transform(from.terms.begin(), from.terms.end(), std::back_inserter(made), capi::to_c);
    groups.push_back({made.data(), made.size(), capi::kBiasMaps[static_cast<int>(from.bias.kind)], from.bias.p,
                      from.bias.n, from.coefficient, static_cast<pylrp_mask>(from.mask),
                      static_cast<pylrp_guard>(from.guard), from.epsilon});
  }
}

using namespace pylrp;
using namespace pylrp::capi;

extern "C" {

int pylrp_api_version(void) { return PYLRP_API_VERSION; }

const char* pylrp_last_error(void) { return last_error; }

const char* pylrp_instruction_set(void) {
  const char* name = "";
  guarded([&] { name = kernels::active().name; });
  return name;
}

pylrp_status pylrp_rule_named(const char* name, const char* convention, const pylrp_parameter* parameters,
                              size_t parameter_count, pylrp_rule** rule) {
  return guarded([&] {
    require(rule != nullptr, "the place for the rule is null");
    *rule = nullptr;
    require(name != nullptr, "the rule's name is null");
    require(parameters != nullptr || parameter_count == 0, "the parameters are null");
    Parameters given;
    for (size_t i = 0; i < parameter_count; ++i) {
      require(parameters[i].name != nullptr, "a parameter's name is null");
      given.emplace_back(parameters[i].name, parameters[i].value);
    }
    *rule = new pylrp_rule(rule_by_name(name, convention ? convention : "zennit", given));
  });
}

pylrp_status pylrp_rule_from_groups(const pylrp_group* groups, size_t group_count, pylrp_rule** rule) {
  return guarded([&] {
    require(rule != nullptr, "the place for the rule is null");
    *rule = nullptr;
    require(groups != nullptr || group_count == 0, "the groups are null");
    Rule made;
    std::transform(groups, groups + group_count, std::back_inserter(made.groups), from_c);
    *rule = new pylrp_rule(std::move(made));
  });
}

const pylrp_group* pylrp_rule_groups(const pylrp_rule* rule, size_t* count) {
  if (count != nullptr) {
    *count = rule ? rule->groups.size() : 0;
  }
  return rule ? rule->groups.data() : nullptr;
}

void pylrp_rule_free(pylrp_rule* rule) { delete rule; }

const char* pylrp_rule_name(size_t i) { return rule_name(i); }
const char* pylrp_composite_name(size_t i) { return composite_name(i); }
const char* pylrp_convention_name(size_t i) { return convention_name(i); }

}  // extern "C"
