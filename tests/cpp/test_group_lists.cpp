// Lists over panels whose rows lie side by side, and the packing of those.
#include <algorithm>
#include <limits>
#include <vector>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "products/lists.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

// Lists of every length up to the longest, over one panel up to a whole group.
TEST(group_rows_sums_over_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, step = width * kernel.group_panels, longest = group_steps<T>();
    Random random(7);
    std::vector<Index> begins{0};
    std::vector<std::uint16_t> steps;
    for (const Index count : {Index{0}, Index{4}, Index{8}, Index{0}, Index{36}, longest}) {
      for (Index i = 0; i < count; ++i) {
        steps.push_back(static_cast<std::uint16_t>(longest - 1 - i));
      }
      begins.push_back(begins.back() + count);
    }
    const Index rows = static_cast<Index>(begins.size()) - 1;
    Fenced<T> values(1, begins.back()), before(rows, width, 0), group(longest, step, 0);
    values.fill(random);
    group.fill(random);
    before.fill(random);
    for (int count = 1; count <= kernel.group_panels; ++count) {
      for (const bool add : {false, true}) {
        say("group_rows: panels, add, bytes", count, add, sizeof(T));
        Fenced<T> sums(count * rows, width, 0);
        std::vector<T*> out;
        for (Index p = 0; p < count; ++p) {
          out.push_back(sums.row(p * rows));
          for (Index i = 0; add && i < rows; ++i) {
            std::copy_n(before.row(i), width, sums.row(p * rows + i));
          }
        }
        kernel.group_rows({rows, values.data(), steps.data(), begins.data(), count, group.data(), add, out.data()});
        bool right = true;
        for (Index p = 0; p < count; ++p) {
          for (Index i = 0; i < rows; ++i) {
            for (Index j = 0; j < width; ++j) {
              Sum64 expected;
              expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
              for (Index n = begins[static_cast<std::size_t>(i)]; n < begins[static_cast<std::size_t>(i) + 1]; ++n) {
                expected.add(static_cast<double>(values.at(0, n)) *
                             static_cast<double>(group.at(steps[static_cast<std::size_t>(n)], p * width + j)));
              }
              right = right &&
                      near(static_cast<double>(sums.at(p * rows + i, j)), expected.value, bound<T>(expected, longest));
            }
          }
        }
        CHECK(right);
        CHECK(sums.intact() && group.intact() && values.intact());
      }
    }
  });
}

// A panel among others, whose rows are apart: nothing else is written, and what is not finite is told.
TEST(panels_of_a_group) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, step = 3 * width;
    for (const bool forward : {true, false}) {
      for (const Index cols : {Index{1}, width / 2, width}) {
        for (const Index k : {Index{1}, width / 2 + 1, Index{37}}) {
          for (const int bad : {0, 1, 2}) {
            say("panel of a group: forward, cols, k, bad, bytes", forward, cols, k, bad, sizeof(T));
            Fenced<T> w(forward ? cols : k, forward ? k : cols), near_by(k, step, 0), alone(k, width, 0);
            w.fill(Random(static_cast<unsigned>(k)));
            (forward ? w.at(cols - 1, k / 2) : w.at(k / 2, cols - 1)) =
                bad == 0 ? T(2) : (bad == 1 ? std::numeric_limits<T>::quiet_NaN() : std::numeric_limits<T>::infinity());
            const auto pack = forward ? kernel.pack_forward : kernel.pack_backward;
            const kernels::Weights<T> map{kernels::Read::kPositive, T(1), T(1)};
            for (Index i = 0; i < k; ++i) {
              std::fill_n(near_by.row(i), step, T(-7));
            }
            pack(static_cast<int>(cols), k, w.data(), w.stride(), map, alone.data(), width);
            CHECK(pack(static_cast<int>(cols), k, w.data(), w.stride(), map, near_by.row(0) + width, step) ==
                  (bad > 0));
            bool right = true;
            for (Index i = 0; i < k; ++i) {
              for (Index j = 0; j < step; ++j) {
                const T found = near_by.at(i, j);
                const T expected = j < width || j >= 2 * width ? T(-7) : alone.at(i, j - width);
                right = right && (found == expected || (found != found && expected != expected));
              }
            }
            CHECK(right);
            CHECK(near_by.intact() && alone.intact() && w.intact());
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
