// Lists of words of two numbers in bfloat16 (kernels/word_lists.inl): which are kept, and the sums over them, by the
// processor's instruction and emulated; words of any two steps.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/quads.hpp"
#include "reference.hpp"
#include "words.hpp"

namespace pylrp {
namespace {

double half_of(float word, bool upper) {
  return static_cast<double>(of_bits(upper ? bits_of(word) & 0xffff0000U : bits_of(word) << 16));
}

bool has_quads() { return kernels::quads() != nullptr; }

TEST(words_that_are_not_zero_are_kept) {
  const auto& kernel = kernels::bfloat16_table();
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const float some[] = {0.0F, -0.0F, 0.0F, 1.5F, -0.0F, -2.0F, 0.0F, nan, infinity, 1e-38F};
  for (const Index rows : {1, 2, 4}) {
    for (const Index places : {1, 3, 4, 16, 17, 50}) {
      if (rows == 4 && !has_quads()) {
        continue;
      }
      Random random(static_cast<unsigned>(places));
      Fenced<float> x(rows, 2 * places, 0), words(rows, places, 0);
      Fenced<float> values(1, rows * (places + kernels::kSpare));
      x.fill([&] { return some[random.up_to(0, 9)]; });
      std::vector<const float*> at;
      for (Index r = 0; r < rows; ++r) {
        kernel.join(2 * places, x.row(r), words.row(r));
        at.push_back(words.row(r));
      }
      std::vector<std::uint16_t> steps(static_cast<std::size_t>(places + kernels::kSpare));
      const Index count = kernel.compress(static_cast<int>(rows), places, at.data(), values.data(), steps.data());
      Index kept = 0;
      bool right = true;
      for (Index p = 0; p < places; ++p) {
        bool any = false;
        for (Index r = 0; r < rows; ++r) {
          any = any || half_of(at[static_cast<std::size_t>(r)][p], false) != 0 ||
                half_of(at[static_cast<std::size_t>(r)][p], true) != 0;
        }
        for (Index r = 0; any && r < rows; ++r) {
          right = right && kept < count && steps[static_cast<std::size_t>(kept)] == p &&
                  bits_of(values.at(0, rows * kept + r)) == bits_of(at[static_cast<std::size_t>(r)][p]);
        }
        kept += any ? 1 : 0;
      }
      say("words kept: rows, places, found", rows, places, count, kept);
      CHECK(right && kept == count);
      CHECK(words.intact() && values.intact());
    }
  }
}

TEST(words_have_the_steps_they_are_told) {
  const auto& kernel = kernels::bfloat16_table();
  Random random(1);
  Fenced<float> x(5, 20, 0), words(3, 20, 0);
  x.fill(random);
  const std::int32_t order[] = {4, 1, 0, 5, 3, 2};  // 5: zeros
  kernel.join_rows(3, 20, 5, x.data(), order, words.data());
  for (Index p = 0; p < 3; ++p) {
    for (Index j = 0; j < 20; ++j) {
      for (const bool upper : {false, true}) {
        const std::int32_t step = order[2 * p + (upper ? 1 : 0)];
        const double expected = step < 5 ? static_cast<double>(x.at(step, j)) : 0;
        CHECK(std::abs(half_of(words.at(p, j), upper) - expected) <= std::abs(expected) / 256);
      }
    }
  }
  CHECK(x.intact() && words.intact());
}

// What the sums over lists are made of: entries for `rows` rows side by side, of three lists, and panels.
struct Sums {
  static constexpr Index kPanels = 3, kSteps = 40;
  Index rows, width = kernels::table<float>().tile_cols;
  std::vector<Index> begins{0, 0, 9, 9 + kSteps};
  std::vector<std::uint16_t> steps;
  std::vector<std::int32_t> list_of{2, 0, 1}, choice;
  Fenced<float> values, panels, before, sums;
  const float* panel[kPanels];
  float* out[kPanels];

