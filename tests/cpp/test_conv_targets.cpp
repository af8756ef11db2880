// Several targets of the same inputs: relevance that is zero at the same outputs, as behind a ReLU, or at others for
// each target. The reference knows rows of relevance, nothing of targets.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "conv_run.hpp"
#include "kernels/contributions.hpp"
#include "kernels/quads.hpp"

namespace pylrp {
namespace {

// Which entries have relevance.
enum class Left { kSame, kMostlySame, kOthers, kRows };
constexpr std::array<Left, 4> kAllLeft{Left::kSame, Left::kMostlySame, Left::kOthers, Left::kRows};

// kSame: half of the entries for all targets. kMostlySame: each target lacks some of them. kOthers: each has others.
// kRows: some targets have none at all. Zeros of both signs.
template <class T>
void keep_some(Fenced<T>* relevance, Index batch, Left left) {
  for (Index i = 0; i < relevance->rows(); ++i) {
    const Index target = i / batch;
    for (Index at = 0; at < relevance->cols(); ++at) {
      const Index number = at + 100003 * (i % batch) + (left == Left::kOthers ? 7919 * target : 0);
      bool kept = (static_cast<unsigned>(number) * 2654435761u >> 9) % 2 == 0;
      kept = kept && (left != Left::kMostlySame || (at + 3 * target) % 11 != 0);
      kept = kept && (left != Left::kRows || target % 3 != 1);
      if (!kept) {
        relevance->at(i, at) = T(at % 2 == 0 ? 0.0 : -0.0);
      }
    }
  }
}

template <class T>
std::vector<T> found_of(ConvData<T>* data, const char* rule, bool nonnegative, int threads, std::vector<double>* lost) {
  Options options(1);
  options.nonnegative = nonnegative;
  options.positive = false;
  options.prepared = true;
  options.threads = threads;
  Relevance<T> found(data->layer(true), *data, CompiledRule(rule_named(rule)), {}, options);
  CHECK(found.result.intact() && data->intact());
  *lost = found.lost();
  return found.result.entries();
}

// Against the reference, and with equal bits for any number of threads.
template <class T>
void check_targets(const char* name, const Geometry& geometry, Index in, Index out, Index groups, Index batch,
                   Index targets, Left left, const char* rule, bool nonnegative, bool transposed = false) {
  check::context = std::string(name) + ", " + rule + ", " + std::to_string(batch) + " by " + std::to_string(targets) +
                   ", zeros " + std::to_string(static_cast<int>(left)) + ", bytes " + std::to_string(sizeof(T));
  ConvData<T> data(geometry.shape(in, out, groups), transposed, batch, targets, static_cast<unsigned>(targets + in),
                   nonnegative);
  keep_some(&data.relevance, batch, left);
  ConvCase c{name, geometry, in, out, groups, transposed};
  Options options(1);
  options.nonnegative = nonnegative;
  options.positive = options.kept = false;
  const Rule asked = rule_named(rule);
  const Reference expected =
      reference<T>(data.wires(true), data, asked, Care::kSettle, derived_in(c, {rule, asked}, options));
  std::vector<double> lost, others;
  const std::vector<T> found = found_of(&data, rule, nonnegative, 1, &lost);
  check_against(found, lost, expected);
  for (const int threads : {2, 3}) {
    CHECK(same_bits(found, found_of(&data, rule, nonnegative, threads, &others)) && same_bits(lost, others));
  }
}

TEST(targets_of_contributions) {
  std::size_t n = 0;
  const std::uint64_t before = runs_of(ConvPath::kByContribution);
  for (const Index in : {1, 16, 19, 37, 60, 90, 113}) {
    for (const Index targets : {2, 3, 4, 7, 17}) {
      for (const char* rule : {"z+", "gamma", "alpha-beta"}) {
        const Index batch = 1 + static_cast<Index>(n % 2);
        check_targets<float>("contributions", {{1, 5, 7}, {1, 1, 1}}, in, 40 + in % 7, 1, batch, targets,
                             kAllLeft[n++ % 4], rule, false);
      }
    }
  }
  const bool runs = is_built(ConvPath::kByContribution) && kernels::contributions() != nullptr &&
                    forced_left_path() != LeftPath::kTiles;
  CHECK((runs_of(ConvPath::kByContribution) > before + 50) == runs);
}

// As many of the same entries as there are in one of several rows.
TEST(targets_of_contributions_by_kernels) {
  const kernels::ContributionTable* const kernel = kernels::contributions();
  if (kernel == nullptr) {
    CHECK(kernels::quads() == nullptr);
    return;
  }
  Random random(5);
  for (const Index k : {1, 15, 16, 17, 40, 100}) {
    for (const int targets : {1, 2, 3, 5}) {
      const Index apart = k + 3, room = k + kernels::kSpare;
      std::vector<float> x(static_cast<std::size_t>(targets * apart)), to(static_cast<std::size_t>(targets * room));
      for (float& v : x) {
        v = random() < 0 ? static_cast<float>(random()) : -0.0F;
      }
      x[0] = std::numeric_limits<float>::quiet_NaN();
      std::vector<std::uint16_t> steps(static_cast<std::size_t>(room));
      const Index count = kernel->compress_targets(k, targets, x.data(), apart, to.data(), room, steps.data());
      Index expected = 0;
      bool right = true;
      for (Index p = 0; p < k; ++p) {
        bool any = false;
        for (int t = 0; t < targets; ++t) {
          any = any || x[static_cast<std::size_t>(t * apart + p)] != 0;
        }
        for (int t = 0; any && t < targets; ++t) {
          right = right && std::memcmp(&to[static_cast<std::size_t>(t * room + expected)],
                                       &x[static_cast<std::size_t>(t * apart + p)], sizeof(float)) == 0;
        }
        right = right && (!any || steps[static_cast<std::size_t>(expected)] == p);
        expected += any ? 1 : 0;
      }
      CHECK(right && count == expected);
    }
  }
}

TEST(targets_of_depthwise) {
  std::size_t n = 0;
  const Geometry wide{{1, 9, 11}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  const Geometry strided{{1, 9, 11}, {1, 3, 3}, {1, 2, 2}, {1, 1, 1}, {0, 0, 0}, {0, 1, 1}};
  for (const Index channels : {32, 70, 150}) {
    for (const Index targets : {2, 4, 5, 10}) {
      for (const char* rule : {"z+", "epsilon"}) {
        check_targets<float>("depthwise", n % 2 == 0 ? wide : strided, channels, channels, channels,
                             1 + static_cast<Index>(n % 3), targets, kAllLeft[n % 4], rule, true);
        ++n;
      }
    }
  }
}

// All ways of left operands; rows of two targets share lists, those that are left over have neighbours.
TEST(targets_of_taps) {
  const LeftPath before = forced_left_path();
  const std::vector<std::pair<const char*, Geometry>> geometries{
      {"plain", {{1, 6, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}}},
      {"strided", {{1, 7, 8}, {1, 3, 2}, {1, 2, 2}, {1, 1, 1}, {0, 1, 0}, {0, 1, 1}}},
      {"dilated, depth", {{3, 4, 5}, {2, 2, 1}, {1, 1, 2}, {1, 2, 1}, {0, 1, 0}, {1, 0, 0}}},
      {"one tap", {{1, 3, 5}, {1, 1, 1}}},
      {"blocks", {{1, 18, 21}, {1, 1, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 1}, {0, 0, 1}}},
  };
  std::size_t n = 0;
  for (const LeftPath path : {LeftPath::kCounted, LeftPath::kTiles, LeftPath::kLists, LeftPath::kPairs}) {
    if (before == LeftPath::kCounted) {
      force_left_path(path);
    }
    for (const auto& [name, geometry] : geometries) {
      for (const Index targets : {2, 3, 5}) {
        const bool transposed = n % 3 == 2;
        const Index groups = 1 + static_cast<Index>(n % 2), batch = 1 + static_cast<Index>(n / 2 % 3);
        const char* const rule = n % 4 == 0 ? "epsilon" : (n % 4 == 1 ? "alpha-beta" : (n % 4 == 2 ? "z+" : "gamma"));
        check_targets<float>(name, geometry, 6 * groups, 20 * groups, groups, batch, targets, kAllLeft[n % 4], rule,
                             n % 5 != 0, transposed);
        check_targets<double>(name, geometry, 20 * groups, 6 * groups, groups, batch, targets, kAllLeft[(n + 1) % 4],
                              rule, n % 5 == 0, transposed);
        ++n;
      }
    }
  }
  force_left_path(before);
}

// The entries of a list are those of each target of its pair: none is multiplied in vain.
TEST(targets_share_lists_without_zeros) {
  const Geometry geometry{{1, 12, 12}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
  const LeftPath before = forced_left_path();
  force_left_path(LeftPath::kPairs);
  const auto done = [&](Index targets, Left left) {
    ConvData<float> data(geometry.shape(32, 64, 1), false, 1, targets, 3, true);
    data.relevance.fill([] { return 1.0; });
    keep_some(&data.relevance, 1, left);
    std::vector<double> lost;
    const LeftWork was = left_work();
    found_of(&data, "epsilon", true, 1, &lost);
    const LeftWork is = left_work();
    return static_cast<double>(is.done - was.done) / static_cast<double>(is.lists - was.lists);
  };
  if (is_built(ConvPath::kOutputAsSum)) {
    // Half of what is sent back; of the sums, which read the inputs, more.
    const double same = done(8, Left::kSame), others = done(8, Left::kOthers);
    CHECK(same < 0.58 && others > 0.7);
  }
  force_left_path(before);
}

}  // namespace
}  // namespace pylrp
