// Left operands as lists of what is not zero: the kernels, and a dense layer by lists and by tiles at every share of
// zeros. The same for convolutions: all their tests run by lists, too (PYLRP_LEFT in main.cpp).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "conv_run.hpp"
#include "fenced.hpp"
#include "kernel_cases.hpp"
#include "kernels/dispatch.hpp"
#include "layers/dense/dense.hpp"
#include "products/lists.hpp"
#include "products/tap_lists.hpp"
#include "reference.hpp"
#include "rules.hpp"

namespace pylrp {
namespace {

// As long as it lives all blocks go one way.
struct Forced {
  LeftPath before = forced_left_path();
  explicit Forced(LeftPath path) { force_left_path(path); }
  ~Forced() { force_left_path(before); }
};

constexpr double kShares[] = {0, -1, 0.1, 0.5, 0.9, 1};  // -1: one entry

// Zeros in all but a share of the entries, some of them negative.
template <class T>
void thin(Matrix<T> x, double share, unsigned seed) {
  Random random(seed);
  for (Index i = 0; i < x.rows; ++i) {
    for (Index j = 0; j < x.cols; ++j) {
      const bool one = i == x.rows / 2 && j == x.cols / 3;
      if (share < 0 ? !one : (random() + 1) / 2 >= share) {
        x.row(i)[j] = j % 3 == 0 ? T(-0.0) : T(0);
      }
    }
  }
}

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

TEST(shift_steps_by_sign) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    const std::vector<T> values{T(1), T(-2), nan, -infinity, infinity, -std::numeric_limits<T>::denorm_min(), T(3)};
    for (const int sign : {-1, 1}) {
      std::vector<std::uint16_t> steps{5, 6, 7, 8, 9, 10, 11};
      kernels::table<T>().shift_steps(6, values.data(), sign, 40000, steps.data());
      bool right = steps[6] == 11;  // beyond the list
      for (std::size_t i = 0; i < 6; ++i) {
        right = right && steps[i] == 5 + i + ((values[i] < 0) == (sign < 0) ? 40000 : 0);
      }
      CHECK(right);
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

// Lists of every length up to the longest, in order or in any order, some used twice.
TEST(list_rows_sums_over_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, longest = list_steps<T>();
    Random random(7);
    const std::vector<Index> counts{0, 1, 2, 3, 7, 8, 0, 33, longest};
    const std::vector<Index> begins = begins_of(counts);
    const std::vector<std::uint16_t> steps = last_steps(counts, longest);
    Fenced<T> values(1, begins.back()), before(5, width, 0);
    Fenced<T> panels(kernels::kListPanels * longest, width, 0);
    values.fill(random);
    panels.fill(random);
    before.fill(random);
    const std::vector<std::int32_t> mixed{8, 0, 7, 7, 3};
    for (int count = 1; count <= kernels::kListPanels; ++count) {
      for (const int choice : {0, 1, 2, 3}) {
        const bool add = choice % 2 == 1, in_order = choice < 2;
        say("list_rows: panels, add, in order, bytes", count, add, in_order, sizeof(T));
        Fenced<T> sums(count * 5, width, 2);
        const T* panel[kernels::kListPanels];
        T* out[kernels::kListPanels];
        for (int p = 0; p < count; ++p) {
          panel[p] = panels.row(p * longest);
          out[p] = sums.row(p * 5);
          for (Index i = 0; add && i < 5; ++i) {
            std::copy_n(before.row(i), width, sums.row(p * 5 + i));
          }
        }
        kernel.list_rows({.rows = 5,
                          .values = values.data(),
                          .steps = steps.data(),
                          .begins = begins.data(),
                          .list_of = in_order ? nullptr : mixed.data(),
                          .first_list = 4,
                          .panels = count,
                          .panel = panel,
                          .add = add,
                          .out = out,
                          .out_stride = sums.stride()});
        bool right = true;
        for (Index p = 0; p < count; ++p) {
          for (Index i = 0; i < 5; ++i) {
            const std::size_t l = static_cast<std::size_t>(in_order ? 4 + i : mixed[static_cast<std::size_t>(i)]);
            for (Index j = 0; j < width; ++j) {
              Sum64 expected;
              expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
              for (Index n = begins[l]; n < begins[l + 1]; ++n) {
                expected.add(static_cast<double>(values.at(0, n)) *
                             static_cast<double>(panel[p][steps[static_cast<std::size_t>(n)] * width + j]));
              }
              right = right &&
                      near(static_cast<double>(sums.at(p * 5 + i, j)), expected.value, bound<T>(expected, longest));
            }
          }
        }
        CHECK(right);
        CHECK(sums.intact() && panels.intact() && values.intact());
      }
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

// Pairs with lists of every length up to the longest, some used twice.
TEST(list_pairs_sums_over_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const auto& kernel = kernels::table<T>();
    const Index width = kernel.tile_cols, longest = pair_steps<T>(), pairs = 4;
    Random random(7);
    const std::vector<Index> counts{0, 1, 2, 7, 33, longest};
    const std::vector<Index> begins = begins_of(counts);
    const std::vector<std::uint16_t> steps = last_steps(counts, longest);
    Fenced<T> values(1, 2 * begins.back()), before(2 * pairs, width, 0);
    Fenced<T> panels(kernels::kPairPanels * longest, width, 0);
    values.fill(random);
    panels.fill(random);
    before.fill(random);
    for (const std::vector<std::int32_t>& list_of : {std::vector<std::int32_t>{5, 0, 3, 3}, {1, 2, 4, 5}}) {
      for (int count = 1; count <= kernels::kPairPanels; ++count) {
        for (const bool add : {false, true}) {
          say("list_pairs: panels, add, bytes", count, add, sizeof(T));
          Fenced<T> sums(count * 2 * pairs, width, 2);
          const T* panel[kernels::kPairPanels];
          T* out[kernels::kPairPanels];
          for (int p = 0; p < count; ++p) {
            panel[p] = panels.row(p * longest);
            out[p] = sums.row(p * 2 * pairs);
            for (Index i = 0; add && i < 2 * pairs; ++i) {
              std::copy_n(before.row(i), width, sums.row(p * 2 * pairs + i));
            }
          }
          kernel.list_pairs({.pairs = pairs,
                             .values = values.data(),
                             .steps = steps.data(),
                             .begins = begins.data(),
                             .list_of = list_of.data(),
                             .panels = count,
                             .panel = panel,
                             .add = add,
                             .out = out,
                             .out_stride = sums.stride()});
          bool right = true;
          for (Index p = 0; p < count; ++p) {
            for (Index i = 0; i < 2 * pairs; ++i) {
              const auto l = static_cast<std::size_t>(list_of[static_cast<std::size_t>(i / 2)]);
              for (Index j = 0; j < width; ++j) {
                Sum64 expected;
                expected.add(add ? static_cast<double>(before.at(i, j)) : 0);
                for (Index n = begins[l]; n < begins[l + 1]; ++n) {
                  expected.add(static_cast<double>(values.at(0, 2 * n + i % 2)) *
                               static_cast<double>(panel[p][steps[static_cast<std::size_t>(n)] * width + j]));
                }
                right = right && near(static_cast<double>(sums.at(p * 2 * pairs + i, j)), expected.value,
                                      bound<T>(expected, longest));
              }
            }
          }
          CHECK(right);
          CHECK(sums.intact() && panels.intact() && values.intact());
        }
      }
    }
  });
}

// A dense layer whose input and relevance are mostly zeros, both ways, with one thread and three.
template <class T>
void check_dense(const char* rule, Index batch, Index n_in, Index n_out, double share) {
  say("by lists: batch, n_in, n_out, share in percent, bytes", batch, n_in, n_out, static_cast<int>(100 * share),
      sizeof(T));
  check::context += rule;
  DenseData<T> layer(batch, n_in, n_out, 5, true);
  thin(layer.input.view(), share, 1);
  thin(layer.relevance.view(), share, 2);
  std::fill_n(layer.input.row(batch / 2), n_in, T(0));  // a row and a column of zeros
  for (Index i = 0; i < batch; ++i) {
    layer.relevance.at(i, n_out / 2) = 0;
  }
  const Rule named = rule_named(rule);
  const Reference expected = reference<T>(layer.wires(true), layer, named, Care::kSettle);
  const LoweredRule lowered = lower(named, true);
  Fenced<T> result(batch, n_in), output(batch, n_out);
  DenseJob<T> job;
  job.layer = layer.layer();
  job.rule = &lowered;
  job.bounds = {layer.low.data(), layer.high.data()};
  job.input = layer.input.read();
  job.relevance = layer.relevance.read();
  job.result = result.view();
  std::vector<T> one_thread;
  for (const int threads : {1, 3}) {
    const Forced forced(LeftPath::kLists);
    const LeftWork before = left_work();
    result.reset();
    relevance_by_products(job, {threads});
    forward_by_products(job.layer, job.input, output.view(), {threads});
    CHECK(left_work().tiles == before.tiles && left_work().lists > before.lists);
    bool right = true;
    for (Index i = 0; i < batch; ++i) {
      for (Index k = 0; k < n_in; ++k) {
        right = right && near(result.at(i, k), expected.relevance[static_cast<std::size_t>(i * n_in + k)]);
      }
      for (Index j = 0; j < n_out; ++j) {
        right = right && near(output.at(i, j), expected.output[static_cast<std::size_t>(i * n_out + j)]);
      }
    }
    CHECK(right);
    CHECK(result.intact() && output.intact());
    std::vector<T> all = result.entries();
    if (threads == 1) {
      one_thread = all;
    }
    CHECK(all == one_thread);
  }
}
TEST(dense_layers_by_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const Index width = kernels::table<T>().tile_cols;
    for (const char* rule : {"z+", "epsilon", "alpha-beta", "gamma"}) {
      for (const double share : kShares) {
        check_dense<T>(rule, 7, 2 * width + 3, 5 * width - 1, share);
      }
    }
    check_dense<T>("z+", 211, 300, 9 * width + 1, 0.3);  // several bands, blocks, slabs
    check_dense<T>("z+", 97, 2 * 256 + 129, 4 * width, 0.1);
    check_dense<T>("gamma", 1, 1, 1, 1);
  });
}

// Convolutions whose input and relevance are mostly zeros: packed once for all, in tasks, strided, grouped, transposed,
// with a kernel of one.
template <class T>
void check_convolution(const ConvCase& c, const char* rule, double share, LeftPath path) {
  check::context = c.name + ", " + rule + ", share " + std::to_string(share) + ", bytes " + std::to_string(sizeof(T));
  Options options(1);
  options.batch = 2;
  options.targets = 2;
  options.nonnegative = options.prepared = true;
  options.positive = false;
  ConvData<T> data(c.shape(), c.transposed, options.batch, options.targets, 3, true);
  thin(data.input.view(), share, 1);
  thin(data.relevance.view(), share, 2);
  const Rule named = rule_named(rule);
  const Reference expected = reference<T>(data.wires(true), data, named, Care::kSettle);
  const ConvLayer<T> layer = data.layer(true);
  const CompiledRule compiled(named);
  std::vector<T> one_thread;
  for (const int threads : {1, 3}) {
    const Forced forced(path);
    const LeftWork before = left_work();
    options.threads = threads;
    Fenced<T> output(options.batch, data.relevance.cols());
    layer.forward({data.input.read()}, output.view(), {}, {threads});
    Relevance<T> found(layer, data, compiled, {}, options);
    CHECK(left_work().tiles == before.tiles && left_work().lists > before.lists);
    CHECK(left_work().done - before.done <= left_work().lists - before.lists);
    bool right = true;
    for (std::size_t n = 0; n < expected.output.size(); ++n) {
      const Index at = static_cast<Index>(n);
      right = right && near(output.at(at / output.cols(), at % output.cols()), expected.output[n]);
    }
    std::vector<T> all = found.result.entries();
    for (std::size_t n = 0; n < all.size(); ++n) {
      right = right && near(all[n], expected.relevance[n]);
    }
    CHECK(right);
    CHECK(found.result.intact() && output.intact());
    if (threads == 1) {
      one_thread = all;
    }
    CHECK(all == one_thread);
  }
}
TEST(convolutions_by_lists) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const Index width = kernels::table<T>().tile_cols;
    const Geometry padded{{1, 9, 7}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
    const Geometry strided{{1, 9, 7}, {1, 3, 2}, {1, 2, 2}, {1, 1, 2}, {0, 1, 0}, {0, 0, 1}};
    const std::vector<ConvCase> cases{{"padded", padded, 5, 2 * width + 3, 1, false},
                                      {"strided", strided, 11, 13, 1, false},
                                      {"grouped", padded, 6, 2 * width, 2, false},
                                      {"transposed", strided, 7, 9, 1, true},
                                      {"one", {{1, 24, 10}, {1, 1, 1}}, 17, 5 * width + 2, 1, false}};
    for (const LeftPath path : {LeftPath::kLists, LeftPath::kPairs}) {
      for (const ConvCase& c : cases) {
        for (const double share : kShares) {
          check_convolution<T>(c, "z+", share, path);
        }
        check_convolution<T>(c, "alpha-beta", 0.4, path);
      }
      // Several parts of the channels; more rows than a task takes.
      const Index deep = 2 * std::max(list_steps<T>(), pair_steps<T>()) + 5;
      check_convolution<T>({"deep", {{1, 3, 4}, {1, 2, 2}}, deep, 3, 1, false}, "z+", 0.2, path);
      check_convolution<T>({"large", {{1, 45, 50}, {1, 2, 2}}, 3, 4, 1, false}, "z+", 0.2, path);
    }
  });
}

