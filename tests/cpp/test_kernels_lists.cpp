// The kernels of left operands as lists of what is not zero, for the instruction set that PYLRP_ISA names.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "products/lists.hpp"
#include "products/tap_lists.hpp"
#include "reference.hpp"
#include "thin.hpp"

namespace pylrp {
namespace {

TEST(compress_keeps_what_is_not_zero) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    for (const Index k : depths(kernel.tile_cols)) {
      for (const double share : kShares) {
        Fenced<T> x(1, k, 0), values(1, k + kernels::kSpare, 0);
        Random random(static_cast<unsigned>(k));
        x.fill(random);
        thin(x.view(), share, 3);
        if (share > 0.4) {
          x.at(0, k - 1) = nan;
          x.at(0, k / 2) = -infinity;
          x.at(0, k / 3) = std::numeric_limits<T>::denorm_min();
        }
        for (const int part : {-1, 0, 1}) {
          say("compress: k, share in percent, part, bytes", k, static_cast<int>(100 * share), part, sizeof(T));
          std::vector<T> kept;
          std::vector<Index> at;
          for (Index p = 0; p < k; ++p) {
            const T v = x.at(0, p);
            if (v != 0 && (std::isnan(v) || part == 0 || (part > 0) == (v > 0))) {
              kept.push_back(v);
              at.push_back(p);
            }
          }
          constexpr Index kFirst = 1000;
          std::vector<std::uint16_t> steps(static_cast<std::size_t>(k + kernels::kSpare));
          values.reset();
          const Index count = kernel.compress(k, x.data(), part, kFirst, values.data(), steps.data());
          CHECK(count == static_cast<Index>(kept.size()));
          CHECK(kernel.nonzeros(k, x.data(), part) == count);
          bool right = true;
          for (std::size_t n = 0; n < kept.size(); ++n) {
            right = right && std::memcmp(values.data() + n, &kept[n], sizeof(T)) == 0 && steps[n] == kFirst + at[n];
          }
          CHECK(right);
          CHECK(x.intact() && values.intact());
        }
      }
    }
  });
}

// Where lists of these lengths begin, one behind the other, and the end.
std::vector<Index> begins_of(const std::vector<Index>& counts) {
  std::vector<Index> begins{0};
  for (const Index count : counts) {
    begins.push_back(begins.back() + count);
  }
  return begins;
}
// Their steps: rising, up to the last one.
std::vector<std::uint16_t> last_steps(const std::vector<Index>& counts, Index longest) {
  std::vector<std::uint16_t> steps;
  for (const Index count : counts) {
    for (Index step = longest - count; step < longest; ++step) {
      steps.push_back(static_cast<std::uint16_t>(step));
    }
  }
  return steps;
}

