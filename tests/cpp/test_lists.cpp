// Left operands as lists of what is not zero: a dense layer by lists and by tiles at every share of zeros. The same for
// convolutions: all their tests run by lists, too (PYLRP_LEFT in main.cpp). test_kernels_lists.cpp has the kernels.
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
#include "thin.hpp"

namespace pylrp {
namespace {

// As long as it lives all blocks go one way.
struct Forced {
  LeftPath before = forced_left_path();
  explicit Forced(LeftPath path) { force_left_path(path); }
  ~Forced() { force_left_path(before); }
};

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
