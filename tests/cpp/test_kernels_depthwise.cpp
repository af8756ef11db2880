// The kernels of depthwise convolutions, for the instruction set that PYLRP_ISA names.
#include <algorithm>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

// Taps begin anywhere, some at the same place; their weights lie in any order, some are used twice. Rows that come
// again (step 0) are those of a constant image.
TEST(depthwise_sums_element_by_element) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    for (const Index n : around(kernel.tile_cols)) {
      for (const Index rows : {1, 2, 3, 4, 5, 6, 7, 8, 11}) {
        for (const Index taps : {0, 1, 2, 3, 5}) {
          const Index stride = rows % 3;  // of the positions, in pixels
          Random random(static_cast<unsigned>(100 * n + rows));
          Fenced<T> x(rows * stride + 4, n), w(taps + 1, n), out(rows, n), before(rows, n);
          x.fill(random);
          w.fill(random);
          before.fill(random);
          std::vector<const T*> at, weights;
          for (Index t = 0; t < taps; ++t) {
            at.push_back(x.row(3 * t % 4));
            weights.push_back(w.row((2 * t + 1) % taps));
          }
          for (const bool add : {false, true}) {
            say("depthwise: n, rows, taps, add, bytes", n, rows, taps, add, sizeof(T));
            out.reset();
            for (Index i = 0; add && i < rows; ++i) {
              std::copy_n(before.row(i), n, out.row(i));
            }
            kernel.depthwise({.rows = static_cast<int>(rows),
                              .taps = static_cast<int>(taps),
                              .n = n,
                              .at = at.data(),
                              .step = stride * x.stride(),
                              .w = weights.data(),
                              .add = add,
                              .out = out.data(),
                              .out_stride = out.stride()});
            bool right = true;
            for (Index i = 0; i < rows; ++i) {
              for (Index j = 0; j < n; ++j) {
                Sum64 expected;
                expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
                for (std::size_t t = 0; t < at.size(); ++t) {
                  expected.add(static_cast<double>(weights[t][j]) *
                               static_cast<double>(at[t][i * stride * x.stride() + j]));
                }
                right = right && near(static_cast<double>(out.at(i, j)), expected.value, bound<T>(expected, taps));
              }
            }
            CHECK(right);
            CHECK(out.intact() && x.intact() && w.intact());
          }
        }
      }
    }
  });
}

// Taps that lie side by side, on some lines; those before the first and behind the last pixel of a line are none.
// Weights forwards and backwards.
TEST(depthwise_sums_along_a_line) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const std::vector<std::pair<int, int>> kinds{{1, 1}, {2, 1}, {3, 1}, {5, 1}, {3, 2}, {5, 2}};
    for (const Index n : around(kernel.tile_cols)) {
      for (const auto& [taps, scale] : kinds) {
        for (const Index rows : {1, 6, 7, 8, 14, 17}) {
          for (const Index first : {-3, -1, 0, 2}) {
            const int lines = static_cast<int>(rows + first + 3) % 4;
            const bool backwards = (rows + first) % 2 == 0;
            const Index pixels = scale * (rows - 1) + taps - 1;  // the last position's last tap may be outside
            Random random(static_cast<unsigned>(100 * n + rows));
            Fenced<T> x(lines * pixels + 1, n), w(lines * taps + 1, n), out(rows, n);
            x.fill(random);
            w.fill(random);
            out.reset();
            std::vector<const T*> at(4), weights(4);
            for (int t = 0; t < lines; ++t) {
              at[static_cast<std::size_t>(t)] = x.row((lines - 1 - t) * pixels);
              weights[static_cast<std::size_t>(t)] = w.row(t * taps + (backwards ? taps - 1 : 0));
            }
            say("depthwise line: n, rows, taps, scale, first, lines, bytes", n, rows, taps, scale, first, lines,
                sizeof(T));
            kernel.depthwise_line({.lines = lines,
                                   .taps = taps,
                                   .scale = scale,
                                   .rows = rows,
                                   .n = n,
                                   .at = at.data(),
                                   .first = first,
                                   .pixels = pixels,
                                   .step = x.stride(),
                                   .w = weights.data(),
                                   .w_step = backwards ? -w.stride() : w.stride(),
                                   .out = out.data(),
                                   .out_stride = out.stride()});
            bool right = true;
            for (Index i = 0; i < rows; ++i) {
              for (Index j = 0; j < n; ++j) {
                Sum64 expected;
                for (int t = 0; t < lines; ++t) {
                  for (Index l = 0; l < taps; ++l) {
                    const Index pixel = first + scale * i + l;
                    if (pixel >= 0 && pixel < pixels) {
                      expected.add(static_cast<double>(w.at(t * taps + (backwards ? taps - 1 - l : l), j)) *
                                   static_cast<double>(x.at((lines - 1 - t) * pixels + pixel, j)));
                    }
                  }
                }
                right = right && near(static_cast<double>(out.at(i, j)), expected.value, bound<T>(expected, 5 * lines));
              }
            }
            CHECK(right);
            CHECK(out.intact() && x.intact() && w.intact());
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
