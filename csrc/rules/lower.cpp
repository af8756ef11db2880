#include "rules/lower.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "kernels/table.hpp"

namespace pylrp {
namespace {

// Does the part differ from sample to sample?
bool varies(Part part) {
  switch (part) {
    case Part::kInput:
    case Part::kPositive:
    case Part::kNegative:
    case Part::kMagnitude:
      return true;
    case Part::kOne:
    case Part::kLow:
    case Part::kHigh:
      break;
  }
  return false;
}

// Terms after the simplifications that the input allows.
std::vector<Term> simplify(const std::vector<Term>& terms, bool nonnegative, bool split) {
  std::vector<Term> result;
  for (Term term : terms) {
    if (nonnegative && term.part == Part::kNegative) {
      continue;
    }
    if (nonnegative && term.part == Part::kPositive) {
      term.part = Part::kInput;
    }
    if (split && term.part == Part::kInput) {
      term.part = Part::kPositive;
      result.push_back(term);
      term.part = Part::kNegative;
    }
    result.push_back(term);
  }
  return result;
}

struct Signs {
  double p = 0, n = 0;
};

// One (p, n) that all of `rows` are multiples of, or nothing: then W+ and W- are needed.
bool common_direction(const std::vector<Signs>& rows, Signs* direction) {
  Signs first;
  for (const Signs& row : rows) {
    if (first.p == 0 && first.n == 0) {
      first = row;
    } else if (first.p * row.n != first.n * row.p) {
      return false;
    }
  }
  const double scale = first.p != 0 ? first.p : first.n;
  *direction = scale == 0 ? Signs{} : Signs{first.p / scale, first.n / scale};
  return true;
}
double multiple(const Signs& row, const Signs& direction) {
  return direction.p != 0 ? row.p / direction.p : (direction.n != 0 ? row.n / direction.n : 0);
}

// A term list as coefficients of W+ x and W- x for one part.
Signs signs_of(const std::vector<Term>& terms, Part part) {
  Signs total;
  for (const Term& term : terms) {
    if (term.part == part && term.map.kind == MapKind::kSigns) {
      total.p += term.sign * term.map.p;
      total.n += term.sign * term.map.n;
    }
  }
  return total;
}
double amount_of(const std::vector<Term>& terms, Part part, MapKind kind) {
  double total = 0;
  for (const Term& term : terms) {
    total += term.part == part && term.map.kind == kind ? term.sign : 0;
  }
  return total;
}

void check_width(const LoweredRule& rule) {
  if (rule.sums.size() > kernels::kMaxSums || rule.groups.size() > kernels::kMaxGroups) {
    throw Error("a rule may have at most " + std::to_string(kernels::kMaxGroups) + " groups and need at most " +
                std::to_string(kernels::kMaxSums) + " different sums; this one has " +
                std::to_string(rule.groups.size()) + " and " + std::to_string(rule.sums.size()));
  }
}

class Lowering {
 public:
  Lowering(const Rule& rule, bool nonnegative) {
    bool input = false, halves = false;
    for (const Group& group : rule.groups) {
      out_.masked = out_.masked || group.mask != Mask::kAll;
      for (const Term& term : group.terms) {
        input = input || term.part == Part::kInput;
        halves = halves || term.part == Part::kPositive || term.part == Part::kNegative;
      }
    }
    const bool split = halves && !nonnegative && (input || out_.masked);
    for (const Group& group : rule.groups) {
      terms_.push_back(simplify(group.terms, nonnegative, split));
      out_.groups.push_back({{}, {}, group.bias, group.coefficient, group.mask, group.guard, group.epsilon});
    }
    forward_ = terms_;
    if (out_.masked) {  // the plain output counts as one more user of the products
      forward_.push_back(simplify({Term{}}, nonnegative, split));
    }
    lower_forward();
    for (std::size_t g = 0; g < terms_.size(); ++g) {
      lower_backward(static_cast<int>(g), terms_[g]);
    }
    // Products that the same parts of the input multiply become one sum (joins): next to each other.
    std::stable_sort(out_.back.begin(), out_.back.end(),
                     [](const BackProduct& a, const BackProduct& b) { return a.factor > b.factor; });
    check_width(out_);
  }
  LoweredRule take() { return std::move(out_); }

