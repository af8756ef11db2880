// Kernels that make shares of relevance: over their own operands, by halves, where lanes are not finite, where sums
// cancel; and that parts of a vector stay within their memory.
#include <algorithm>
#include <limits>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "pages.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

template <class T>
kernels::Shares<T> two_groups(Fenced<T>& bias) {
  kernels::Shares<T> plan{};
  plan.sums = plan.groups = 2;
  plan.plain[0] = plan.plain[1] = 1;
  plan.group[0] = {{1, 0}, bias.data(), bias.data(), 2, T(0.5), 0, false};
  plan.group[1] = {{T(0.5), 1}, nullptr, bias.data(), -1, T(0.25), 0, true};
  return plan;
}
template <class T>
bool same_page(const kernels::Absorbed& a, const kernels::Absorbed& b) {
  return a.bias == b.bias && a.stabilizer == b.stabilizer && a.dead == b.dead;
}

// s of one group over the relevance, masks and all; over a sum, with any number of groups.
TEST(shares_over_their_operands) {
  both_types([](auto tag) {
    using T = decltype(tag);
    constexpr Index rows = 3;
    for (const Index cols : around(kernels::table<T>().tile_cols)) {
      for (const int sums : {1, 2}) {
        for (const int groups : {1, 2}) {
          for (const int mask : {0, 1, -1}) {
            say("shares: cols, sums, groups, mask, bytes", cols, sums, groups, mask, sizeof(T));
            Random random(static_cast<unsigned>(cols));
            Fenced<T> z0(rows, cols), z1(rows, cols), r(rows, cols), bias(1, cols, 0), s0(rows, cols), s1(rows, cols);
            for (Fenced<T>* m : {&z0, &z1, &r, &bias}) {
              m->fill([&] { return random.chance(0.2) ? 0 : random(); });
            }
            kernels::Shares<T> plan = two_groups(bias);
            plan.sums = sums;
            plan.groups = groups;
            plan.masked = mask != 0;
            plan.group[0].mask = mask;
            const auto run = [&](Fenced<T>& z, Fenced<T>& relevance, Fenced<T>& share, kernels::Absorbed* lost) {
              make_shares(plan, z, z1, relevance, share, s1, lost);
            };
            kernels::Absorbed lost[rows] = {}, again[rows] = {};
            run(z0, r, s0, lost);
            const std::vector<T> expected = s0.entries(), second = s1.entries();
            const std::vector<T> relevance = r.entries();
            if (groups == 1) {
              run(z0, r, r, again);
              CHECK(same_bits(expected, r.entries()));
              for (Index i = 0; i < rows; ++i) {
                CHECK(same_page<T>(lost[i], again[i]));
                std::copy_n(relevance.data() + i * cols, cols, r.row(i));
              }
            }
            run(z0, r, z0, nullptr);
            CHECK(same_bits(expected, z0.entries()) && (groups == 1 || same_bits(second, s1.entries())));
          }
        }
      }
    }
  });
}

// Half the sum and half the difference, which halving does not round; nothing else changes.
TEST(shares_rotated) {
  both_types([](auto tag) {
    using T = decltype(tag);
    constexpr Index rows = 3;
    for (const Index cols : around(kernels::table<T>().tile_cols)) {
      say("shares, rotated: cols, bytes", cols, sizeof(T));
      Random random(static_cast<unsigned>(cols));
      Fenced<T> z0(rows, cols), z1(rows, cols), r(rows, cols), bias(1, cols, 0);
      for (Fenced<T>* m : {&z0, &z1, &r, &bias}) {
        m->fill([&] { return random.chance(0.2) ? 0 : random(); });
      }
      kernels::Shares<T> plan = two_groups(bias);
      std::vector<T> s[2][2];
      kernels::Absorbed lost[2][rows] = {};
      for (const bool rotated : {false, true}) {
        for (const bool ledger : {false, true}) {
          plan.half_sum_and_difference = rotated;
          Fenced<T> s0(rows, cols), s1(rows, cols);
          make_shares(plan, z0, z1, r, s0, s1, ledger ? lost[rotated] : nullptr);
          CHECK(!ledger || (same_bits(s[rotated][0], s0.entries()) && same_bits(s[rotated][1], s1.entries())));
          s[rotated][0] = s0.entries();
          s[rotated][1] = s1.entries();
        }
      }
      bool right = true;
      for (std::size_t n = 0; n < s[0][0].size(); ++n) {
        const T a = s[0][0][n], b = s[0][1][n];
        right = right && s[1][0][n] == T(0.5) * a + T(0.5) * b && s[1][1][n] == T(0.5) * a - T(0.5) * b;
      }
      CHECK(right);
      for (Index i = 0; i < rows; ++i) {
        CHECK(same_page<T>(lost[0][i], lost[1][i]));
      }
    }
  });
}

