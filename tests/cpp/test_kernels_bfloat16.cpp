// Operands in bfloat16: rounding, words of two, tiles by the processor's instruction and emulated, rows of weights; for
// the instruction set that PYLRP_ISA names.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"
#include "words.hpp"

namespace pylrp {
namespace {

using kernels::Bfloat16;

// To the nearer of both neighbours, to the even one in the middle; denormals are zero.
float nearest(float x) {
  if (std::isnan(x) || std::isinf(x)) {
    return x;
  }
  if (std::abs(x) < std::numeric_limits<float>::min()) {
    return std::copysign(0.0F, x);
  }
  const std::uint32_t below = bits_of(x) & 0xffff0000U;
  const double step = std::ldexp(1.0, std::ilogb(x) - 7), least = std::abs(static_cast<double>(of_bits(below)));
  const double over = std::abs(static_cast<double>(x)) - least;
  const bool up = over > step / 2 || (over == step / 2 && (below >> 16 & 1) != 0);
  return of_bits(up ? below + 0x10000U : below);
}
bool same(float a, float b) { return (std::isnan(a) && std::isnan(b)) || bits_of(a) == bits_of(b); }

std::vector<float> numbers() {
  std::vector<float> found{0.0F,
                           -0.0F,
                           1.0F,
                           of_bits(0x3f808000),  // in the middle, down to the even one
                           of_bits(0x3f818000),  // in the middle, up
                           of_bits(0xbf818000),
                           of_bits(0x3f808001),
                           of_bits(0x3f817fff),
                           of_bits(0x3fffffff),  // the mantissa runs over
                           of_bits(0x00800000),  // the least that is no denormal
                           of_bits(0x007fffff),  // denormals
                           of_bits(0x80000001),
                           of_bits(0x7f7f7fff),  // the largest that stays finite
                           of_bits(0x7f7fffff),  // the largest: infinite
                           of_bits(0xff7f8000),
                           of_bits(0x7f800000),
                           of_bits(0xff800000),
                           of_bits(0x7f800001),  // NaN whose bits are in the lower half alone
                           of_bits(0xffffffff),
                           std::numeric_limits<float>::quiet_NaN()};
  Random random(7);
  for (int i = 0; i < 500; ++i) {
    const auto upper = static_cast<std::uint32_t>(30000.0 * (1 + random()));
    found.push_back(of_bits(upper << 16 | static_cast<std::uint32_t>(32767.0 * (1 + random()))));
  }
  return found;
}

TEST(bfloat16_rounds_to_nearest) {
  const auto& kernel = kernels::bfloat16_table();
  const std::vector<float> given = numbers();
  for (const Index n : {Index{1}, Index{5}, Index{16}, Index{31}, static_cast<Index>(given.size())}) {
    Fenced<float> x(1, n, 0), y(1, n, 0), words(1, (n + 1) / 2, 0), column(1, (n + 1) / 2, 0);
    std::copy_n(given.begin(), n, x.data());
    kernel.round(n, x.data(), y.data());
    kernel.join(n, x.data(), words.data());
    kernel.join_rows((n + 1) / 2, 1, n, x.data(), nullptr, column.data());
    for (Index i = 0; i < n; ++i) {
      say("round: of, i", n, i, bits_of(x.at(0, i)), bits_of(y.at(0, i)));
      const float expected = nearest(x.at(0, i));
      const std::uint32_t word = bits_of(words.at(0, i / 2));
      CHECK(same(y.at(0, i), expected));
      CHECK(same(of_bits(i % 2 == 0 ? word << 16 : word & 0xffff0000U), y.at(0, i)));
      CHECK(bits_of(column.at(0, i / 2)) == word);
    }
    CHECK(n % 2 == 0 || bits_of(words.at(0, n / 2)) >> 16 == 0);
    CHECK(x.intact() && y.intact() && words.intact() && column.intact());
  }
}

// words((k + 1) / 2, n) of numbers(k, n), rounded in place.
void join(Fenced<float>& x, Fenced<float>& words) {
  const auto& kernel = kernels::bfloat16_table();
  kernel.join_rows((x.rows() + 1) / 2, x.cols(), x.rows(), x.data(), nullptr, words.data());
  for (Index p = 0; p < x.rows(); ++p) {
    kernel.round(x.cols(), x.row(p), x.row(p));
  }
}

TEST(bfloat16_tiles) {
  both_ways([](const kernels::Bfloat16Table& kernel) {
    const auto& f32 = kernels::table<float>();
    const Index width = f32.tile_cols;
    for (Index rows = 1; rows <= f32.tile_rows; ++rows) {
      for (const Index k : {1, 2, 7, 16, 33, 256}) {
        Random random(static_cast<unsigned>(100 * k + rows));
        const Index pairs = (k + 1) / 2;
        Fenced<float> left(k, rows, 0), panel(k, width, 0), out(rows, width, 0), before(rows, width, 0);
        Fenced<float> left_words(pairs, rows, 0), panel_words(pairs, width, 0);
        left.fill(random);
        panel.fill(random);
        before.fill(random);
        join(left, left_words);
        join(panel, panel_words);
        for (const bool add : {false, true}) {
          say("bfloat16 tile: rows, k, add", rows, k, add);
          std::copy_n(before.data(), rows * width, out.data());
          kernel.tile(static_cast<int>(rows), pairs, left_words.data(), panel_words.data(), add, out.data());
          for (Index i = 0; i < rows; ++i) {
            for (Index j = 0; j < width; ++j) {
              Sum64 expected;
              expected.add(add ? static_cast<double>(before.at(i, j)) : 0.0);
              for (Index p = 0; p < k; ++p) {
                expected.add(static_cast<double>(left.at(p, i)) * static_cast<double>(panel.at(p, j)));
              }
              CHECK(near(static_cast<double>(out.at(i, j)), expected.value, bound<float>(expected, k + 1)));
            }
          }
          CHECK(left_words.intact() && panel_words.intact() && out.intact());
        }
      }
    }
  });
}

TEST(bfloat16_tiles_over_taps) {
  both_ways([](const kernels::Bfloat16Table& kernel) {
    const auto& f32 = kernels::table<float>();
    const Index width = f32.tile_cols, lanes = width / 2;
    for (const Index rows : {Index{1}, Index{3}, Index{f32.tile_rows}}) {
      for (const Index taps : {1, 3}) {
        for (const Index k : {1, 5, 12}) {
          Random random(static_cast<unsigned>(k + rows));
          const Index pairs = (k + 1) / 2;
          Fenced<float> pixels(rows * taps, k, 0), words(rows * taps, pairs, 0), out(rows, width, 0);
          Fenced<float> panel(k, width * taps, 0), tap_panel(k, width, 0), panel_words(taps * pairs, width, 0);
          Fenced<float> tap_words(pairs, width, 0);
          pixels.fill(random);
          panel.fill(random);
          std::vector<const float*> at;
          for (Index r = 0; r < rows * taps; ++r) {
            kernel.join(k, pixels.row(r), words.row(r));
            kernel.round(k, pixels.row(r), pixels.row(r));
            at.push_back(words.row(r));
          }
          for (Index t = 0; t < taps; ++t) {
            for (Index p = 0; p < k; ++p) {
              std::copy_n(panel.row(p) + t * width, width, tap_panel.row(p));
            }
            join(tap_panel, tap_words);
            std::copy_n(tap_words.data(), pairs * width, panel_words.row(t * pairs));
            for (Index p = 0; p < k; ++p) {
              std::copy_n(tap_panel.row(p), width, panel.row(p) + t * width);
            }
          }
          for (const Index halves : {1, 2}) {
            say("bfloat16 taps: rows, taps, k, halves", rows, taps, k, halves);
            kernel.tile_taps({.rows = static_cast<int>(rows),
                              .halves = static_cast<int>(halves),
                              .taps = static_cast<int>(taps),
                              .k = pairs,
                              .rows_at = at.data(),
                              .panel = panel_words.data(),
                              .add = false,
                              .out = out.data(),
                              .out_stride = width});
            for (Index i = 0; i < rows; ++i) {
              for (Index j = 0; j < halves * lanes; ++j) {
                Sum64 expected;
                for (Index t = 0; t < taps; ++t) {
                  for (Index p = 0; p < k; ++p) {
                    expected.add(static_cast<double>(pixels.at(t * rows + i, p)) *
                                 static_cast<double>(panel.at(p, t * width + j)));
                  }
                }
                CHECK(near(static_cast<double>(out.at(i, j)), expected.value, bound<float>(expected, k * taps)));
              }
            }
          }
        }
      }
    }
  });
}

// What the instructions do whatever the processor's modes are: no denormals, neither in nor out.
TEST(bfloat16_flushes_denormals) {
  both_ways([](const kernels::Bfloat16Table& kernel) {
    const Index width = kernels::table<float>().tile_cols;
    const auto product = [&](float a, float b) {
      Fenced<float> left(1, 1, 0), panel(1, width, 0), words(1, 1, 0), panel_words(1, width, 0), out(1, width, 0);
      left.at(0, 0) = a;
      panel.fill([&] { return b; });
      join(left, words);
      join(panel, panel_words);
      kernel.tile(1, 1, words.data(), panel_words.data(), false, out.data());
      return out.at(0, 0);
    };
    CHECK(product(1e-39F, 1e10F) == 0);
    CHECK(product(1e-20F, 1e-20F) == 0);
    CHECK(product(2e-19F, 2e-19F) > 3e-38F);
    CHECK(std::isnan(product(std::numeric_limits<float>::quiet_NaN(), 0.0F)));
    CHECK(std::isinf(product(std::numeric_limits<float>::infinity(), 1.0F)));
  });
}

TEST(bfloat16_rows) {
  const auto& kernel = kernels::bfloat16_table();
  for (const Index count : {1, 2, 3, 4, 8, 9}) {
    for (const Index k : {1, 7, 16, 33, 100, 257}) {
      Random random(static_cast<unsigned>(k + count));
      Fenced<float> w(2 * count, k, 0), words(2 * count, (k + 1) / 2, 0);
      Fenced<float> x(1, k, 0), z(1, count, 0), c(1, k, 0), s(1, count, 0), start(1, k, 0);
      w.fill(random);
      x.fill(random);
      s.fill(random);
      start.fill(random);
      std::vector<const Bfloat16*> rows;
      for (Index r = 0; r < 2 * count; ++r) {
        kernel.join(k, w.row(r), words.row(r));
        kernel.round(k, w.row(r), w.row(r));
        rows.push_back(reinterpret_cast<const Bfloat16*>(words.row(r)));
      }
      auto maps = all_weights<float>();
      const bool eight = kernel.add_squares != nullptr && count == kernels::kSquaredRows;
      maps.insert(maps.end(), eight ? 1 : 0, {kernels::Read::kSquare, 1, 1});  // once more, in one pass
      for (std::size_t m = 0; m < maps.size(); ++m) {
        const auto& map = maps[m];
        const bool joined = eight && m + 1 == maps.size();
        say("bfloat16 rows: count, k, map, joined", count, k, static_cast<int>(map.read), joined);
        std::fill_n(z.data(), count, 0.0F);
        std::copy_n(start.data(), k, c.data());
        const int some = static_cast<int>(count);
        if (joined) {
          kernel.add_squares(rows.data(), rows.data() + count, k, s.data(), c.data(), z.data());
        } else {
          kernel.rows.axpy(some, rows.data(), k, map, s.data(), c.data(), false);
          kernel.rows.dot(some, rows.data() + count, k, map, x.data(), z.data(), true);
        }
        for (Index r = 0; r < count; ++r) {
          Sum64 expected;
          for (Index p = 0; p < k; ++p) {
            expected.add(mapped(map, w.at(count + r, p)) * (joined ? 1 : static_cast<double>(x.at(0, p))));
          }
          CHECK(near(static_cast<double>(z.at(0, r)), expected.value, bound<float>(expected, k)));
        }
        for (Index p = 0; p < k; ++p) {
          Sum64 expected;
          expected.add(static_cast<double>(start.at(0, p)));
          for (Index r = 0; r < count; ++r) {
            expected.add(mapped(map, w.at(r, p)) * static_cast<double>(s.at(0, r)));
          }
          CHECK(near(static_cast<double>(c.at(0, p)), expected.value, bound<float>(expected, count)));
        }
        CHECK(words.intact() && x.intact() && z.intact() && c.intact() && s.intact());
      }
    }
  }
}

}  // namespace
}  // namespace pylrp