 private:
  void lower_forward() {
    for (const Part part : {Part::kInput, Part::kPositive, Part::kNegative}) {
      std::vector<Signs> rows;
      for (const auto& terms : forward_) {
        rows.push_back(signs_of(terms, part));
      }
      Signs direction;
      if (common_direction(rows, &direction)) {
        add_term({part, {MapKind::kSigns, direction.p, direction.n}}, rows,
                 [&](const Signs& row) { return multiple(row, direction); });
      } else {
        add_term({part, {MapKind::kSigns, 1, 0}}, rows, [](const Signs& row) { return row.p; });
        add_term({part, {MapKind::kSigns, 0, 1}}, rows, [](const Signs& row) { return row.n; });
      }
      for (const MapKind kind : {MapKind::kSquare, MapKind::kOne}) {
        add_term({part, {kind}}, forward_,
                 [&](const std::vector<Term>& terms) { return amount_of(terms, part, kind); });
      }
    }
    for (std::size_t g = 0; g < terms_.size(); ++g) {
      for (const Term& term : terms_[g]) {
        if (!varies(term.part)) {
          out_.groups[g].constants.push_back(term);
        }
      }
      for (const auto& coefficients : coefficients_) {
        out_.groups[g].coef.push_back(coefficients[g]);
      }
    }
    for (const auto& coefficients : coefficients_) {
      out_.plain.push_back(out_.masked ? coefficients.back() : 0);
    }
  }

  template <class Rows, class Coefficient>
  void add_term(const ProductTerm& tap, const Rows& rows, Coefficient coefficient) {
    std::vector<double> column;
    for (const auto& row : rows) {
      column.push_back(coefficient(row));
    }
    if (std::all_of(column.begin(), column.end(), [](double c) { return c == 0; })) {
      return;
    }
    const auto same = std::find(coefficients_.begin(), coefficients_.end(), column);
    if (same != coefficients_.end()) {
      out_.sums[static_cast<std::size_t>(same - coefficients_.begin())].push_back(tap);
    } else {
      coefficients_.push_back(column);
      out_.sums.push_back({tap});
    }
  }

  void lower_backward(int group, const std::vector<Term>& terms) {
    std::vector<Signs> rows;
    for (int part = 0; part < kParts; ++part) {
      rows.push_back(signs_of(terms, static_cast<Part>(part)));
    }
    Signs direction;
    if (common_direction(rows, &direction)) {
      add_back(group, {MapKind::kSigns, direction.p, direction.n},
               [&](std::size_t part) { return multiple(rows[part], direction); });
    } else {
      add_back(group, {MapKind::kSigns, 1, 0}, [&](std::size_t part) { return rows[part].p; });
      add_back(group, {MapKind::kSigns, 0, 1}, [&](std::size_t part) { return rows[part].n; });
    }
    for (const MapKind kind : {MapKind::kSquare, MapKind::kOne}) {
      add_back(group, {kind}, [&](std::size_t part) { return amount_of(terms, static_cast<Part>(part), kind); });
    }
  }

  template <class Factor>
  void add_back(int group, WeightMap map, Factor factor) {
    BackProduct product{group, map, {}};
    bool any = false;
    for (std::size_t part = 0; part < kParts; ++part) {
      product.factor[part] = factor(part);
      any = any || product.factor[part] != 0;
    }
    if (any) {
      out_.back.push_back(product);
    }
  }

