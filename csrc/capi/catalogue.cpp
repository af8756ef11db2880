#include "capi/catalogue.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <optional>

namespace pylrp::capi {
namespace {

enum class Kind { kZero, kEpsilon, kGamma, kZPlus, kAlphaBeta, kWSquare, kFlat, kZBox, kNorm, kPass };
struct Entry {
  const char* name;
  Kind kind;
  std::vector<const char*> takes;
};
const Entry kRules[] = {
    {"zero", Kind::kZero, {"bias"}},
    {"epsilon", Kind::kEpsilon, {"epsilon", "bias"}},
    {"gamma", Kind::kGamma, {"gamma", "stabilizer", "bias"}},
    {"zplus", Kind::kZPlus, {"stabilizer", "bias"}},
    {"alphabeta", Kind::kAlphaBeta, {"alpha", "beta", "stabilizer", "bias"}},
    {"wsquare", Kind::kWSquare, {"stabilizer", "bias"}},
    {"flat", Kind::kFlat, {"stabilizer"}},
    {"zbox", Kind::kZBox, {"stabilizer"}},
    {"norm", Kind::kNorm, {"stabilizer"}},
    {"pass", Kind::kPass, {}},
};
constexpr const char* kConventions[] = {"zennit", "captum", "innvestigate", "lrp_toolbox"};
const Composite kComposites[] = {
    {"deep_taylor", "wsquare", "zplus", true},
    {"deep_taylor_box", "zbox", "zplus", true},
    {"epsilon", "epsilon", "epsilon", false},
    {"epsilon_plus", "epsilon", "epsilon", false},
    {"epsilon_plus_flat", "flat", "epsilon", false},
    {"epsilon_alpha2_beta1", "epsilon", "epsilon", false},
    {"epsilon_alpha2_beta1_flat", "flat", "epsilon", false},
    {"epsilon_gamma_box", nullptr, "epsilon", false},
    {"excitation_backprop", "zplus", "zplus", false},
};

constexpr double kStabilizer = 1e-6;

std::string plain(const std::string& name) {
  std::string result;
  for (const char c : name) {
    if (c != '_' && c != '-' && c != '^' && c != ' ') {
      result += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  return result;
}

template <class List, class NameOf>
std::string listed(const List& list, NameOf name_of) {
  std::string text;
  for (const auto& item : list) {
    text += (text.empty() ? "" : ", ") + std::string(name_of(item));
  }
  return text;
}

const Entry& entry_of(const std::string& name) {
  std::string wanted = plain(name);
  wanted = wanted == "z+" ? "zplus" : (wanted == "w2" ? "wsquare" : (wanted == "zb" ? "zbox" : wanted));
  for (const Entry& entry : kRules) {
    if (wanted == entry.name) {
      return entry;
    }
  }
  throw Failure(PYLRP_INVALID, "unknown rule '" + name + "': choose one of " +
                                   listed(kRules, [](const Entry& entry) { return entry.name; }));
}

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", value);
  return buffer;
}

// Parameters that were given; the others have defaults that a convention may replace.
struct Given {
  std::optional<double> epsilon, gamma, alpha, beta, stabilizer;
  bool bias = true;
};

Given read(const Entry& entry, const Parameters& parameters) {
  Given given;
  for (const auto& [name, value] : parameters) {
    if (std::none_of(entry.takes.begin(), entry.takes.end(),
                     [&wanted = name](const char* taken) { return wanted == taken; })) {
      throw Failure(PYLRP_INVALID,
                    "rule " + std::string(entry.name) + " has no parameter '" + name + "'" +
                        (entry.takes.empty() ? ": it takes none"
                                             : "; it takes " + listed(entry.takes, [](const char* n) { return n; })));
    }
    if (!std::isfinite(value) || value < 0) {
      throw Failure(PYLRP_INVALID, "rule " + std::string(entry.name) + ": " + name +
                                       " must be finite and at least 0, got " + text(value));
    }
    if (name == "bias") {
      given.bias = value != 0;
    } else {
      (name == "epsilon"
           ? given.epsilon
           : (name == "gamma" ? given.gamma
                              : (name == "alpha" ? given.alpha : (name == "beta" ? given.beta : given.stabilizer)))) =
          value;
    }
  }
  const double alpha = given.alpha.value_or(2), beta = given.beta.value_or(1);
  if (std::abs(alpha - beta - 1) > 1e-9) {
    throw Failure(PYLRP_INVALID, "rule alphabeta: alpha - beta must be 1, got alpha=" + text(alpha) +
                                     ", beta=" + text(beta) + ": " + text(alpha - beta));
  }
  return given;
}

BiasMap bias_of(bool used, double p, double n) { return {used ? BiasKind::kSigns : BiasKind::kNone, p, n}; }
Term term(Part part, double p = 1, double n = 1, double sign = 1) { return {part, {MapKind::kSigns, p, n}, sign}; }

Group group(std::vector<Term> terms, BiasMap bias, double epsilon, double coefficient = 1, Mask mask = Mask::kAll) {
  Group made;
  made.terms = std::move(terms);
  made.bias = bias;
  made.epsilon = epsilon;
  made.coefficient = coefficient;
  made.mask = mask;
  return made;
}

// zennit's groups.
std::vector<Group> groups_of(Kind kind, const Given& given) {
  const double eps = given.stabilizer.value_or(kStabilizer);
  const bool bias = given.bias;
  switch (kind) {
    case Kind::kZero:
      return {group({term(Part::kInput)}, bias_of(bias, 1, 1), 0)};
    case Kind::kEpsilon:
      return {group({term(Part::kInput)}, bias_of(bias, 1, 1), given.epsilon.value_or(kStabilizer))};
    case Kind::kNorm:
      return {group({term(Part::kInput)}, bias_of(true, 1, 1), eps)};
    case Kind::kZPlus:
      return {group({term(Part::kPositive, 1, 0), term(Part::kNegative, 0, 1)}, bias_of(bias, 1, 0), eps)};
    case Kind::kAlphaBeta: {
      const double alpha = given.alpha.value_or(2), beta = given.beta.value_or(1);
      std::vector<Group> both{
          group({term(Part::kPositive, 1, 0), term(Part::kNegative, 0, 1)}, bias_of(bias, 1, 0), eps, alpha)};
      if (beta != 0) {
        both.push_back(
            group({term(Part::kPositive, 0, 1), term(Part::kNegative, 1, 0)}, bias_of(bias, 0, 1), eps, -beta));
      }
      return both;
    }
    case Kind::kGamma: {
      const double g = 1 + given.gamma.value_or(0.25);
      return {group({term(Part::kPositive, g, 1), term(Part::kNegative, 1, g)}, bias_of(bias, g, 1), eps, 1,
                    Mask::kPositive),
              group({term(Part::kPositive, 1, g), term(Part::kNegative, g, 1)}, bias_of(bias, 1, g), eps, 1,
                    Mask::kNegative)};
    }
    case Kind::kWSquare:
      return {group({{Part::kOne, {MapKind::kSquare}, 1}}, {bias ? BiasKind::kSquare : BiasKind::kNone}, eps)};
    case Kind::kFlat:
      return {group({{Part::kOne, {MapKind::kOne}, 1}}, {}, eps)};
    case Kind::kZBox:
      return {group({term(Part::kInput), term(Part::kLow, 1, 0, -1), term(Part::kHigh, 0, 1, -1)}, {}, eps)};
    case Kind::kPass:
      break;
  }
  return {};
}

// Replaces a stabiliser that was left at its default.
void settle(std::vector<Group>* groups, const Given& given, double value, Guard guard = Guard::kSigned) {
  for (Group& one : *groups) {
    if (!given.stabilizer && !given.epsilon) {
      one.epsilon = value;
      one.guard = guard;
    }
  }
}

void drop_bias(std::vector<Group>* groups) {
  for (Group& one : *groups) {
    one.bias = {};
  }
}

[[noreturn]] void missing(const char* library, const Entry& entry, const char* has) {
  throw Failure(PYLRP_UNSUPPORTED, std::string(library) + " has no rule " + entry.name + "; it has " + has);
}

// captum 0.9: 1e-9, no split of the input by sign, gamma leaves the bias alone, alpha-beta only as 1, 0.
void as_captum(const Entry& entry, const Given& given, std::vector<Group>* groups) {
  if (entry.kind == Kind::kZero) {
    groups->front().epsilon = 1e-9;
    return;
  }
  settle(groups, given, 1e-9);
  if (entry.kind == Kind::kEpsilon || entry.kind == Kind::kNorm || entry.kind == Kind::kPass) {
    return;
  }
  const BiasMap bias = bias_of(given.bias, 1, 1);
  const double epsilon = groups->front().epsilon;
  if (entry.kind == Kind::kGamma) {
    *groups = {group({term(Part::kInput, 1 + given.gamma.value_or(0.25), 1)}, bias, epsilon)};
  } else if (entry.kind == Kind::kZPlus || (entry.kind == Kind::kAlphaBeta && given.beta == 0.0)) {
    *groups = {group({term(Part::kInput, 1, 0)}, bias, epsilon)};
  } else {
    missing("captum", entry, "epsilon, gamma, alphabeta with 1 and 0, zplus and pass");
  }
}

// iNNvestigate 2.1: 1e-7 where z == 0 (added to z only in epsilon), the whole bias in both alpha-beta groups.
void as_innvestigate(const Entry& entry, const Given& given, std::vector<Group>* groups) {
  if (entry.kind == Kind::kGamma) {
    missing("innvestigate", entry, "every rule but gamma");
  }
  settle(groups, given, 1e-7, entry.kind == Kind::kEpsilon ? Guard::kSigned : Guard::kWhereZero);
  if (entry.kind == Kind::kZPlus || entry.kind == Kind::kAlphaBeta) {
    for (Group& one : *groups) {
      one.bias = bias_of(given.bias, 1, 1);
    }
  } else if (entry.kind == Kind::kWSquare || entry.kind == Kind::kFlat || entry.kind == Kind::kZBox) {
    drop_bias(groups);
  }
}

// lrp_toolbox, Python: epsilon 1.0 by default, 1e-16 in LRP-0, nothing added in alpha-beta, w^2 and flat.
void as_lrp_toolbox(const Entry& entry, const Given& given, std::vector<Group>* groups) {
  if (entry.kind == Kind::kGamma || entry.kind == Kind::kZBox) {
    missing("lrp_toolbox", entry, "every rule but gamma and zbox");
  }
  const Kind kind = entry.kind;
  settle(groups, given,
         kind == Kind::kEpsilon ? 1.0 : (kind == Kind::kZero ? 1e-16 : (kind == Kind::kNorm ? 1e-12 : 0.0)));
  if (kind == Kind::kWSquare || kind == Kind::kFlat) {
    drop_bias(groups);
  }
}

}  // namespace

void require_convention(const std::string& name) {
  if (std::none_of(std::begin(kConventions), std::end(kConventions), [&](const char* c) { return name == c; })) {
    throw Failure(PYLRP_INVALID, "unknown convention '" + name + "': choose one of " +
                                     listed(kConventions, [](const char* n) { return n; }));
  }
}

Rule rule_by_name(const std::string& name, const std::string& convention, const Parameters& parameters) {
  require_convention(convention);
  const Entry& entry = entry_of(name);
  const Given given = read(entry, parameters);
  Rule rule{groups_of(entry.kind, given)};
  if (convention == "captum") {
    as_captum(entry, given, &rule.groups);
  } else if (convention == "innvestigate") {
    as_innvestigate(entry, given, &rule.groups);
  } else if (convention == "lrp_toolbox") {
    as_lrp_toolbox(entry, given, &rule.groups);
  }
  return rule;
}

const Composite& composite_by_name(const std::string& name) {
  const std::string wanted = plain(name);
  for (const Composite& composite : kComposites) {
    if (wanted == plain(composite.name)) {
      return composite;
    }
  }
  throw Failure(PYLRP_INVALID, "unknown composite '" + name + "': choose one of " +
                                   listed(kComposites, [](const Composite& c) { return c.name; }));
}

Rule rule_of(const Composite& composite, bool first, const std::string& convention) {
  if (composite.first == nullptr) {
    throw Failure(PYLRP_INVALID, "composite " + std::string(composite.name) +
                                     ": its box is for a convolution at the input, and all layers are dense; "
                                     "deep_taylor_box has one for dense layers, or set the rule zbox on layer 0");
  }
  const Entry& entry = entry_of(first ? composite.first : composite.others);
  Parameters parameters;
  for (const char* const name : entry.takes) {
    if (composite.bare && (std::string(name) == "stabilizer" || std::string(name) == "bias")) {
      parameters.emplace_back(name, 0.0);
    }
  }
  return rule_by_name(entry.name, convention, parameters);
}

const char* rule_name(std::size_t i) { return i < std::size(kRules) ? kRules[i].name : nullptr; }
const char* composite_name(std::size_t i) { return i < std::size(kComposites) ? kComposites[i].name : nullptr; }
const char* convention_name(std::size_t i) { return i < std::size(kConventions) ? kConventions[i] : nullptr; }

}  // namespace pylrp::capi
