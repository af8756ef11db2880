// Two products with the positive and the negative weights as one, by lists of both operands (products/tap_signs.cpp,
// kernels/signs.inl), against sums in double.
#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "conv_run.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/signs.hpp"
#include "products/tap_signs.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {
namespace {

const Geometry kFew{{1, 9, 13}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
const Geometry kStrided{{1, 61, 50}, {1, 3, 2}, {1, 2, 1}, {1, 1, 1}, {0, 1, 0}, {0, 1, 1}};

struct SignsCase {
  Index samples = 2, channels, groups, columns;
  Walk walk;
  Index taps = static_cast<Index>(walk.taps.size());
  Fenced<float> above, below, weights;
  TapWork<float> work;

  // share: of entries that are not zero.
  SignsCase(const Geometry& geometry, Index channels_, Index columns_, Index groups_, double share, bool exchanged)
      : channels(channels_),
        groups(groups_),
        columns(columns_),
        walk(walks_to_out(geometry.shape(channels * groups, columns * groups, groups))[0]),
        above(samples * count(walk.source), channels * groups, 0),
        below(samples * count(walk.source), channels * groups, 0),
        weights(groups * columns, taps * channels, 0),
        work{&walk, samples, groups, channels, columns, {}, 1, {}, {}, Operands<float>(), channels} {
    Random random(11);
    const auto some = [&] { return random(0, 1) < share ? random() : (random() < 0 ? -0.0 : 0.0); };
    above.fill(some);
    below.fill(some);
    weights.fill(random);
    for (Index j = 0; j < weights.rows(); ++j) {
      weights.at(j, j % weights.cols()) = j % 2 == 0 ? 0.0f : -0.0f;
    }
    const Index size = count(walk.source) * channels * groups;
    work.products = {{{above.data(), size, channels * groups}, {kernels::Read::kPositive, 0, 0}, 0},
                     {{below.data(), size, channels * groups}, {kernels::Read::kNegative, 0, 0}, 0}};
    if (exchanged) {
      std::swap(work.products[0], work.products[1]);
    }
    work.pack = [this](const Cut& cut, kernels::Weights<float> map, float* to) {
      return kernels::table<float>().pack_forward(
          static_cast<int>(cut.columns), cut.channels,
          &weights.at(cut.group * columns + cut.column, cut.tap * channels + cut.channel), weights.stride(), map, to,
          kernels::table<float>().tile_cols);
    };
  }

  std::vector<float> sums(int threads) {
    std::vector<float> all(static_cast<std::size_t>(work.rows() * groups * columns));
    work.done = [&](Index, const Rows& rows, Index column, Index some, const SumsOf<float>& of) {
      for (Index i = 0; i < rows.count(); ++i) {
        std::copy_n(of(0) + i * kernels::table<float>().tile_cols, some,
                    all.data() + (rows.begin() + i) * groups * columns + column);
      }
    };
    multiply_taps(work, Threads{threads});
    return all;
  }
  // What it should be, and the sum of magnitudes.
  std::pair<double, double> sum(Index row, Index column) {
    const Block block(walk, row, row + 1);
    double sum = 0, size = 0;
    for (Index t = 0; t < taps; ++t) {
      block.each_source(0, 1, static_cast<std::size_t>(t), 1, [&](bool inside, Index sample, Index pixel) {
        const Index at = sample * count(walk.source) + pixel;
        for (Index k = 0; inside && k < channels; ++k) {
          const double w = double{weights.at(column, t * channels + k)};
          const Index from = column / columns * channels + k;
          const double x = double{(w < 0 ? below : above).at(at, from)};
          sum += w * x;
          size += std::abs(w * x);
        }
      });
    }
    return {sum, size};
  }
  void check() {
    const std::vector<float> all = sums(1);
    CHECK(sums(3) == all);
    for (Index row = 0; row < work.rows(); row += 23) {
      for (Index j = 0; j < groups * columns; j += 5) {
        const auto [right, size] = sum(row, j);
        const double there = double{all[static_cast<std::size_t>(row * groups * columns + j)]};
        CHECK(std::abs(there - right) <= 2e-6 * size);
      }
    }
  }
};

bool joins() { return kernels::signs() != nullptr && forced_left_path() != LeftPath::kTiles; }

TEST(signs_of_weights_pick_the_operand) {
  for (const Geometry& geometry : {kFew, kStrided}) {
    for (const Index channels : {Index{3}, Index{70}, Index{150}}) {
      for (const Index panels : {1, 3, 4, 7}) {
        for (const double share : {0.0, 0.1, 0.5, 1.0}) {
          SignsCase c(geometry, channels, panels * kernels::table<float>().tile_cols - 5, 1 + panels % 2, share,
                      panels % 3 == 0);
          const LeftPath forced = forced_left_path();
          if (forced == LeftPath::kCounted && share < 1 && panels < 4) {
            force_left_path(LeftPath::kLists);
          }
          say("channels, panels, share in percent", channels, panels, static_cast<int>(100 * share));
          join_signs(&c.work);
          CHECK(!joins() || share == 1 || panels >= 4 || c.work.products.size() == 1);
          CHECK(joins() || c.work.products.size() == 2);
          c.check();
          force_left_path(forced);
        }
      }
    }
  }
}

TEST(signs_keep_what_is_not_finite) {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const LeftPath forced = forced_left_path();
  if (forced == LeftPath::kCounted) {
    force_left_path(LeftPath::kLists);
  }
  const Index width = kernels::table<float>().tile_cols;
  for (const bool in_weights : {false, true}) {
    for (const float bad : {inf, nan}) {
      SignsCase c(kFew, 70, 3 * width, 1, 0.4, false);
      join_signs(&c.work);
      const std::vector<float> before = c.sums(1);
      if (in_weights) {
        c.weights.at(5, 13) = bad;  // where operands are zero, too
      } else {
        c.above.at(40, 5) = c.below.at(40, 5) = bad;
      }
      const std::vector<float> after = c.sums(2);
      const Index row = 40;  // the tap in the middle reads the pixel of the same number
      for (Index j = 0; j < 3 * width; ++j) {
        const std::size_t at = static_cast<std::size_t>(row * 3 * width + j);
        CHECK(std::isfinite(before[at]));
        CHECK(std::isfinite(after[at]) == (in_weights && j != 5));
      }
    }
  }
  force_left_path(forced);
}

TEST(products_that_are_no_signs_stay_apart) {
  const Index width = kernels::table<float>().tile_cols;
  const auto joined = [&](auto change, Index columns) {
    SignsCase c(kFew, 64, columns, 1, 0.3, false);
    Index at = 0;  // zeros of both in the same places, as s+ and s- have them
    c.below.fill([&] { return -c.above.data()[at++]; });
    change(&c.work);
    join_signs(&c.work);
    return c.work.products.size() == 1;
  };
  CHECK(joined([](TapWork<float>*) {}, 4 * width) == joins());
  CHECK(!joined([](TapWork<float>*) {}, width / 2));
  CHECK(!joined([](TapWork<float>* work) { work->products[1].output = 1; }, 4 * width));
  CHECK(!joined([](TapWork<float>* work) { work->products[1].map.read = kernels::Read::kPositive; }, 4 * width));
  CHECK(!joined([](TapWork<float>* work) { work->products[0].map.read = kernels::Read::kPlain; }, 4 * width));
  CHECK(!joined([](TapWork<float>* work) { work->products[0].image.pixel_stride = 0; }, 4 * width));
  const LeftPath forced = forced_left_path();
  force_left_path(LeftPath::kTiles);
  CHECK(!joined([](TapWork<float>*) {}, 4 * width));
  force_left_path(forced);
}

}  // namespace
}  // namespace pylrp
