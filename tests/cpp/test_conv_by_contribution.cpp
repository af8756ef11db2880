// A kernel of one with inputs of both signs where few outputs have relevance, and any kernel over few channels
// (rules/contributions.hpp, layers/conv/by_contribution.cpp, contributing.cpp, patches.cpp, kernels/contributions.inl).
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "conv_run.hpp"
#include "kernels/contributions.hpp"
#include "kernels/quads.hpp"
#include "rules/contributions.hpp"

namespace pylrp {
namespace {

// Two sums are for the widest vectors alone.
bool runs_here(bool apart) {
  return is_built(ConvPath::kByContribution) && kernels::contributions() != nullptr &&
         (kernels::contributions()->apart || !apart) && forced_left_path() != LeftPath::kTiles;
}
bool is(const OfContribution& f, double above, double below) {
  return std::abs(f.above - above) < 1e-12 && std::abs(f.below - below) < 1e-12;
}

TEST(contributions_of_rules) {
  ByContribution made;
  for (const NamedRule& named : test_rules()) {
    check::context = named.name;
    const bool has_f = named.name == "epsilon" || named.name == "z+" || named.name == "alpha-beta" ||
                       named.name == "gamma" || named.name == "no bias" || named.name == "where zero" ||
                       named.name == "epsilon by sign";
    CHECK(by_contribution(lower(named.rule, false), &made) == has_f);
  }
  for (const Part part : {Part::kPositive, Part::kNegative}) {  // half of the contributions above zero
    const WeightMap map{MapKind::kSigns, part == Part::kPositive ? 1.0 : 0.0, part == Part::kPositive ? 0.0 : 1.0};
    const Rule half{{{{{part, map}}, {}, 1, Mask::kAll, Guard::kSigned, 1e-6}}};
    CHECK(!by_contribution(lower(half, false), &made));
  }
  CHECK(by_contribution(lower(rule_named("z+"), false), &made));
  CHECK(is(made.denominators[0], 1, 0) && is(made.sent[0], 1, 0));
  CHECK(!by_contribution(lower(rule_named("z+"), true), &made));  // the signs of inputs are known
  CHECK(by_contribution(lower(rule_named("alpha-beta"), false), &made));
  CHECK(is(made.denominators[0], 1, 0) && is(made.denominators[1], 0, 1) && is(made.sent[0], 1, 0) &&
        is(made.sent[1], 0, 1));
  CHECK(by_contribution(lower(rule_named("gamma"), false), &made));
  CHECK(is(made.denominators[0], 1.25, 1) && is(made.denominators[1], 1, 1.25) && is(made.plain, 1, 1) &&
        is(made.sent[0], 1.25, 1) && is(made.sent[1], 1, 1.25));
  CHECK(by_contribution(lower(rule_named("gamma"), false, true), &made));
  CHECK(made.sent.size() == 1 && is(made.denominators[0], 1.25, 1) && is(made.sent[0], 1.25, 1));
}

// --- kernels ---

struct Entries {
  Index rows, columns, stride;
  std::vector<Index> begins{0};
  std::vector<std::uint16_t> at;
  std::vector<float> w, x;
  Entries(Index rows_, Index columns_, Index outputs, unsigned seed) : rows(rows_), columns(columns_) {
    const Index lanes = kernels::table<float>().tile_cols / 2;
    stride = (columns + lanes - 1) / lanes * lanes;
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& to, Index count) {
      to.assign(static_cast<std::size_t>(count * stride), 0);
      for (Index i = 0; i < count; ++i) {
        std::generate_n(to.begin() + i * stride, columns, [&] { return normal(random); });
      }
    };
    fill(w, outputs);
    fill(x, rows);
    for (Index i = 0; i < rows; ++i) {
      for (Index e = 0; e < i % 10; ++e) {  // none, less and more than four
        at.push_back(static_cast<std::uint16_t>(random() % static_cast<unsigned>(outputs)));
      }
      begins.push_back(static_cast<Index>(at.size()));
    }
    at.resize(at.size() + kernels::kSpare);
  }
  Index count() const { return begins.back(); }
  kernels::Contributions args(float plain, float extra) const {
    return {.rows = rows,
            .begins = begins.data(),
            .at = at.data(),
            .w = w.data(),
            .x = x.data(),
            .stride = stride,
            .columns = columns,
            .plain = plain,
            .extra = extra};
  }
  double contribution(Index row, Index entry, Index k) const {
    return static_cast<double>(w[static_cast<std::size_t>(at[static_cast<std::size_t>(entry)] * stride + k)]) *
           static_cast<double>(x[static_cast<std::size_t>(row * stride + k)]);
  }
};

void check_kernels(const Entries& entries, float plain, float extra, bool apart) {
  const kernels::ContributionTable& kernel = *kernels::contributions();
  const kernels::Contributions args = entries.args(plain, extra);
  const auto f = [&](double c) {
    return static_cast<double>(plain) * c + static_cast<double>(extra) * std::max(c, 0.0);
  };
  const std::size_t count = static_cast<std::size_t>(entries.count());
  std::vector<float> sums(count + kernels::kSpare, 7), below(count + kernels::kSpare, 7), s(count), t(count);
  kernel.sum(args, sums.data(), apart ? below.data() : nullptr);
  for (std::size_t e = 0; e < count; ++e) {
    s[e] = static_cast<float>(e % 5) - 2;
    t[e] = static_cast<float>(e % 3) - 0.5F;
  }
  for (const bool add : {false, true}) {
    std::vector<float> out(static_cast<std::size_t>(entries.rows * entries.stride), 3);
    kernel.send(args, s.data(), apart ? t.data() : nullptr, add, out.data());
    bool right = true;
    for (Index i = 0; i < entries.rows; ++i) {
      std::vector<double> sent(static_cast<std::size_t>(entries.columns), add ? 3 : 0);
      for (Index e = entries.begins[static_cast<std::size_t>(i)]; e < entries.begins[static_cast<std::size_t>(i + 1)];
           ++e) {
        const std::size_t n = static_cast<std::size_t>(e);
        double sum = 0, rest = 0;
        for (Index k = 0; k < entries.columns; ++k) {
          const double c = entries.contribution(i, e, k), up = std::max(c, 0.0), down = std::min(c, 0.0);
          sum += apart ? up : f(c);
          rest += down;
          sent[static_cast<std::size_t>(k)] += apart ? s[n] * up + t[n] * down : s[n] * f(c);
        }
        right = right && std::abs(sums[n] - sum) < 1e-4 && (!apart || std::abs(below[n] - rest) < 1e-4);
      }
      for (Index k = 0; k < entries.columns; ++k) {
        const float found = out[static_cast<std::size_t>(i * entries.stride + k)];
        right = right && std::abs(found - sent[static_cast<std::size_t>(k)]) < 1e-3;
      }
    }
    CHECK(right);
  }
}

TEST(contributions_by_kernels) {
  if (kernels::contributions() == nullptr) {
    CHECK(kernels::quads() == nullptr);
    return;
  }
  for (Index columns = 1; columns <= kernels::contributions()->columns; ++columns) {
    check::context = "columns " + std::to_string(columns);
    const Entries entries(21, columns, 30, static_cast<unsigned>(columns));
    check_kernels(entries, 0, 1, false);
    check_kernels(entries, 1, 0.25F, false);
    check_kernels(entries, -1, 2, false);
    if (kernels::contributions()->apart) {
      check_kernels(entries, 0, 1, true);
    }
  }
}

// --- layers ---

struct Shapes {
  const char* name;
  Axes positions;
  Index in, out;
};
const std::vector<Shapes>& shapes() {
  static const std::vector<Shapes> all{
      {"one input", {1, 4, 5}, 1, 40},       {"a few channels", {1, 5, 7}, 16, 40}, {"a tail", {1, 5, 9}, 19, 33},
      {"two parts", {1, 4, 8}, 113, 41},     {"deep", {1, 2, 4}, 290, 50},          {"blocks", {1, 2, 3}, 70, 500},
      {"several tasks", {2, 9, 13}, 37, 35}, {"one output", {1, 5, 6}, 24, 1},
  };
  return all;
}

TEST(conv_by_contribution_has_the_general_results) {
  unsigned n = 0;
  for (const Shapes& s : shapes()) {
    for (const char* name : {"z+", "gamma", "alpha-beta", "epsilon"}) {
      for (const Index targets : {1, 3}) {
        for (const bool positive : {false, true}) {
          Options options(++n);
          options.batch = 1 + static_cast<Index>(n % 3);
          options.targets = targets;
          options.nonnegative = options.kept = false;
          options.positive = positive;
          options.few_outputs = true;
          const ConvCase c{s.name, Geometry{s.positions, {1, 1, 1}}, s.in, s.out, 1, false};
          const bool apart = std::string(name) == "alpha-beta" || (std::string(name) == "gamma" && !positive);
          const std::uint64_t before = runs_of(ConvPath::kByContribution);
          check_conv<float>(c, {name, rule_named(name)}, options, n);
          CHECK(s.out == 1 ||
                (runs_of(ConvPath::kByContribution) > before) == (runs_here(apart) && std::string(name) != "epsilon"));
          check_conv<double>(c, {name, rule_named(name)}, options, n);
        }
      }
    }
  }
}

// Any kernel over few channels, however many outputs have relevance.
TEST(conv_by_contribution_by_patch) {
  const std::vector<std::pair<const char*, Geometry>> geometries{
      {"RGB", {{1, 9, 11}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}},
      {"not padded", {{1, 7, 8}, {1, 3, 3}}},
      {"wide", {{1, 12, 13}, {1, 7, 7}, {1, 2, 2}, {1, 1, 1}, {0, 3, 3}, {0, 2, 2}}},
      {"dilated", {{1, 9, 12}, {1, 3, 2}, {1, 1, 3}, {1, 2, 3}, {0, 2, 1}, {0, 0, 4}}},
      {"a line", {{1, 1, 40}, {1, 1, 5}, {1, 1, 2}, {1, 1, 1}, {0, 0, 2}, {0, 0, 2}}},
      {"a volume", {{4, 5, 6}, {2, 3, 2}, {2, 1, 1}, {1, 1, 1}, {1, 1, 0}, {0, 1, 0}}},
      {"far beyond", {{1, 3, 4}, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}, {0, 4, 3}, {0, 2, 5}}},
      {"apart", {{1, 8, 9}, {1, 1, 2}, {1, 3, 4}}},
  };
  unsigned n = 0;
  for (const auto& [called, geometry] : geometries) {
    for (const char* name : {"z+", "gamma", "alpha-beta", "epsilon"}) {
      for (const Index targets : {1, 3}) {
        Options options(++n);
        options.batch = 1 + static_cast<Index>(n % 3);
        options.targets = targets;
        options.nonnegative = options.kept = options.positive = false;
        options.few_outputs = n % 3 == 0;
        const Index channels = n % 4 < 2 ? 3 : 1 + static_cast<Index>(n % 2);
        const ConvCase c{called, geometry, channels, n % 5 == 0 ? Index{90} : Index{17}, 1, false};
        const bool apart = std::string(name) == "alpha-beta" || std::string(name) == "gamma";
        const std::uint64_t before = runs_of(ConvPath::kByContribution);
        check_conv<float>(c, {name, rule_named(name)}, options, n);
        CHECK((runs_of(ConvPath::kByContribution) > before) == (runs_here(apart) && std::string(name) != "epsilon"));
        check_conv<double>(c, {name, rule_named(name)}, options, n);
      }
    }
  }
}

