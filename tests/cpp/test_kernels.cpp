// Each function of the kernels' table, for the instruction set that PYLRP_ISA names.
#include <algorithm>
#include <limits>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

TEST(tile_is_a_product) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols;
    for (int rows = 1; rows <= kernel.tile_rows; ++rows) {
      for (const Index k : depths(width)) {
        Random random(static_cast<unsigned>(k));
        Fenced<T> left(1, k * rows, 0), panel(k, width, 0), out(rows, width, 0);
        left.fill(random);
        panel.fill(random);
        for (const bool add : {false, true}) {
          say("tile: rows, k, add, bytes", rows, k, add, sizeof(T));
          Fenced<T> before(rows, width, 0);
          before.fill(random);
          out.reset();
          if (add) {
            std::copy_n(before.data(), rows * width, out.data());
          }
          kernel.tile(rows, k, left.data(), panel.data(), width, add, out.data());
          for (Index i = 0; i < rows; ++i) {
            for (Index j = 0; j < width; ++j) {
              Sum64 expected;
              expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
              for (Index p = 0; p < k; ++p) {
                expected.add(static_cast<double>(left.data()[p * rows + i]) * static_cast<double>(panel.at(p, j)));
              }
              CHECK(near(static_cast<double>(out.at(i, j)), expected.value, bound<T>(expected, k)));
            }
          }
          CHECK(out.intact() && left.intact() && panel.intact());
        }
      }
    }
  });
}

TEST(pack_left_transposes) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    for (int rows = 1; rows <= kernel.tile_rows; ++rows) {
      for (const Index k : depths(kernel.tile_cols)) {
        Fenced<T> x(rows, k), left(1, rows * k + kernels::kSpare, 0);
        Random random(static_cast<unsigned>(k));
        x.fill([&] { return random.chance(0.2) ? 0 : random(); });
        for (const int part : {-1, 0, 1}) {
          say("pack_left: rows, k, part, bytes", rows, k, part, sizeof(T));
          left.reset();
          kernel.pack_left(rows, k, x.data(), x.stride(), part, left.data());
          bool same = true;
          for (Index i = 0; i < rows; ++i) {
            for (Index p = 0; p < k; ++p) {
              const T v = x.at(i, p);
              same = same &&
                     left.data()[p * rows + i] == (part == 0 ? v : (part > 0 ? std::max(v, T(0)) : std::min(v, T(0))));
            }
          }
          CHECK(same);
          CHECK(left.intact() && x.intact());
        }
      }
    }
  });
}

// Every entry of a panel, and zeros' image where there are fewer columns than it has.
template <class T>
void check_panel(bool forward) {
  const auto& kernel = kernels::table<T>();
  const Index width = kernel.tile_cols;
  for (Index cols = 1; cols <= width; ++cols) {
    for (const Index k : {Index{1}, width / 2 - 1, width / 2, width / 2 + 1, 3 * width, Index{37}, Index{257}}) {
      if (k == 0) {
        continue;
      }
      Fenced<T> w(forward ? cols : k, forward ? k : cols), panel(k, width, 0);
      w.fill(Random(static_cast<unsigned>(k)));
      for (const auto& map : all_weights<T>()) {
        say("panel: cols, k, map, bytes", cols, k, static_cast<int>(map.read), sizeof(T));
        panel.reset();
        (forward ? kernel.pack_forward : kernel.pack_backward)(static_cast<int>(cols), k, w.data(), w.stride(), map,
                                                               panel.data(), width);
        bool right = true;
        for (Index p = 0; p < k; ++p) {
          for (Index j = 0; j < width; ++j) {
            const double expected = mapped(map, j >= cols ? T(0) : (forward ? w.at(j, p) : w.at(p, j)));
            right = right && near(static_cast<double>(panel.at(p, j)), expected, 2 * kUnit<T> * std::abs(expected));
          }
        }
        CHECK(right);
        CHECK(panel.intact() && w.intact());
      }
    }
  }
}
TEST(pack_forward_maps_and_transposes) {
  check_panel<float>(true);
  check_panel<double>(true);
}
TEST(pack_backward_maps) {
  check_panel<float>(false);
  check_panel<double>(false);
}

// Rows in any order, some twice: the kernels take pointers.
template <class T>
std::vector<const T*> some_rows(Fenced<T>& w, Index count) {
  std::vector<const T*> rows;
  for (Index r = 0; r < count; ++r) {
    rows.push_back(w.row((5 * r + 1) % w.rows()));
  }
  return rows;
}

