// The kernels whose lanes are samples, and tiles whose weights stand where they are, for the instruction set that
// PYLRP_ISA names.
#include <algorithm>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

// Sums of all rows and samples of a panel; rows of weights lie `gap` further apart than they are long.
template <class T>
void check_samples(int count, Index k, bool add, Index gap) {
  const auto& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols;
  say("samples: samples, k, add, gap, bytes", count, k, add, gap, sizeof(T));
  Random random(static_cast<unsigned>(k + count));
  Fenced<T> w(width, k + gap, 0), x(1, k * count + width, 0), sums(width, width, 0), before(width, width, 0);
  w.fill(random);
  x.fill(random);
  before.fill(random);
  std::copy_n(before.data(), width * width, sums.data());
  for (int part = 0; part < kernel.sample_parts; ++part) {
    kernel.samples(
        {part, count, k, w.data(), k + gap, x.data(), add, sums.data(), part % 2 == 0 ? w.data() : nullptr, k + gap});
  }
  for (Index i = 0; i < width; ++i) {
    for (Index j = 0; j < count; ++j) {
      Sum64 expected;
      expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
      for (Index p = 0; p < k; ++p) {
        expected.add(static_cast<double>(w.data()[i * (k + gap) + p]) * static_cast<double>(x.data()[p * count + j]));
      }
      CHECK(near(static_cast<double>(sums.at(i, j)), expected.value, bound<T>(expected, k)));
    }
  }
  CHECK(w.intact() && x.intact() && sums.intact());
}

TEST(samples_are_products_with_rows_of_weights) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const Index width = kernels::table<T>().tile_cols;
    for (int count = 1; count <= static_cast<int>(width); ++count) {
      for (const Index k : depths(width)) {
        check_samples<T>(count, k, count % 2 == 0, count % 3);
      }
    }
  });
}

TEST(samples_parts_cover_a_panel) {
  both_types([](auto tag) {
    const auto& kernel = kernels::table<decltype(tag)>();
    CHECK(kernel.sample_parts >= 1);
    for (int part = 0; part < kernel.sample_parts; ++part) {
      const int rows =
          kernel.tile_cols * (part + 1) / kernel.sample_parts - kernel.tile_cols * part / kernel.sample_parts;
      CHECK(rows >= 1 && rows <= kernel.tile_rows);
    }
  });
}

TEST(map_weights_reads_each_as_the_rule_does) {
  both_types([](auto tag) {
    using T = decltype(tag);
    for (const kernels::Weights<T>& map : all_weights<T>()) {
      for (const Index n : {1, 2, 7, 8, 15, 16, 17, 33, 100}) {
        say("map_weights: read, n, bytes", static_cast<int>(map.read), n, sizeof(T));
        Random random(static_cast<unsigned>(n));
        Fenced<T> w(1, n), out(1, n, 0);
        w.fill([&] { return random.chance(0.2) ? 0 : random(); });
        kernels::table<T>().map_weights(n, w.data(), map, out.data());
        bool same = true;
        for (Index i = 0; i < n; ++i) {
          same = same && near(static_cast<double>(out.data()[i]), mapped(map, w.data()[i]), 1e-6);
        }
        CHECK(same && w.intact() && out.intact());
      }
    }
  });
}

TEST(tile_reads_weights_where_they_stand) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, k = 37, step = width + 5;
    for (int rows = 1; rows <= kernel.tile_rows; ++rows) {
      say("tile: rows, bytes", rows, sizeof(T));
      Random random(static_cast<unsigned>(rows));
      Fenced<T> left(1, k * rows, 0), apart(1, k * step, 0), packed(k, width, 0), out(rows, width, 0),
          same(rows, width, 0);
      left.fill(random);
      apart.fill(random);
      for (Index p = 0; p < k; ++p) {
        std::copy_n(apart.data() + p * step, width, packed.data() + p * width);
      }
      kernel.tile(rows, k, left.data(), packed.data(), width, false, out.data());
      kernel.tile(rows, k, left.data(), apart.data(), step, false, same.data());
      CHECK(std::equal(out.data(), out.data() + rows * width, same.data()));
      CHECK(out.intact() && same.intact());
    }
  });
}

}  // namespace
}  // namespace pylrp