// One layer under a rule; weights, inputs and relevance may be changed.
const Geometry kNine{{1, 9, 13}, {1, 1, 1}};
const Geometry kPatches{{1, 19, 28}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
struct Layer37 {
  ConvData<float> data;
  CompiledRule rule;
  Options options{1};
  explicit Layer37(const char* name, const Geometry& geometry = kNine, Index channels = 37)
      : data{geometry.shape(channels, 64), false, 2, 1, 5, false}, rule(rule_named(name)) {
    options.nonnegative = options.positive = false;
    options.prepared = true;
    keep_few_outputs(&data.relevance, 64);
  }
  std::vector<float> relevance(int threads, std::vector<double>* lost) {
    options.threads = threads;
    Relevance<float> found(data.layer(true), data, rule, {}, options);
    CHECK(found.result.intact() && data.intact());
    *lost = found.lost();
    return found.result.entries();
  }
  bool ran() {
    std::vector<double> lost;
    const std::uint64_t before = runs_of(ConvPath::kByContribution);
    relevance(1, &lost);
    return runs_of(ConvPath::kByContribution) > before;
  }
};

TEST(conv_by_contribution_by_threads) {
  for (const char* name : {"z+", "gamma", "alpha-beta"}) {
    for (const bool patches : {false, true}) {
      Layer37 layer(name, patches ? kPatches : kNine, patches ? 3 : 37);
      std::vector<double> lost, others;
      const std::vector<float> expected = layer.relevance(1, &lost);
      for (const int threads : {2, 3, 4}) {
        CHECK(same_bits(expected, layer.relevance(threads, &others)) && same_bits(lost, others));
      }
    }
  }
}

// In the place of the input.
TEST(conv_by_contribution_in_place) {
  for (const bool patches : {false, true}) {
    Layer37 layer("z+", patches ? kPatches : kNine, patches ? 3 : 37);
    std::vector<double> lost;
    const std::vector<float> expected = layer.relevance(2, &lost);
    std::vector<kernels::Absorbed> absorbed(2);
    RelevanceJob<float> job;
    job.inputs = {layer.data.input.read()};
    job.relevance = layer.data.relevance.read();
    job.results = {layer.data.input.view()};
    job.batch = 2;
    job.rule = &layer.rule;
    job.absorbed = absorbed.data();
    layer.data.layer(true).relevance(job, {2});
    CHECK(same_bits(expected, layer.data.input.entries()));
  }
}

TEST(conv_by_contribution_leaves_others_alone) {
  CHECK(Layer37("z+").ran() == runs_here(false));
  CHECK(!Layer37("epsilon").ran() && !Layer37("flat").ran());
  Layer37 dense("z+");
  dense.data.relevance.fill([] { return 1.0; });
  CHECK(!dense.ran());
  Layer37 known("z+");
  known.options.nonnegative = true;
  CHECK(!known.ran());
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Layer37 weights("z+");
    weights.data.weight.at(63, 36) = bad;
    CHECK(!weights.ran());
  }
}