  explicit Sums(Index rows_of_list)
      : rows(rows_of_list),
        values(1, rows * begins.back()),
        panels(kPanels * kSteps, width, 0),
        before(3 * rows, kPanels * width, 0),
        sums(3 * rows, kPanels * width, 0) {
    Random random(static_cast<unsigned>(rows));
    words(random, &values);
    words(random, &panels);
    before.fill(random);
    for (std::size_t list = 0; list < 3; ++list) {
      for (Index n = begins[list + 1] - begins[list]; n > 0; --n) {
        steps.push_back(static_cast<std::uint16_t>(kSteps - n));
      }
    }
    choice.resize(static_cast<std::size_t>(3 * kPanels * width));
    std::generate(choice.begin(), choice.end(), [&] { return static_cast<std::int32_t>(random.up_to(0, 3)); });
    for (Index p = 0; p < kPanels; ++p) {
      panel[p] = panels.row(p * kSteps);
      out[p] = sums.row(0) + p * width;
    }
  }
  static void words(Random& random, Fenced<float>* to) {
    for (Index i = 0; i < to->rows(); ++i) {
      Fenced<float> row(1, 2 * to->cols());
      row.fill(random);
      kernels::bfloat16_table().join(2 * to->cols(), row.data(), to->row(i));
    }
  }
  void start() {
    for (Index i = 0; i < sums.rows(); ++i) {
      std::copy_n(before.row(i), sums.cols(), sums.row(i));
    }
  }
  // value(entry, row of the list, column): the word that a column multiplies. A product of two bfloat16 is exact, and a
  // sum is one chain: all instruction sets have its bits, but for ARM's instruction, which rounds once for two
  // products.
  template <class Value>
  void check(Index result_rows, int count, bool add, Value value) {
    bool right = true, same_bits = true;
    for (Index i = 0; i < 3 * result_rows; ++i) {
      const std::size_t list = static_cast<std::size_t>(list_of[static_cast<std::size_t>(i / result_rows)]);
      for (Index j = 0; j < count * width; ++j) {
        Sum64 expected;
        float chain = 0;
        expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
        for (Index e = begins[list]; e < begins[list + 1]; ++e) {
          const float weights = panels.at(j / width * kSteps + steps[static_cast<std::size_t>(e)], j % width);
          const float word = value(e, i, j);
          expected.add(half_of(word, false) * half_of(weights, false));
          expected.add(half_of(word, true) * half_of(weights, true));
          for (const bool upper : {true, false}) {
            chain =
                std::fma(static_cast<float>(half_of(word, upper)), static_cast<float>(half_of(weights, upper)), chain);
          }
        }
        same_bits = same_bits && bits_of(sums.at(i, j)) == bits_of(add ? before.at(i, j) + chain : chain);
        right = right && near(static_cast<double>(sums.at(i, j)), expected.value, bound<float>(expected, 100));
      }
    }
    CHECK(right);
    CHECK(same_bits || std::strcmp(kernels::bfloat16_table().name, "bfdot") == 0);
    CHECK(sums.intact() && values.intact() && panels.intact());
  }
};

TEST(words_in_lists_are_summed) {
  both_ways([](const kernels::Bfloat16Table& kernel) {
    for (const Index rows : {1, 2, 4}) {
      if (rows == 4 && !has_quads()) {
        CHECK(kernel.list_quads == nullptr);
        continue;
      }
      Sums data(rows);
      const Index stride = data.sums.stride();
      for (int count = 1; count <= Sums::kPanels; ++count) {
        for (const bool add : {false, true}) {
          say("sums of words: rows, panels, add", rows, count, add);
          data.start();
          const Index results = rows == 2 ? 2 : 1;
          const kernels::Lists<float> lists{3,
                                            data.values.data(),
                                            data.steps.data(),
                                            data.begins.data(),
                                            data.list_of.data(),
                                            count,
                                            data.panel,
                                            add,
                                            data.out,
                                            stride};
          if (rows == 4) {
            kernel.list_quads({lists, data.choice.data(), Sums::kPanels * data.width});
          } else {
            rows == 2 ? kernel.list_pairs(lists) : kernel.list_rows({lists, 0});
          }
          data.check(results, count, add, [&](Index e, Index i, Index j) {
            const auto at = static_cast<std::size_t>(i * Sums::kPanels * data.width + j);
            return data.values.at(0, rows * e + (rows == 4 ? data.choice[at] : i % rows));
          });
        }
      }
    }
  });
}

// One entry of a list and the row of weights that it meets, lower halves and upper ones.
struct Term {
  double lower, upper, lower_weight, upper_weight;
};
float word_of(double lower, double upper) {
  return of_bits(bits_of(static_cast<float>(lower)) >> 16 | bits_of(static_cast<float>(upper)));
}

// The sum of terms by lists of rows side by side, of which `row` has the terms and the others zeros; by the tiles:
// none.
float sum_of(const kernels::Bfloat16Table& kernel, const std::vector<Term>& terms, Index rows, Index row) {
  const Index width = kernels::table<float>().tile_cols, count = static_cast<Index>(terms.size());
  Fenced<float> values(1, std::max<Index>(1, rows) * count, 0), panel(count, width, 0),
      out(std::max<Index>(2, rows), width, 0);
  std::vector<std::uint16_t> steps;
  for (Index t = 0; t < count; ++t) {
    const Term& term = terms[static_cast<std::size_t>(t)];
    steps.push_back(static_cast<std::uint16_t>(t));
    values.at(0, std::max<Index>(1, rows) * t + row) = word_of(term.lower, term.upper);
    std::fill_n(panel.row(t), width, word_of(term.lower_weight, term.upper_weight));
  }
  const Index begins[] = {0, count};
  const std::int32_t list_of[] = {0};
  const std::vector<std::int32_t> choice(static_cast<std::size_t>(width), static_cast<std::int32_t>(row));
  const float* const panels[] = {panel.data()};
  float* const outs[] = {out.data()};
  const kernels::Lists<float> lists{1, values.data(), steps.data(), begins, list_of, 1, panels, false, outs, width};
  if (rows == 0) {
    kernel.tile(1, count, values.data(), panel.data(), false, out.data());
  } else if (rows == 4) {
    kernel.list_quads({lists, choice.data(), width});
  } else {
    rows == 2 ? kernel.list_pairs(lists) : kernel.list_rows({lists, 0});
  }
  const float* const found = out.row(rows == 2 ? row : 0);
  CHECK(std::all_of(found, found + width, [&](float x) { return bits_of(x) == bits_of(found[0]); }));
  CHECK(values.intact() && panel.intact() && out.intact());
  return found[0];
}

// The instructions know no denormals, neither as operands nor as sums on the way, whatever the processor's modes are.
TEST(denormals_in_words_are_zero) {
  const auto power = [](int n) { return std::ldexp(1.0, n); };
  const double denormal = power(-130), large = power(100), less = -power(-63) * 1.984375;
  const std::vector<Term> small(300, {power(-64), power(-64), power(-64), power(-64)});
  const struct {
    std::vector<Term> terms;
    double expected;
  } cases[] = {
      {{{denormal, 0, large, large}}, 0},
      {{{0, denormal, large, large}}, 0},
      {{{large, large, denormal, 0}}, 0},
      {{{large, large, 0, denormal}}, 0},
      {{{denormal, 1.5, large, 2}, {-3, denormal, 1, large}}, 0},
      {{{-denormal, 1.5, large, 2}}, 3},
      {{{1.5, -denormal, 2, large}}, 3},
      {small, 0},  // each product is denormal, their sum would not be
      {{{power(-63), 0, power(-63), 0}}, power(-126)},
      {{{0, power(-62), 0, power(-63)}, {less, 0, power(-63), 0}}, 0},
      {{{power(-62), 0, power(-63), 0}, {0, less, 0, power(-63)}, {power(-62), 0, power(-63), 0}}, power(-125)},
  };
  both_ways([&](const kernels::Bfloat16Table& kernel) {
    for (const Index rows : {0, 1, 2, 4}) {
      if (rows == 4 && !has_quads()) {
        continue;
      }
      for (Index row = 0; row < std::max<Index>(1, rows); ++row) {
        for (std::size_t i = 0; i < std::size(cases); ++i) {
          say("denormals: rows, row, case", rows, row, static_cast<Index>(i));
          CHECK(static_cast<double>(sum_of(kernel, cases[i].terms, rows, row)) == cases[i].expected);
        }
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
