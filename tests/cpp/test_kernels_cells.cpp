// Kernels of recurrent layers: few rows against tiles, bit by bit; a step of an LSTM and the way back against long
// double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernel_cases.hpp"
#include "kernels/cells.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

using kernels::Index;

template <class T>
std::vector<T> numbers(Index count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> drawn;
  std::vector<T> made(static_cast<std::size_t>(count));
  std::generate(made.begin(), made.end(), [&] { return static_cast<T>(drawn(random)); });
  return made;
}

// The bits of tiles of one panel.
TEST(few_rows_are_the_products_of_tiles) {
  both_types([](auto type) {
    using T = decltype(type);
    const kernels::Table<T>& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, k = 13;
    for (const Index panels : {1, 4, 7}) {
      const auto panel = numbers<T>(panels * k * width, 1);
      for (int rows = 1; rows <= kernels::kFewRows; ++rows) {
        const Index x_stride = k + 3, stride = panels * width + 5;
        const auto x = numbers<T>(rows * x_stride, 2);
        for (const int halves : {1, 2}) {
          for (const bool add : {false, true}) {
            const auto start = numbers<T>(rows * stride, 3);
            auto wanted = start, found = start;
            for (Index p = 0; p < panels; ++p) {
              const T* at[kernels::kFewRows];
              for (int i = 0; i < rows; ++i) {
                at[i] = x.data() + i * x_stride;
              }
              kernel.tile_taps({.rows = rows,
                                .halves = p + 1 < panels ? 2 : halves,
                                .taps = 1,
                                .k = k,
                                .rows_at = at,
                                .panel = panel.data() + p * k * width,
                                .add = add,
                                .out = wanted.data() + p * width,
                                .out_stride = stride});
            }
            kernels::cells<T>().few_rows({.rows = rows,
                                          .halves = halves,
                                          .k = k,
                                          .x = x.data(),
                                          .x_stride = x_stride,
                                          .panel = panel.data(),
                                          .panel_stride = k * width,
                                          .panels = panels,
                                          .add = add,
                                          .out = found.data(),
                                          .out_stride = stride});
            CHECK(found == wanted);
          }
        }
      }
    }
  });
}

long double sigmoid(long double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }

template <class T>
bool is_near(T found, long double wanted) {
  const long double off = std::abs(static_cast<long double>(found) - wanted);
  return off <= 8 * static_cast<long double>(std::numeric_limits<T>::epsilon()) * std::abs(wanted) +
                    static_cast<long double>(std::numeric_limits<T>::min());
}

// Sums of every size, 0 and those where gates are 0 or 1 among them.
template <class T>
std::vector<T> sums(Index count) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> even(-9, 9), power(-12, 3);
  std::vector<T> z;
  for (Index i = 0; i < count; ++i) {
    const double size = std::exp(2.3 * power(random));
    z.push_back(static_cast<T>(i % 7 == 3 ? 0.0 : (i % 3 ? even(random) : (i % 2 ? -size : size))));
  }
  return z;
}

TEST(a_step_of_an_lstm_is_its_equations) {
  both_types([](auto type) {
    using T = decltype(type);
    for (const Index n : {1, 8, 37}) {
      const std::vector<T> z = sums<T>(4 * n), before = sums<T>(n);
      std::vector<T> h(n), c = before, past(n), outer(n), inner(n), total(n), sum(n);
      kernels::cells<T>().lstm_step({.units = n,
                                     .z = z.data(),
                                     .h = h.data(),
                                     .c = c.data(),
                                     .past = past.data(),
                                     .outer = outer.data(),
                                     .inner = inner.data(),
                                     .total = total.data(),
                                     .sum = sum.data()});
      for (Index j = 0; j < n; ++j) {
        const auto at = [&](Index gate) { return static_cast<long double>(z[gate * n + j]); };
        const long double g = std::tanh(at(3)), i = sigmoid(at(0)), o = sigmoid(at(2));
        const long double first = sigmoid(at(1)) * static_cast<long double>(before[j]), second = i * g;
        // Where the two parts of c cancel, each part's rounding counts.
        const long double room = 8 * static_cast<long double>(std::numeric_limits<T>::epsilon());
        CHECK(std::abs(static_cast<long double>(c[j]) - (first + second)) <=
              room * (std::abs(first) + std::abs(second)) + static_cast<long double>(std::numeric_limits<T>::min()));
        const long double state = static_cast<long double>(c[j]), made = o * std::tanh(state);
        CHECK(is_near(h[j], made));
        CHECK(is_near(past[j], sigmoid(at(1))));
        CHECK(is_near(inner[j], at(3) == 0 ? 0 : i * (g / at(3))));
        CHECK(is_near(outer[j], state == 0 ? 0 : made / state));
        CHECK(total[j] == c[j] && sum[j] == z[3 * n + j]);
      }
    }
  });
}