// One page for all rows: the same shares, and the sum of the rows' own pages. Pages are added to.
TEST(shares_with_one_page_for_all_rows) {
  both_types([](auto tag) {
    using T = decltype(tag);
    for (const Index cols : around(kernels::table<T>().tile_cols)) {
      for (const Index rows : {1, 2, 7}) {
        for (const int groups : {1, 2}) {  // the kernel has a way of its own for one sum and one group
          say("shares: cols, rows, groups, bytes", cols, rows, groups, sizeof(T));
          Random random(static_cast<unsigned>(cols));
          Fenced<T> z0(rows, cols), z1(rows, cols), r(rows, cols, 1), bias(1, cols, 0);
          for (Fenced<T>* m : {&z0, &z1, &r, &bias}) {
            m->fill([&] { return random.chance(0.2) ? 0 : random(); });
          }
          kernels::Shares<T> plan{};
          plan.sums = plan.groups = groups;
          plan.masked = groups > 1;
          plan.plain[0] = plan.plain[1] = 1;
          plan.group[0] = {{1, 0}, bias.data(), bias.data(), 2, T(0.5), 0, false};
          plan.group[1] = {{T(0.5), 1}, nullptr, bias.data(), -1, T(0.25), 1, true};
          const auto run = [&](Fenced<T>& s0, Fenced<T>& s1, kernels::Absorbed* ledger, int step) {
            make_shares(plan, z0, z1, r, s0, s1, ledger, step);
            std::vector<T> all = s0.entries();
            const std::vector<T> more = s1.entries();
            all.insert(all.end(), more.begin(), more.end());
            return all;
          };
          Fenced<T> s0(rows, cols), s1(rows, cols);
          s1.fill([] { return 0; });
          kernels::Absorbed start{};
          start.bias = 1;
          start.stabilizer = 2;
          start.dead = 3;
          start.padding = 4;
          start.batchnorm = 5;
          std::vector<kernels::Absorbed> pages(static_cast<std::size_t>(rows), start);
          const std::vector<T> of_rows = run(s0, s1, pages.data(), 1);
          kernels::Absorbed one[] = {start, start};
          s0.reset();
          CHECK(same_bits(of_rows, run(s0, s1, one, 0)));
          CHECK(same_bits(of_rows, run(s0, s1, nullptr, 0)));
          // Sums of at most rows * cols terms, each of the size of r or bias * s.
          Sum64 sizes;
          for (std::size_t n = 0; n < of_rows.size(); ++n) {
            const Index at = static_cast<Index>(n) % (rows * cols);
            sizes.add(4 * std::abs(static_cast<double>(r.at(at / cols, at % cols))) +
                      2 * std::abs(static_cast<double>(of_rows[n])));
          }
          Sum64 bias_sum, stabilizer, dead;
          for (const kernels::Absorbed& page : pages) {
            CHECK(page.padding == start.padding && page.batchnorm == start.batchnorm);
            bias_sum.add(page.bias - start.bias);
            stabilizer.add(page.stabilizer - start.stabilizer);
            dead.add(page.dead - start.dead);
          }
          const double tolerance = bound<T>(sizes, 2 * rows * cols);
          CHECK(near(one[0].bias - start.bias, bias_sum.value, tolerance));
          CHECK(near(one[0].stabilizer - start.stabilizer, stabilizer.value, tolerance));
          CHECK(near(one[0].dead - start.dead, dead.value, tolerance));
          CHECK(rows * cols < 10 || (bias_sum.size > 10 * tolerance && stabilizer.size > 10 * tolerance));
          CHECK(one[0].padding == start.padding && one[0].batchnorm == start.batchnorm);
          CHECK(one[1].bias == start.bias && one[1].stabilizer == start.stabilizer &&
                one[1].dead == start.dead);  // nothing beyond the page
        }
      }
    }
  });
}

// Where one lane is not finite all go the careful way: the others get the same bits, it gets what it gets alone.
TEST(shares_beside_what_is_not_finite) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    const T most = std::ldexp(T(1), std::numeric_limits<T>::max_exponent - 8), least = std::numeric_limits<T>::min();
    struct Case {
      T r, z, s;  // s: expected, NaN means NaN
    };
    const Case cases[] = {{3, 0, 0},           {0, 0, 0},     {most, least, 0}, {1, nan, nan},
                          {1, -infinity, nan}, {nan, 1, nan}, {0, infinity, 0}};
    const Index cols = kernels::table<T>().tile_cols + 3;
    for (const Case& c : cases) {
      for (const int groups : {1, 2}) {
        for (const bool masked : {false, true}) {
          say("shares, not finite: case, groups, masked, bytes", &c - cases, groups, masked, sizeof(T));
          if (masked && std::isnan(c.r)) {
            continue;
          }
          Random random(5);
          Fenced<T> z(1, cols), r(1, cols), s0(1, cols), s1(1, cols);
          z.fill([&] { return random(0.5, 1); });
          r.fill(random);
          kernels::Shares<T> plan{};
          plan.sums = 1;
          plan.groups = groups;
          plan.masked = masked;
          plan.plain[0] = 1;
          for (int g = 0; g < 2; ++g) {
            plan.group[g].coef[0] = 1;
            plan.group[g].coefficient = T(1) / static_cast<T>(groups);
          }
          const auto run = [&](kernels::Absorbed* lost) {
            make_shares(plan, z, z, r, s0, s1, lost);
            return (groups == 2 ? s1 : s0).entries();
          };
          kernels::Absorbed lost{};
          const std::vector<T> all_finite = run(&lost);
          CHECK(lost.dead == 0 && lost.stabilizer == 0);
          for (Index at = 0; at < cols; ++at) {
            const T z_kept = z.at(0, at), r_kept = r.at(0, at);
            z.at(0, at) = c.z;
            r.at(0, at) = c.r;
            for (const bool ledger : {false, true}) {
              lost = {};
              std::vector<T> found = run(ledger ? &lost : nullptr);
              T& mine = found[static_cast<std::size_t>(at)];
              const bool shown = std::isnan(c.s) ? std::isnan(mine) : mine == c.s;
              CHECK(shown);
              mine = all_finite[static_cast<std::size_t>(at)];
              CHECK(same_bits(all_finite, found));
              CHECK(!ledger || !std::isfinite(c.r) || !std::isfinite(c.z) || lost.dead == static_cast<double>(c.r));
            }
            z.at(0, at) = z_kept;
            r.at(0, at) = r_kept;
          }
        }
      }
    }
  });
}