TEST(rows_dot_and_axpy) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    for (const Index count : {1, 2, 3, 4, 5, 8, 11}) {
      for (const Index k : depths(kernel.tile_cols)) {
        Random random(static_cast<unsigned>(k + count));
        Fenced<T> w(7, k), x(1, k, 0), z(1, count, 0), c(1, k, 0), s(1, count, 0), start(1, std::max(k, count), 0);
        w.fill(random);
        x.fill(random);
        s.fill(random);
        start.fill(random);
        const std::vector<const T*> rows = some_rows(w, count);
        for (const auto& map : all_weights<T>()) {
          say("rows: rows, k, map, bytes", count, k, static_cast<int>(map.read), sizeof(T));
          for (const bool ones : {false, true}) {
            std::copy_n(start.data(), count, z.data());
            kernel.rows.dot(static_cast<int>(count), rows.data(), k, map, ones ? nullptr : x.data(), z.data(), ones);
            for (Index r = 0; r < count; ++r) {
              Sum64 expected;
              expected.add(static_cast<double>(start.at(0, r)));
              for (Index p = 0; p < k; ++p) {
                expected.add(mapped(map, rows[static_cast<std::size_t>(r)][p]) *
                             (ones ? 1 : static_cast<double>(x.at(0, p))));
              }
              CHECK(near(static_cast<double>(z.at(0, r)), expected.value, bound<T>(expected, k)));
            }
          }
          std::copy_n(start.data(), k, c.data());
          kernel.rows.axpy(static_cast<int>(count), rows.data(), k, map, s.data(), c.data(), count % 2 == 0);
          for (Index p = 0; p < k; ++p) {
            Sum64 expected;
            expected.add(static_cast<double>(start.at(0, p)));
            for (Index r = 0; r < count; ++r) {
              expected.add(mapped(map, rows[static_cast<std::size_t>(r)][p]) * static_cast<double>(s.at(0, r)));
            }
            CHECK(near(static_cast<double>(c.at(0, p)), expected.value, bound<T>(expected, count)));
          }
          CHECK(w.intact() && x.intact() && z.intact() && c.intact() && s.intact());
        }
      }
    }
  });
}

// What the whole layer does with shares is in test_layers.cpp; here are the values where they are decided.
template <class T>
T share_of(T r, T z, T epsilon, bool where_zero, kernels::Absorbed* absorbed) {
  kernels::Shares<T> plan{};
  plan.sums = plan.groups = 1;
  plan.group[0].coef[0] = plan.group[0].coefficient = 1;
  plan.group[0].epsilon = epsilon;
  plan.group[0].where_zero = where_zero;
  const Index cols = kernels::table<T>().tile_cols + 1;
  Fenced<T> zs(1, cols), rs(1, cols), ss(1, cols);
  zs.fill([&] { return z; });
  rs.fill([&] { return r; });
  *absorbed = {};
  make_shares(plan, zs, zs, rs, ss, ss, absorbed);
  for (Index j = 1; j < cols; ++j) {  // the tail does what whole vectors do
    CHECK(std::memcmp(&ss.at(0, j), &ss.at(0, 0), sizeof(T)) == 0);
  }
  absorbed->dead /= static_cast<double>(cols);
  absorbed->stabilizer /= static_cast<double>(cols);
  return ss.at(0, 0);
}

TEST(shares_at_the_edges) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    const T most = std::ldexp(T(1), std::numeric_limits<T>::max_exponent - 8), least = std::numeric_limits<T>::min();
    kernels::Absorbed lost;
    say("shares: bytes", sizeof(T));
    // z < 0 ? z - eps : z + eps; minus zero counts as zero
    CHECK(share_of<T>(1, 0, T(0.5), false, &lost) == 2 && lost.dead == 1 && lost.stabilizer == 0);
    CHECK(share_of<T>(1, T(-0.0), T(0.5), false, &lost) == 2 && lost.dead == 1);
    CHECK(share_of<T>(1, T(-1.5), T(0.5), false, &lost) == T(-0.5) && lost.stabilizer == 0.25 && lost.dead == 0);
    CHECK(share_of<T>(1, T(1.5), T(0.5), false, &lost) == T(0.5) && lost.stabilizer == 0.25);
    // z == 0 ? eps : z
    CHECK(share_of<T>(1, 0, T(0.5), true, &lost) == 2);
    CHECK(share_of<T>(1, T(-0.0), T(0.5), true, &lost) == 2);
    CHECK(share_of<T>(1, T(-2), T(0.5), true, &lost) == T(-0.5) && lost.stabilizer == 0);
    // nobody receives
    CHECK(share_of<T>(3, 0, 0, false, &lost) == 0 && lost.dead == 3);
    CHECK(share_of<T>(3, T(-0.0), 0, false, &lost) == 0 && lost.dead == 3);
    CHECK(share_of<T>(0, 5, 0, false, &lost) == 0 && lost.dead == 0);
    // the quotient overflows
    CHECK(share_of<T>(most, least, 0, false, &lost) == 0 && lost.dead == static_cast<double>(most));
    CHECK(share_of<T>(-most, least, 0, false, &lost) == 0);
    // what is not finite shows up
    CHECK(std::isnan(share_of<T>(1, nan, 0, false, &lost)));
    CHECK(std::isnan(share_of<T>(1, infinity, 0, false, &lost)));
    CHECK(std::isnan(share_of<T>(nan, 1, 0, false, &lost)));
  });
}

