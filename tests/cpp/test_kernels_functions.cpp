// exp, sigmoid, tanh and erf of the kernels against long double: the largest error in units in the last place.
#include <cmath>
#include <limits>
#include <random>

#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

using kernels::Function;
using kernels::Index;

constexpr Function kAll[] = {Function::kExp, Function::kSigmoid, Function::kTanh, Function::kErf};

long double exact(Function f, long double x) {
  switch (f) {
    case Function::kExp:
      return std::exp(x);
    case Function::kSigmoid:
      return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
    case Function::kTanh:
      return std::tanh(x);
    case Function::kErf:
      return std::erf(x);
  }
  return 0;
}

// The distance of y from the exact value, in steps of T there.
template <class T>
double steps_off(T y, long double wanted) {
  const T near = static_cast<T>(wanted);
  if (y == near || (std::isinf(near) && std::isinf(y))) {
    return 0;
  }
  const T away = std::nextafter(std::abs(near), std::numeric_limits<T>::infinity());
  const long double step = static_cast<long double>(away) - static_cast<long double>(std::abs(near));
  return static_cast<double>(std::abs(static_cast<long double>(y) - wanted) / step);
}

// Values of every size on both sides of zero, and evenly where the functions bend.
template <class T>
std::vector<T> arguments() {
  std::vector<T> x;
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> even(-20, 20), far(-800, 800), power(-40, 3);
  for (int i = 0; i < 40000; ++i) {
    x.push_back(static_cast<T>(even(random)));
    x.push_back(static_cast<T>(far(random)));
    x.push_back(static_cast<T>((i % 2 ? 1 : -1) * std::exp(2.3 * power(random))));
  }
  for (int i = -4096; i <= 4096; ++i) {
    x.push_back(static_cast<T>(i) / 1024);
  }
  return x;
}

template <class T>
double worst(Function f) {
  const std::vector<T> x = arguments<T>();
  std::vector<T> y(x.size());
  kernels::table<T>().function(f, static_cast<Index>(x.size()), x.data(), y.data());
  double most = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double off = steps_off(y[i], exact(f, static_cast<long double>(x[i])));
    if (!(off <= most)) {
      most = off;
      say("function, argument", static_cast<int>(f), x[i]);
    }
  }
  return most;
}

TEST(functions_within_two_units_in_the_last_place) {
  both_types([](auto type) {
    for (const Function f : kAll) {
      const double most = worst<decltype(type)>(f);
      std::printf("  %zu bytes, function %d: %.3f\n", sizeof type, static_cast<int>(f), most);
      CHECK(most <= 2);
    }
  });
}

TEST(functions_at_the_ends) {
  both_types([](auto type) {
    using T = decltype(type);
    const T infinity = std::numeric_limits<T>::infinity(), none = std::numeric_limits<T>::quiet_NaN();
    const T largest = std::numeric_limits<T>::max(), tiny = std::numeric_limits<T>::denorm_min();
    const std::vector<T> x = {infinity, -infinity, largest, -largest, T(0), -T(0), tiny, -tiny};
    const T wanted[4][8] = {{infinity, 0, infinity, 0, 1, 1, 1, 1},
                            {1, 0, 1, 0, T(0.5), T(0.5), T(0.5), T(0.5)},
                            {1, -1, 1, -1, 0, -T(0), tiny, -tiny},
                            {1, -1, 1, -1, 0, -T(0), tiny, -tiny}};
    for (const Function f : kAll) {
      std::vector<T> y(x.size());
      kernels::table<T>().function(f, 8, x.data(), y.data());
      for (std::size_t i = 0; i < x.size(); ++i) {
        say("function, argument", static_cast<int>(f), x[i]);
        CHECK(y[i] == wanted[static_cast<int>(f)][i]);
        CHECK(std::signbit(y[i]) == std::signbit(wanted[static_cast<int>(f)][i]));
      }
      T not_a_number = 0;
      kernels::table<T>().function(f, 1, &none, &not_a_number);
      CHECK(std::isnan(not_a_number));
    }
  });
}

TEST(functions_in_place_and_in_parts) {
  both_types([](auto type) {
    using T = decltype(type);
    for (Index n = 0; n < 40; ++n) {
      std::vector<T> x(40), whole(40), part(40, T(7));
      for (std::size_t i = 0; i < 40; ++i) {
        x[i] = T(0.37) * static_cast<T>(i) - T(5);
      }
      for (const Function f : kAll) {
        kernels::table<T>().function(f, 40, x.data(), whole.data());
        part = x;
        kernels::table<T>().function(f, n, part.data(), part.data());
        for (std::size_t i = 0; i < 40; ++i) {
          say("function, length, entry", static_cast<int>(f), n, i);
          CHECK(part[i] == (static_cast<Index>(i) < n ? whole[i] : x[i]));
        }
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
