// The kernels of pools, and the sum that an output and the other sum leave; for the instruction set that PYLRP_ISA
// names.
#include <algorithm>
#include <limits>
#include <memory>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

// Rows of a window, in any order and some twice, of few different values: most columns have ties.
template <class T>
struct Window {
  Fenced<T> x;
  std::vector<const T*> at;

  Window(Index n, int count) : x(count + 2, n) {
    Random random(static_cast<unsigned>(10 * n + count));
    x.fill([&] { return std::floor(random(-2, 2)); });
    for (Index w = 0; w < count; ++w) {
      at.push_back(x.row((5 * w + 1) % x.rows()));
    }
  }
  T operator()(Index w, Index j) const { return at[static_cast<std::size_t>(w)][j]; }
  int count() const { return static_cast<int>(at.size()); }
};

template <class F>
void each_window(F test) {
  both_types([&](auto tag) {
    using T = decltype(tag);
    for (const Index n : around(kernels::table<T>().tile_cols)) {
      for (const int count : {1, 2, 3, 9, 50}) {
        Window<T> window(n, count);
        test(window, n, T{});
        CHECK(window.x.intact());
      }
    }
  });
}

TEST(pool_rows_has_the_maximum) {
  each_window([](auto& window, Index n, auto tag) {
    using T = decltype(tag);
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    say("pool_rows, maximum: n, rows, bytes", n, window.count(), sizeof(T));
    // A NaN first, last, or in the middle; infinities.
    const auto put = [&](Index w, Index j, T v) { const_cast<T*>(window.at[static_cast<std::size_t>(w)])[j] = v; };
    for (const Index w : {Index{0}, Index{window.count() / 2}, Index{window.count() - 1}}) {
      for (const T special : {nan, infinity, -infinity}) {
        const Index j = (3 * w + (special > 0 ? 1 : 0)) % n;
        const T before = window(w, j);
        put(w, j, special);
        Fenced<T> out(1, n, 0);
        kernels::table<T>().pool_rows(window.count(), window.at.data(), n, true, 7, out.data());
        bool right = true;
        for (Index k = 0; k < n; ++k) {
          T most = window(0, k);
          for (Index v = 1; v < window.count(); ++v) {
            most = std::isnan(window(v, k)) || window(v, k) > most ? window(v, k) : most;
          }
          right = right && (std::isnan(most) ? std::isnan(out.at(0, k)) : out.at(0, k) == most);
        }
        CHECK(right && std::isnan(out.at(0, j)) == std::isnan(special));
        CHECK(out.intact());
        put(w, j, before);
      }
    }
  });
}

TEST(pool_rows_has_the_mean) {
  each_window([](auto& window, Index n, auto tag) {
    using T = decltype(tag);
    say("pool_rows, mean: n, rows, bytes", n, window.count(), sizeof(T));
    Random random(4);
    window.x.fill([&] { return random(); });
    *const_cast<T*>(&window.at.back()[n / 2]) = std::numeric_limits<T>::quiet_NaN();
    for (const double divisor : {1.0, 3.0, 50.0}) {  // the window's places, some of them outside
      Fenced<T> out(1, n, 0);
      kernels::table<T>().pool_rows(window.count(), window.at.data(), n, false, static_cast<T>(divisor), out.data());
      bool right = true;
      for (Index j = 0; j < n; ++j) {
        Sum64 expected;
        for (Index w = 0; w < window.count(); ++w) {
          expected.add(static_cast<double>(window(w, j)) / divisor);
        }
        right = right && (std::isnan(expected.value) ? j == n / 2 && std::isnan(out.at(0, j))
                                                     : near(static_cast<double>(out.at(0, j)), expected.value,
                                                            bound<T>(expected, window.count())));
      }
      CHECK(right);
      CHECK(out.intact());
    }
  });
}

// Exact: what the first of the largest gets, and what it had.
TEST(to_winner_is_the_first_of_ties) {
  each_window([](auto& window, Index n, auto tag) {
    using T = decltype(tag);
    const T nan = std::numeric_limits<T>::quiet_NaN();
    Random random(5);
    // Whatever compares with NaN is not larger: a window that begins with one goes to its first row.
    *const_cast<T*>(&window.at.back()[n / 3]) = nan;
    *const_cast<T*>(&window.at.front()[2 * n / 3]) = nan;
    Fenced<T> r(1, n, 0), to(window.count(), n, 1), before(window.count(), n);
    r.fill(random);
    r.at(0, n - 1) = 0;
    before.fill(random);
    for (const bool add : {false, true}) {
      say("to_winner: n, rows, add, bytes", n, window.count(), add, sizeof(T));
      to.reset();
      std::vector<T*> rows;
      for (Index w = 0; w < window.count(); ++w) {
        if (add) {
          std::copy_n(before.row(w), n, to.row(w));
        }
        rows.push_back(to.row(w));
      }
      kernels::table<T>().to_winner(window.count(), window.at.data(), n, r.data(), add, rows.data());
      bool right = true;
      for (Index j = 0; j < n; ++j) {
        Index winner = 0;
        for (Index w = 1; w < window.count(); ++w) {
          winner = window(w, j) > window(winner, j) ? w : winner;
        }
        for (Index w = 0; w < window.count(); ++w) {
          const T part = w == winner ? r.at(0, j) : T(0);
          right = right && to.at(w, j) == (add ? before.at(w, j) + part : part);
        }
      }
      CHECK(right);
      CHECK(to.intact() && r.intact());
    }
  });
}

