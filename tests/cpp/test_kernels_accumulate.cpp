// The kernel that multiplies what comes back with parts of the input, for the instruction set that PYLRP_ISA names.
#include <algorithm>

#include "check.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "reference.hpp"

namespace pylrp {
namespace {

TEST(accumulate_mixes_parts) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const kernels::Mix<T> mixes[] = {{1, 0, 0, 0, 0, 0},   {0, 1, 0, 0, 0, 0},       {0, 0, 1, 0, 0, 0},
                                     {0, 0, 0, 1, 0, 0},   {0, 0, 0, 0, 1, 0},       {0, 0, 0, 0, 0, -1},
                                     {1, 0, 0, 0, -1, -1}, {2, 3, -1, T(0.5), -2, 4}};
    for (const Index cols : depths(kernel.tile_cols)) {
      for (const Index rows : {1, 3}) {
        Random random(static_cast<unsigned>(cols));
        Fenced<T> acc(rows, cols), a(rows, cols, 1), low(1, cols), high(1, cols), out(rows, cols), start(rows, cols);
        for (Fenced<T>* m : {&acc, &a, &low, &high, &start}) {
          m->fill(random);
        }
        for (const auto& mix : mixes) {
          const bool reads = mix.input != 0 || mix.positive != 0 || mix.negative != 0;
          for (const bool add : {false, true}) {
            say("accumulate: rows, cols, mix, add, bytes", rows, cols, &mix - mixes, add, sizeof(T));
            out.reset();
            for (Index i = 0; add && i < rows; ++i) {
              std::copy_n(start.row(i), cols, out.row(i));
            }
            kernel.accumulate({.rows = rows,
                               .cols = cols,
                               .mixed = {1, {acc.data()}, {mix}},
                               .acc_stride = acc.stride(),
                               .a = reads ? a.data() : nullptr,
                               .a_stride = a.stride(),
                               .low = mix.low != 0 ? low.data() : nullptr,
                               .high = mix.high != 0 ? high.data() : nullptr,
                               .bound_stride = 0,
                               .add = add,
                               .out = out.data(),
                               .out_stride = out.stride()});
            bool right = true;
            for (Index i = 0; i < rows; ++i) {
              for (Index j = 0; j < cols; ++j) {
                const double x = static_cast<double>(a.at(i, j)), c = static_cast<double>(acc.at(i, j));
                Sum64 expected;
                expected.add(add ? static_cast<double>(start.at(i, j)) : 0);
                expected.add(c * static_cast<double>(mix.input) * x);
                expected.add(c * static_cast<double>(mix.positive) * std::max(x, 0.0));
                expected.add(c * static_cast<double>(mix.negative) * std::min(x, 0.0));
                expected.add(c * static_cast<double>(mix.one));
                expected.add(c * static_cast<double>(mix.low) * static_cast<double>(low.at(0, j)));
                expected.add(c * static_cast<double>(mix.high) * static_cast<double>(high.at(0, j)));
                right = right && near(static_cast<double>(out.at(i, j)), expected.value, bound<T>(expected, 6));
              }
            }
            CHECK(right);
            CHECK(out.intact() && acc.intact() && a.intact() && low.intact() && high.intact());
          }
        }
      }
    }
  });
}

template <class T>
double mixed_with(const kernels::Mix<T>& mix, double x) {
  return static_cast<double>(mix.input) * x + static_cast<double>(mix.positive) * std::max(x, 0.0) +
         static_cast<double>(mix.negative) * std::min(x, 0.0) + static_cast<double>(mix.one);
}

// One to many sums with parts of the input only, or with constants, too; and over the input itself.
TEST(accumulate_several_sums) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    constexpr Index rows = 3;
    for (const Index cols : around(kernel.tile_cols)) {
      for (const int count : {0, 1, 2, 3, 4, kernels::kMaxBacks}) {
        for (const bool constants : {false, true}) {
          Random random(static_cast<unsigned>(cols + count));
          Fenced<T> acc(kernels::kMaxBacks * rows, cols), a(rows, cols, 1), low(rows, cols), high(rows, cols),
              start(rows, cols, 1);
          for (Fenced<T>* m : {&acc, &a, &low, &high, &start}) {
            m->fill([&] { return random.chance(0.1) ? 0 : random(); });
          }
          kernels::Mixed<T> mixed;
          mixed.count = count;
          const T one = constants ? T(0.5) : T(0);
          for (int b = 0; b < count; ++b) {
            mixed.acc[b] = acc.row(b * rows);
            const kernels::Mix<T> mixes[] = {
                {1, 0, 0, one, 0, 0}, {0, 1, -1, 0, 0, 0}, {0, 0, 2, 0, one, -3 * one}, {-2, 3, 0, 0, 0, 0}};
            mixed.mix[b] = mixes[b % 4];
          }
          for (const bool add : {false, true}) {
            for (const bool over : {false, true}) {
              say("accumulate: cols, sums, constants, add, over, bytes", cols, count, constants, add, over, sizeof(T));
              const bool bounds = constants && count > 2;
              Fenced<T> out(rows, cols, 1);
              for (Index i = 0; i < rows && (over || add); ++i) {
                std::copy_n(over ? a.row(i) : start.row(i), cols, out.row(i));
              }
              kernel.accumulate({.rows = rows,
                                 .cols = cols,
                                 .mixed = mixed,
                                 .acc_stride = acc.stride(),
                                 .a = over ? out.data() : a.data(),
                                 .a_stride = a.stride(),
                                 .low = bounds ? low.data() : nullptr,
                                 .high = bounds ? high.data() : nullptr,
                                 .bound_stride = low.stride(),
                                 .add = add,
                                 .out = out.data(),
                                 .out_stride = out.stride()});
              bool right = true;
              for (Index i = 0; i < rows; ++i) {
                for (Index j = 0; j < cols; ++j) {
                  Sum64 expected;
                  expected.add(add ? static_cast<double>(over ? a.at(i, j) : start.at(i, j)) : 0);
                  for (int b = 0; b < count; ++b) {
                    const kernels::Mix<T>& mix = mixed.mix[b];
                    const double c = static_cast<double>(acc.at(b * rows + i, j));
                    const double x = static_cast<double>(a.at(i, j));
                    expected.add(c * mixed_with(mix, x));
                    expected.size += std::abs(c) * 10;  // of the parts, each with a rounding
                    expected.add(c * static_cast<double>(mix.low) * static_cast<double>(low.at(i, j)));
                    expected.add(c * static_cast<double>(mix.high) * static_cast<double>(high.at(i, j)));
                  }
                  right = right && near(static_cast<double>(out.at(i, j)), expected.value, bound<T>(expected, count));
                }
              }
              CHECK(right);
              CHECK(out.intact() && acc.intact() && a.intact() && low.intact() && high.intact());
            }
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