// Lists are taken where there are zeros enough, and only there.
TEST(left_operands_go_the_counted_way) {
  const Forced forced(LeftPath::kCounted);
  for (const double share : {1.0, 0.1}) {
    DenseData<float> layer(120, 300, 400, 5, true);
    thin(layer.input.view(), share, 1);
    for (Index i = 0; share == 1 && i < 120; ++i) {  // it came with some zeros
      std::replace(layer.input.row(i), layer.input.row(i) + 300, 0.0F, 1.0F);
    }
    Fenced<float> output(120, 400);
    const LeftWork before = left_work();
    forward_by_products(layer.layer(), layer.input.read(), output.view(), {1});
    const LeftWork after = left_work();
    CHECK((after.tiles > before.tiles) == (share == 1));
    CHECK((after.lists > before.lists) == (share < 1));
    CHECK(share == 1 || 5 * (after.done - before.done) < after.lists - before.lists);
  }
  CHECK(!lists_win<float>(1, 1000, 1000, 1, 128));
  CHECK(lists_win<float>(0.1, 1000, 1000, 1, 128));
  CHECK(!lists_win<float>(0.1, 1000, 1, 1, 128));
}

// A weight that is not finite shows, also where it meets nothing but zeros; so does an entry of the left operand.
TEST(lists_lose_nothing_that_is_not_finite) {
  both_types([](auto tag) {
    using T = decltype(tag);
    const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
    for (const LeftPath path : {LeftPath::kTiles, LeftPath::kLists, LeftPath::kPairs}) {
      const Forced forced(path);
      for (const T bad : {nan, infinity, -infinity}) {
        for (const bool in_weight : {true, false}) {
          say("not finite: path, in the weights, NaN, bytes", static_cast<int>(path), in_weight, std::isnan(bad),
              sizeof(T));
          DenseData<T> layer(20, 40, 50, 5, true);
          std::fill_n(layer.input.row(3), 40, T(0));
          for (Index i = 0; i < 20; ++i) {
            layer.input.at(i, 17) = 0;
          }
          (in_weight ? layer.weight.at(11, 17) : layer.input.at(3, 17)) = bad;
          Fenced<T> output(20, 50);
          forward_by_products(layer.layer(), layer.input.read(), output.view(), {1});
          bool right = true;
          for (Index i = 0; i < 20; ++i) {
            for (Index j = 0; j < 50; ++j) {
              const bool spoilt = in_weight ? j == 11 : i == 3;
              right = right && std::isfinite(output.at(i, j)) != spoilt;
            }
          }
          CHECK(right);
        }
      }
    }
  });
}

}  // namespace
}  // namespace pylrp