// What the output leaves, in the order that the table states; entries are cancelled by the rule and by nothing else.
TEST(left_over_and_what_cancelled) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const T nan = std::numeric_limits<T>::quiet_NaN();
    Index seen = 0, sure = 0;
    for (const Index cols : around(kernels::table<T>().tile_cols)) {
      for (const Index rows : {1, 2, 5}) {
        Random random(static_cast<unsigned>(cols + rows));
        Fenced<T> z(rows, cols), first(rows, cols, 1), bias(1, cols, 0), out(rows, cols, 5);
        for (const int kind : {0, 1, 2, 3}) {  // some cancel, all do, none does, or only before the bias
          first.fill([&] { return random(1, 2) * (random.chance(0.5) ? 1 : -1); });
          bias.fill([&] { return random.chance(0.3) ? 0 : (kind == 3 ? random(32, 64) : random()); });
          for (const bool with_bias : {false, true}) {
            say("rest: cols, rows, kind, bias, bytes", cols, rows, kind, with_bias, sizeof(T));
            for (Index i = 0; i < rows; ++i) {
              for (Index j = 0; j < cols; ++j) {
                const bool cancels = kind == 1 || (kind == 0 && random.chance(0.3));
                const T left = first.at(i, j) * static_cast<T>(cancels ? random(-0.06, 0.06) : random(0.07, 2));
                z.at(i, j) = first.at(i, j) + left + (with_bias ? bias.at(0, j) : T(0));
              }
            }
            if (kind == 0) {  // at the limit, zero outputs, nothing left, NaN
              const auto at = [&](Index n) { return std::make_pair(n % rows, n * 3 % cols); };
              const auto put = [&](Index n, T value, T of_first) {
                const auto [i, j] = at(n);
                first.at(i, j) = of_first;
                z.at(i, j) = with_bias && bias.at(0, j) != 0 ? z.at(i, j) : value;
              };
              put(0, T(17), T(16));
              put(1, T(-17.00390625), T(-16));
              put(2, T(16.99609375), T(16));
              put(3, T(3), T(3));
              put(4, T(0), T(-1e-3));
              put(5, nan, T(1));
              put(6, T(1), nan);
              put(7, T(0), T(0));
              if (with_bias) {  // all cancels, but behind a ReLU that cut it off no one asks
                bias.at(0, cols - 1) = T(0.75);
                first.at(rows - 1, cols - 1) = T(-0.765625);
                z.at(rows - 1, cols - 1) = 0;
              }
            }
            out.reset();
            std::vector<Index> cancelled(static_cast<std::size_t>(rows * cols + 1), -1);
            const Index count = kernels::table<T>().left_over({.rows = rows,
                                                               .cols = cols,
                                                               .z = z.data(),
                                                               .z_stride = z.stride(),
                                                               .bias = with_bias ? bias.data() : nullptr,
                                                               .first = first.data(),
                                                               .first_stride = first.stride(),
                                                               .out = out.data(),
                                                               .out_stride = out.stride(),
                                                               .cancelled_at = cancelled.data()});
            std::vector<Index> expected;
            bool right = true;
            for (Index i = 0; i < rows; ++i) {
              for (Index j = 0; j < cols; ++j) {
                const T whole = with_bias ? z.at(i, j) - bias.at(0, j) : z.at(i, j), left = whole - first.at(i, j);
                right = right && (std::isnan(left) ? std::isnan(out.at(i, j)) : out.at(i, j) == left);
                const T offset = with_bias ? bias.at(0, j) : T(0);
                const bool little =
                    std::abs(left) < std::abs(first.at(i, j)) / 16 || 64 * std::abs(left) < std::abs(offset);
                if (little && z.at(i, j) != 0) {
                  expected.push_back(i * cols + j);
                } else {
                  ++sure;
                }
              }
            }
            CHECK(right);
            CHECK(count == static_cast<Index>(expected.size()));
            expected.resize(cancelled.size(), -1);  // and nothing is written beyond them
            CHECK(cancelled == expected);
            CHECK(out.intact() && z.intact() && first.intact() && bias.intact());
            seen += count;
          }
        }
      }
    }
    CHECK(seen > 100 && sure > 100);
  });
}

}  // namespace
}  // namespace pylrp