TEST(cancelled_finds_what_is_small_beside_its_terms) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    constexpr Index rows = 3;
    for (const Index cols : around(kernel.tile_cols)) {
      for (const double chance : {0.0, 0.1, 1.0}) {
        Random random(static_cast<unsigned>(cols));
        Fenced<T> first(rows, cols), second(rows, cols);
        std::vector<Index> expected;
        second.fill([&] { return random(0.5, 2); });
        for (Index i = 0; i < rows; ++i) {
          for (Index j = 0; j < cols; ++j) {
            T& whole = second.at(i, j);
            const T limit = whole * T(31.0 / 32), sign = random.chance(0.5) ? T(1) : T(-1);
            if (random.chance(chance)) {
              first.at(i, j) = sign * (random.chance(0.5) ? std::nextafter(limit, T(9)) : whole);
              expected.push_back(i * cols + j);
            } else {
              first.at(i, j) = sign * (random.chance(0.5) ? limit : whole / 2);
              if (random.chance(0.2)) {  // nothing meets
                first.at(i, j) = whole = 0;
              }
            }
          }
        }
        const Index all = static_cast<Index>(expected.size());
        for (const Index most : {Index{0}, all / 2, all, rows * cols}) {
          say("cancelled: cols, all, most, bytes", cols, all, most, sizeof(T));
          Fenced<Index> at(1, most, 0);
          CHECK(kernel.cancelled(rows, cols, first.data(), second.data(), first.stride(), most, at.data()) == all);
          CHECK(std::equal(at.data(), at.data() + std::min(most, all), expected.begin()));
          CHECK(at.intact() && first.intact() && second.intact());
        }
      }
    }
  });
}

// A part of a vector whose other lanes lie on a page that nobody may read or write.
TEST(parts_of_vectors_stay_on_their_page) {
  const GuardedPages pages;
  char* const from_end = pages.first_end();
  char* const to_end = pages.second_end();
  both_types([&](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    for (Index n = 1; n <= 2 * kernel.tile_cols; ++n) {
      say("page: n, bytes", n, sizeof(T));
      T* const from = reinterpret_cast<T*>(from_end) - n;
      T* const to = reinterpret_cast<T*>(to_end) - n;
      for (Index i = 0; i < n; ++i) {
        from[i] = static_cast<T>(i + 1);
      }
      to[-1] = 99;
      const auto holds = [&](T factor) {
        bool right = to[-1] == 99;
        for (Index i = 0; i < n; ++i) {
          right = right && to[i] == factor * static_cast<T>(i + 1) * (factor < 0 ? static_cast<T>(-i - 1) : T(1));
        }
        return right;
      };
      kernel.part_of(n, from, 1, to);
      CHECK(holds(1));
      kernel.accumulate({.rows = 1,
                         .cols = n,
                         .mixed = {1, {from}, {{1, 0, 0, 0, 0, 0}}},
                         .acc_stride = n,
                         .a = from,
                         .a_stride = n,
                         .low = nullptr,
                         .high = nullptr,
                         .bound_stride = 0,
                         .add = false,
                         .out = to,
                         .out_stride = n});
      CHECK(holds(-1));
      kernel.depthwise(
          {.rows = 1, .taps = 1, .n = n, .at = &from, .step = 0, .w = &from, .add = false, .out = to, .out_stride = n});
      CHECK(holds(-1));
      kernel.depthwise_line({.lines = 1,
                             .taps = 1,
                             .scale = 1,
                             .rows = 1,
                             .n = n,
                             .at = &from,
                             .first = 0,
                             .pixels = 1,
                             .step = 0,
                             .w = &from,
                             .w_step = 0,
                             .out = to,
                             .out_stride = n});
      CHECK(holds(-1));
      kernel.finish({.rows = 1,
                     .cols = n,
                     .acc = from,
                     .acc_stride = n,
                     .bias = from,
                     .low = T(0),
                     .high = T(1e9),
                     .out = to,
                     .out_stride = n});
      CHECK(holds(2));
    }
  });
}

}  // namespace
}  // namespace pylrp