  std::vector<std::vector<Term>> terms_;           // by group
  std::vector<std::vector<Term>> forward_;         // the same, then the plain output where masked
  std::vector<std::vector<double>> coefficients_;  // by sum, one entry a user
  LoweredRule out_;
};

}  // namespace

bool LoweredRule::reads(Part part) const {
  for (const Sum& sum : sums) {
    for (const ProductTerm& tap : sum) {
      if (tap.part == part) {
        return true;
      }
    }
  }
  for (const BackProduct& product : back) {
    if (product.factor[static_cast<std::size_t>(part)] != 0) {
      return true;
    }
  }
  return false;
}

bool LoweredRule::reads_input() const {
  return reads(Part::kInput) || reads(Part::kPositive) || reads(Part::kNegative);
}

bool LoweredRule::vanishes_with_input() const {
  return !passes() && !reads(Part::kOne) && !reads(Part::kLow) && !reads(Part::kHigh);
}

bool LoweredRule::sum_is_plain_output() const {
  return sums.size() == 1 && sums[0].size() == 1 && sums[0][0].part == Part::kInput && sums[0][0].map == WeightMap{};
}

bool LoweredRule::two_sums_make_plain_output() const {
  if (sums.size() != 2) {
    return false;
  }
  // Each part that is read is read once with W+ and once with W-; together the parts are the input.
  std::array<int, kParts> positive{}, negative{};
  for (const Sum& sum : sums) {
    for (const ProductTerm& tap : sum) {
      const std::size_t part = static_cast<std::size_t>(tap.part);
      positive[part] += tap.map == WeightMap{MapKind::kSigns, 1, 0} ? 1 : 0;
      negative[part] += tap.map == WeightMap{MapKind::kSigns, 0, 1} ? 1 : 0;
    }
  }
  const bool whole = sums[0].size() + sums[1].size() == 2, halves = sums[0].size() + sums[1].size() == 4;
  const auto once = [&](Part part) {
    return positive[static_cast<std::size_t>(part)] == 1 && negative[static_cast<std::size_t>(part)] == 1;
  };
  return (whole && once(Part::kInput)) || (halves && once(Part::kPositive) && once(Part::kNegative));
}

bool sum_takes_whole_bias(const LoweredRule& rule, bool has_bias) {
  return std::all_of(rule.groups.begin(), rule.groups.end(), [&](const Denominator& group) {
    const bool whole_bias = group.bias.kind == BiasKind::kSigns && group.bias.p == 1 && group.bias.n == 1;
    return group.coef[0] == 1 && group.constants.empty() && (whole_bias || !has_bias);
  });
}

LoweredRule lower(const Rule& rule, bool input_nonnegative, bool output_positive) {
  if (!output_positive) {
    return Lowering(rule, input_nonnegative).take();
  }
  Rule served;
  for (Group group : rule.groups) {
    if (group.mask != Mask::kNegative) {
      group.mask = Mask::kAll;
      served.groups.push_back(std::move(group));
    }
  }
  return Lowering(served, input_nonnegative).take();
}

LoweredRule with_constants_as_sums(LoweredRule rule) {
  for (std::size_t g = 0; g < rule.groups.size(); ++g) {
    for (const Term& term : rule.groups[g].constants) {
      rule.sums.push_back({{term.part, term.map}});
      rule.plain.push_back(0);
      for (std::size_t other = 0; other < rule.groups.size(); ++other) {
        rule.groups[other].coef.push_back(other == g ? term.sign : 0);
      }
    }
    rule.groups[g].constants.clear();
  }
  check_width(rule);
  return rule;
}

bool CompiledRule::is_plain_and_exact(bool has_bias) const {
  if (!is_exact() || rule_.groups[0].terms.size() != 1) {
    return false;
  }
  const Group& group = rule_.groups[0];
  const Term& term = group.terms[0];
  const bool whole_bias = group.bias.kind == BiasKind::kSigns && group.bias.p == 1 && group.bias.n == 1;
  return term.part == Part::kInput && term.map == WeightMap{} && term.sign == 1 && group.coefficient == 1 &&
         group.mask == Mask::kAll && (whole_bias || !has_bias);
}

CompiledRule::CompiledRule(Rule rule) : rule_(std::move(rule)) {
  for (const bool output_positive : {false, true}) {
    for (const bool input_nonnegative : {false, true}) {
      LoweredRule form = lower(rule_, input_nonnegative, output_positive);
      // A rule that serves no positive output at all must not look like one that lets relevance pass.
      forms_.push_back(form.passes() && !rule_.groups.empty() ? lower(rule_, input_nonnegative) : std::move(form));
    }
  }
}

}  // namespace pylrp