// Sums of every number of panels up to `most` over lists of every length up to the longest: list_of names those of the
// rows, or of the pairs. multiply(lists) is the kernel.
template <class T, class Multiply>
void check_sums(Index together, Index longest, int most, const std::vector<std::int32_t>& list_of, Multiply multiply) {
  const Index width = kernels::table<T>().tile_cols, rows = static_cast<Index>(list_of.size()) * together;
  Random random(7);
  const std::vector<Index> counts{0, 1, 2, 3, 7, 8, 0, 33, longest};
  const std::vector<Index> begins = begins_of(counts);
  const std::vector<std::uint16_t> steps = last_steps(counts, longest);
  Fenced<T> values(1, together * begins.back()), before(rows, width, 0), panels(most * longest, width, 0);
  values.fill(random);
  panels.fill(random);
  before.fill(random);
  for (int count = 1; count <= most; ++count) {
    for (const bool add : {false, true}) {
      say("sums over lists: rows of one, panels, add, bytes", together, count, add, sizeof(T));
      Fenced<T> sums(count * rows, width, 2);
      std::vector<const T*> panel;
      std::vector<T*> out;
      for (Index p = 0; p < count; ++p) {
        panel.push_back(panels.row(p * longest));
        out.push_back(sums.row(p * rows));
        for (Index i = 0; add && i < rows; ++i) {
          std::copy_n(before.row(i), width, sums.row(p * rows + i));
        }
      }
      multiply(kernels::Lists<T>{.rows = rows / together,
                                 .values = values.data(),
                                 .steps = steps.data(),
                                 .begins = begins.data(),
                                 .list_of = list_of.data(),
                                 .panels = count,
                                 .panel = panel.data(),
                                 .add = add,
                                 .out = out.data(),
                                 .out_stride = sums.stride()});
      bool right = true;
      for (Index i = 0; i < count * rows; ++i) {
        const auto l = static_cast<std::size_t>(list_of[static_cast<std::size_t>(i % rows / together)]);
        for (Index j = 0; j < width; ++j) {
          Sum64 expected;
          expected.add(add ? static_cast<double>(before.at(i % rows, j)) : 0);
          for (Index n = begins[l]; n < begins[l + 1]; ++n) {
            const Index step = steps[static_cast<std::size_t>(n)];
            expected.add(static_cast<double>(values.at(0, together * n + i % together)) *
                         static_cast<double>(panels.at(i / rows * longest + step, j)));
          }
          right = right && near(static_cast<double>(sums.at(i, j)), expected.value, bound<T>(expected, longest));
        }
      }
      CHECK(right);
      CHECK(sums.intact() && panels.intact() && values.intact());
    }
  }
}

// In order or in any order, some used twice.
TEST(list_rows_sums_over_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto sums = kernels::table<T>().list_rows;
    check_sums<T>(1, list_steps<T>(), kernels::kListPanels, {8, 0, 7, 7, 3},
                  [&](const kernels::Lists<T>& lists) { sums({lists, 4}); });
    check_sums<T>(1, list_steps<T>(), kernels::kListPanels, {4, 5, 6, 7, 8}, [&](kernels::Lists<T> lists) {
      lists.list_of = nullptr;
      sums({lists, 4});
    });
  });
}

TEST(list_pairs_sums_over_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    for (const std::vector<std::int32_t>& list_of : {std::vector<std::int32_t>{8, 0, 4, 4}, {1, 2, 7, 8}}) {
      check_sums<T>(2, pair_steps<T>(), kernels::kPairPanels, list_of, kernels::table<T>().list_pairs);
    }
  });
}

// Two rows that share a list: what is not zero in one of them, in every order of zeros, NaN and denormals.
TEST(compress_pair_keeps_what_is_not_zero_in_one) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const T nan = std::numeric_limits<T>::quiet_NaN();
    for (const Index k : depths(kernel.tile_cols)) {
      for (const double share : kShares) {
        say("compress_pair: k, share in percent, bytes", k, static_cast<int>(100 * share), sizeof(T));
        Fenced<T> x(2, k, 0), values(1, 2 * (k + kernels::kSpare), 0);
        Random random(static_cast<unsigned>(k));
        x.fill(random);
        thin(x.view(), share, 3);
        if (share > 0.4) {
          x.at(0, k - 1) = nan;
          x.at(1, k / 2) = std::numeric_limits<T>::denorm_min();
        }
        std::vector<std::uint16_t> steps(static_cast<std::size_t>(k + kernels::kSpare));
        values.reset();
        const Index count = kernel.compress_pair(k, x.row(0), x.row(1), values.data(), steps.data());
        Index n = 0;
        bool right = true;
        for (Index p = 0; p < k; ++p) {
          if (x.at(0, p) != 0 || x.at(1, p) != 0) {
            right = right && n < count && steps[static_cast<std::size_t>(n)] == p &&
                    std::memcmp(values.data() + 2 * n, x.row(0) + p, sizeof(T)) == 0 &&
                    std::memcmp(values.data() + 2 * n + 1, x.row(1) + p, sizeof(T)) == 0;
            ++n;
          }
        }
        CHECK(right && n == count);
        CHECK(x.intact() && values.intact());
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
