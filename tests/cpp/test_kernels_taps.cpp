// The kernels of convolutions: products over taps, what follows them; for the instruction set that PYLRP_ISA names.
#include <algorithm>
#include <limits>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

// rows_at(taps, rows) into x: rows in any order, some twice, each starting at another column.
template <class T>
std::vector<const T*> scattered_rows(Fenced<T>& x, Index count, Index spare) {
  std::vector<const T*> rows;
  for (Index r = 0; r < count; ++r) {
    rows.push_back(x.row((5 * r + 1) % x.rows()) + r % (spare + 1));
  }
  return rows;
}

TEST(tile_taps_sums_over_taps) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, lanes = width / 2;
    constexpr Index kShift = 3;
    for (Index rows = 1; rows <= kernel.tile_rows; ++rows) {
      for (Index taps = 1; taps <= 5; ++taps) {
        for (const Index k : {1, 7, 16, 33}) {
          Random random(static_cast<unsigned>(100 * k + rows));
          Fenced<T> x(7, k + kShift), panel(taps * k, width, 0), before(rows, width, 0);
          Fenced<T> side_by_side(rows, width, 0), apart(rows, width, 3 * width + 5);
          x.fill(random);
          panel.fill(random);
          before.fill(random);
          const std::vector<const T*> at = scattered_rows(x, taps * rows, kShift);
          for (const Index halves : {1, 2}) {
            for (const int choice : {0, 1, 2, 3}) {
              const bool add = choice % 2 == 1;
              Fenced<T>& out = choice < 2 ? side_by_side : apart;
              say("tile_taps: rows, taps, k, halves, add, stride, bytes", rows, taps, k, halves, add, out.stride(),
                  sizeof(T));
              out.reset();
              if (add) {
                for (Index i = 0; i < rows; ++i) {
                  std::copy_n(before.row(i), halves * lanes, out.row(i));
                }
              }
              const std::vector<T> untouched = out.entries();
              kernel.tile_taps({.rows = static_cast<int>(rows),
                                .halves = static_cast<int>(halves),
                                .taps = static_cast<int>(taps),
                                .k = k,
                                .rows_at = at.data(),
                                .panel = panel.data(),
                                .add = add,
                                .out = out.data(),
                                .out_stride = out.stride()});
              bool right = true, left_alone = true;
              for (Index i = 0; i < rows; ++i) {
                for (Index j = 0; j < width; ++j) {
                  if (j >= halves * lanes) {
                    left_alone =
                        left_alone &&
                        std::memcmp(&out.at(i, j), &untouched[static_cast<std::size_t>(i * width + j)], sizeof(T)) == 0;
                    continue;
                  }
                  Sum64 expected;
                  expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
                  for (Index t = 0; t < taps; ++t) {
                    for (Index p = 0; p < k; ++p) {
                      expected.add(static_cast<double>(at[static_cast<std::size_t>(t * rows + i)][p]) *
                                   static_cast<double>(panel.at(t * k + p, j)));
                    }
                  }
                  right =
                      right && near(static_cast<double>(out.at(i, j)), expected.value, bound<T>(expected, taps * k));
                }
              }
              CHECK(right);
              CHECK(left_alone);
              CHECK(out.intact() && x.intact() && panel.intact());
            }
          }
        }
      }
    }
  });
}

// Exact: one addition, then comparisons.
TEST(finish_adds_the_bias_and_clamps) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    for (const Index cols : around(kernels::table<T>().tile_cols)) {
      for (const Index rows : {1, 3}) {
        Random random(static_cast<unsigned>(cols));
        Fenced<T> acc(rows, cols), bias(1, cols, 0), out(rows, cols, 5);
        acc.fill([&] { return random(-2, 2); });
        bias.fill(random);
        acc.at(rows - 1, cols - 1) = nan;
        acc.at(0, cols / 2) = infinity;
        bias.at(0, cols / 3) = 0;
        acc.at(0, cols / 3) = T(-0.0);
        struct Limits {
          T low, high;
        };
        for (const Limits& limits : {Limits{-infinity, infinity}, {0, infinity}, {0, T(0.75)}, {T(-0.5), T(0.25)}}) {
          for (const bool with_bias : {false, true}) {
            say("finish: cols, rows, bias, bytes", cols, rows, with_bias, sizeof(T));
            out.reset();
            kernels::table<T>().finish({.rows = rows,
                                        .cols = cols,
                                        .acc = acc.data(),
                                        .acc_stride = acc.stride(),
                                        .bias = with_bias ? bias.data() : nullptr,
                                        .low = limits.low,
                                        .high = limits.high,
                                        .out = out.data(),
                                        .out_stride = out.stride()});
            bool right = true;
            for (Index i = 0; i < rows; ++i) {
              for (Index j = 0; j < cols; ++j) {
                const T v = with_bias ? acc.at(i, j) + bias.at(0, j) : acc.at(i, j);
                const T expected = std::isnan(v) ? v : std::min(std::max(v, limits.low), limits.high);
                right = right && (std::isnan(v) ? std::isnan(out.at(i, j)) : out.at(i, j) == expected);
              }
            }
            CHECK(right);
            CHECK(out.intact() && acc.intact() && bias.intact());
          }
        }
      }
    }
  });
}

// Zeros of either sign and infinities, too.
TEST(part_of_splits_by_sign) {
  both_types([](auto tag) {
    using T = decltype(tag);
    for (const Index n : around(kernels::table<T>().tile_cols)) {
      Fenced<T> x(1, n, 0), out(1, n, 0);
      x.fill(Random(3));
      x.at(0, n - 1) = std::numeric_limits<T>::quiet_NaN();
      x.at(0, n / 2) = -std::numeric_limits<T>::infinity();
      x.at(0, n / 3) = T(-0.0);
      for (const int part : {-1, 0, 1}) {
        say("part_of: n, part, bytes", n, part, sizeof(T));
        out.reset();
        kernels::table<T>().part_of(n, x.data(), part, out.data());
        bool right = true;
        for (Index i = 0; i < n; ++i) {
          const T v = x.at(0, i), expected = part == 0 ? std::abs(v) : ((part > 0) == (v > 0) ? v : T(0));
          right = right && (std::isnan(v) ? std::isnan(out.at(0, i)) : out.at(0, i) == expected);
        }
        CHECK(right);
        CHECK(out.intact() && x.intact());
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