// What is not finite shows: an input at its own position, relevance at its own, too.
TEST(conv_by_contribution_shows_what_is_not_finite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const char* name : {"z+", "gamma", "alpha-beta"}) {
      std::vector<double> lost;
      Layer37 layer(name);
      layer.data.input.at(0, 5 * 37 + 36) = bad;
      const std::vector<float> found = layer.relevance(2, &lost);
      bool elsewhere = true;
      for (std::size_t k = 0; k < found.size(); ++k) {
        elsewhere = elsewhere && (k / 37 == 5 || std::isfinite(found[k]));
      }
      CHECK(elsewhere && std::isnan(found[5 * 37 + 36]));
    }
  }
  Layer37 layer("z+");
  std::vector<double> lost;
  layer.data.relevance.at(1, 2 * 64) = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> found = layer.relevance(1, &lost);
  const std::size_t at = (9 * 13 + 2) * 37;
  CHECK(std::any_of(found.begin() + at, found.begin() + at + 37, [](float r) { return std::isnan(r); }));
}

// Contributions of one sign, exactly or but for a small part, and sums that are denormal or nothing.
TEST(conv_by_contribution_where_signs_agree) {
  unsigned n = 0;
  for (const char* name : {"z+", "gamma", "alpha-beta"}) {
    for (const float size : {0.0F, 1e-3F, 1.0F}) {
      for (const float scale : {1.0F, 1e-20F}) {
        Layer37 layer(name);
        check::context = std::string(name) + ", part " + std::to_string(size) + ", scale " + std::to_string(scale);
        for (Index j = 0; j < 64; j += 2) {
          for (Index k = 0; k < 37; ++k) {
            float& w = layer.data.weight.at(j, k);
            w = j % 4 == 0 ? std::abs(w) : -std::abs(w);
          }
        }
        for (Index at = 0; at < layer.data.input.cols(); ++at) {
          float& x = layer.data.input.at(1, at);
          x = scale * (x < 0 ? size * x : x);
        }
        std::vector<double> lost;
        const Reference expected =
            reference<float>(layer.data.wires(true), layer.data, layer.rule.rule(), Care::kSettle, {});
        check_against(layer.relevance(1 + static_cast<int>(n++ % 3), &lost), lost, expected);
      }
    }
  }
}

}  // namespace
}  // namespace pylrp