TEST(saturated_gates_are_zero_and_one) {
  both_types([](auto type) {
    using T = decltype(type);
    const Index n = 9;
    std::vector<T> z(4 * n, T(1000)), h(n), c(n, T(0.5));
    std::fill_n(z.begin(), n, T(-1000));  // i
    kernels::cells<T>().lstm_step({.units = n,
                                   .z = z.data(),
                                   .h = h.data(),
                                   .c = c.data(),
                                   .past = nullptr,
                                   .outer = nullptr,
                                   .inner = nullptr,
                                   .total = nullptr,
                                   .sum = nullptr});
    for (Index j = 0; j < n; ++j) {
      CHECK(c[j] == T(0.5));
      CHECK(is_near(h[j], std::tanh(0.5L)));
    }
  });
}

TEST(the_way_back_through_a_step_of_an_lstm) {
  both_types([](auto type) {
    using T = decltype(type);
    const Index n = 21;
    const std::vector<T> past = sums<T>(n), outer = sums<T>(n), inner = sums<T>(n), c_h = sums<T>(n);
    for (const bool more : {false, true}) {
      std::vector<T> c_c(n, T(0.25)), q(n), sum_q(n, T(2));
      kernels::cells<T>().lstm_back({.units = n,
                                     .past = past.data(),
                                     .outer = outer.data(),
                                     .inner = inner.data(),
                                     .c_h = c_h.data(),
                                     .more = more ? inner.data() : nullptr,
                                     .c_c = c_c.data(),
                                     .q = q.data(),
                                     .sum_q = sum_q.data()});
      for (Index j = 0; j < n; ++j) {
        const long double arrived = static_cast<long double>(c_h[j]) + (more ? static_cast<long double>(inner[j]) : 0);
        const long double part = static_cast<long double>(outer[j]) * arrived, state = 0.25L + part;
        const long double room =
            8 * static_cast<long double>(std::numeric_limits<T>::epsilon()) * (0.25L + std::abs(part)) *
            std::max(1.0L, std::abs(static_cast<long double>(past[j])) + std::abs(static_cast<long double>(inner[j])));
        CHECK(std::abs(static_cast<long double>(q[j]) - static_cast<long double>(inner[j]) * state) <= room);
        CHECK(std::abs(static_cast<long double>(c_c[j]) - static_cast<long double>(past[j]) * state) <= room);
        CHECK(sum_q[j] == T(2) + q[j]);
      }
    }
  });
}

TEST(the_way_back_through_a_step_of_a_gru_or_a_simple_layer) {
  both_types([](auto type) {
    using T = decltype(type);
    const Index n = 21;
    const std::vector<T> past = sums<T>(n), inner = sums<T>(n), reset = numbers<T>(n, 1), before = numbers<T>(n, 2);
    const long double room = 8 * static_cast<long double>(std::numeric_limits<T>::epsilon());
    for (const bool gru : {false, true}) {
      for (const bool more : {false, true}) {
        std::vector<T> c_h = before, q(n), down(n, T(5)), sum_q(n, T(2)), sum_down(n, T(3));
        kernels::cells<T>().state_back({.units = n,
                                        .past = gru ? past.data() : nullptr,
                                        .inner = inner.data(),
                                        .reset = gru ? reset.data() : nullptr,
                                        .more = more ? reset.data() : nullptr,
                                        .c_h = c_h.data(),
                                        .q = q.data(),
                                        .down = down.data(),
                                        .sum_q = sum_q.data(),
                                        .sum_down = sum_down.data()});
        for (Index j = 0; j < n; ++j) {
          const auto of = [&](const std::vector<T>& array) { return static_cast<long double>(array[j]); };
          const long double c = of(before) + (more ? of(reset) : 0), size = std::abs(of(before)) + std::abs(of(reset));
          CHECK(std::abs(of(q) - of(inner) * c) <= room * std::abs(of(inner)) * size);
          CHECK(std::abs(of(c_h) - (gru ? of(past) * c : 0)) <= room * std::abs(of(past)) * size);
          CHECK(std::abs(of(sum_q) - (2 + of(q))) <= room * (2 + std::abs(of(q))));
          CHECK(std::abs(of(down) - (gru ? of(reset) * of(q) : 5)) <= room * (5 + std::abs(of(down))));
          CHECK(std::abs(of(sum_down) - (gru ? 3 + of(down) : 3)) <= room * (3 + std::abs(of(down))));
        }
      }
    }
  });
}

TEST(slopes_are_quotients_and_zero_at_zero) {
  both_types([](auto type) {
    using T = decltype(type);
    for (const Index n : {1, 8, 37}) {
      const std::vector<T> factor = numbers<T>(n, 1), x = sums<T>(n), value = numbers<T>(n, 2);
      std::vector<T> found(n);
      kernels::cells<T>().slopes(n, factor.data(), x.data(), value.data(), found.data());
      for (Index j = 0; j < n; ++j) {
        CHECK(is_near(found[j], x[j] == 0 ? 0.0L
                                          : static_cast<long double>(factor[j]) *
                                                (static_cast<long double>(value[j]) / static_cast<long double>(x[j]))));
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