// Two groups, one for each sign of the plain output Z_0 + Z_1 + base; where that is zero neither serves.
TEST(shares_with_masks) {
  both_types([](auto tag) {
    using T = decltype(tag);
    kernels::Shares<T> plan{};
    plan.sums = plan.groups = 2;
    plan.masked = true;
    plan.plain[0] = plan.plain[1] = 1;
    plan.group[0] = {{T(1.25), 1}, nullptr, nullptr, 1, 0, 1, false};
    plan.group[1] = {{1, T(1.25)}, nullptr, nullptr, 1, 0, -1, false};
    const Index cols = kernels::table<T>().tile_cols + 1;
    Fenced<T> base(1, cols), r(1, cols), z0(1, cols), z1(1, cols), s0(1, cols), s1(1, cols);
    r.fill([] { return 1; });
    base.fill([] { return T(0.5); });
    struct Case {
      double z0, z1, s0, s1, dead;
    };
    for (const bool with_base : {false, true}) {
      plan.plain_base = with_base ? base.data() : nullptr;
      const double b = with_base ? 0.5 : 0;  // not in the denominators
      for (const Case& c : {Case{2, -1 - b, 1 / (1.5 - b), 0, 0}, Case{1, -2 - b, 0, 1 / (-1.5 - 1.25 * b), 0},
                            Case{2, -2 - b, 0, 0, 1}, Case{0, -b, 0, 0, 1}}) {
        say("masks: bytes, base", sizeof(T), with_base);
        z0.fill([&] { return c.z0; });
        z1.fill([&] { return c.z1; });
        kernels::Absorbed lost{};
        make_shares(plan, z0, z1, r, s0, s1, &lost);
        for (Index j = 0; j < cols; ++j) {
          CHECK(near(static_cast<double>(s0.at(0, j)), c.s0, 2 * kUnit<T> * std::abs(c.s0)));
          CHECK(near(static_cast<double>(s1.at(0, j)), c.s1, 2 * kUnit<T> * std::abs(c.s1)));
        }
        CHECK(lost.dead == c.dead * static_cast<double>(cols) && lost.stabilizer == 0);
      }
    }
  });
}

TEST(sum_and_scan) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    CHECK(kernel.scan(0, nullptr) == 0 && kernel.sum(0, nullptr) == 0);
    for (const Index n : depths(kernel.tile_cols)) {
      say("scan: n, bytes", n, sizeof(T));
      Fenced<T> x(1, n, 0);
      Random random(1);
      x.fill([&] { return random(0, 1); });
      Sum64 expected;
      for (Index i = 0; i < n; ++i) {
        expected.add(static_cast<double>(x.at(0, i)));
      }
      CHECK(near(kernel.sum(n, x.data()), expected.value, bound<double>(expected, n)));
      CHECK(kernel.scan(n, x.data()) == 0);
      bool seen = true;
      for (Index i = 0; i < n; ++i) {
        const T kept = x.at(0, i);
        const auto flags = [&](T value) {
          x.at(0, i) = value;
          return kernel.scan(n, x.data());
        };
        const T infinity = std::numeric_limits<T>::infinity();
        seen = seen && flags(T(-1)) == kernels::kHasNegative && flags(T(-0.0)) == 0;
        seen = seen && flags(std::numeric_limits<T>::quiet_NaN()) == kernels::kNotFinite &&
               flags(infinity) == kernels::kNotFinite;
        seen = seen && flags(-infinity) == (kernels::kNotFinite | kernels::kHasNegative);
        x.at(0, i) = kept;
      }
      CHECK(seen);
    }
  });
}

TEST(peak_counts_its_work) {
  float sink[2] = {0.5f, 0.25f};
  CHECK(kernels::table<float>().peak(100, sink) == 2.0 * 100 * 12 * kernels::table<float>().tile_cols / 2);
  CHECK(std::isfinite(sink[0]));
}

}  // namespace
}  // namespace pylrp
