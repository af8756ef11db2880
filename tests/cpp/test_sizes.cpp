// Sizes that come from anywhere: products that wrap, layers that do not fit their values. All are an Error before
// anything is allocated or reached; under the sanitizers nothing overflows on the way.
#include <functional>
#include <limits>
#include <memory>

#include "base/buffer.hpp"
#include "base/error.hpp"
#include "base/size.hpp"
#include "check.hpp"
#include "engine/plan.hpp"
#include "layers/activation.hpp"
#include "layers/add.hpp"
#include "layers/affine.hpp"
#include "layers/concat.hpp"
#include "layers/conv/conv.hpp"
#include "layers/dense/dense_layer.hpp"
#include "layers/lrn.hpp"
#include "layers/pool.hpp"
#include "layers/prelu.hpp"
#include "layers/softmax.hpp"
#include "layers/sparse.hpp"
#include "layers/standardize.hpp"
#include "products/taps.hpp"

namespace pylrp {
namespace {

constexpr Index kMax = std::numeric_limits<Index>::max(), kMin = std::numeric_limits<Index>::min();
// What is tried in the place of every size.
constexpr Index kHostile[] = {0,
                              -1,
                              kMin,
                              kMax,
                              Index{1} << 31,
                              Index{1} << 32,
                              Index{1} << 46,
                              Index{1} << 48,
                              Index{1} << 61,
                              Index{1} << 62,
                              (Index{1} << 62) + 1,
                              -(Index{1} << 62)};

bool refused(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error&) {
    return true;
  }
  return false;
}

ConvShape small_conv() { return {{1, 5, 6}, {1, 2, 4}, {1, 2, 3}, {1, 3, 1}, {1, 1, 1}, {0, 0, 0}, 4, 6, 2}; }
std::array<PoolAxis, 3> small_pool() {
  return {PoolAxis{{0}, {1}, {1}, 1, 1}, PoolAxis{{0, 2}, {2, 4}, {2, 2}, 1, 4},
          PoolAxis{{0, 1}, {2, 3}, {2, 2}, 1, 3}};
}

TEST(sizes_products) {
  CHECK(checked_product({}, "x") == 1);
  CHECK(checked_product({6, 7}, "x") == 42);
  CHECK(checked_product({kMax, 0, kMax}, "x") == 0 && checked_product({0, kMax, kMax}, "x") == 0);
  CHECK(checked_product({Index{1} << 23, Index{1} << 24}, "x") == kMostEntries);
  CHECK(refused([] { checked_product({kMostEntries, 2}, "x"); }));
  CHECK(refused([] { checked_product({kMostEntries + 1}, "x"); }));
  CHECK(refused([] { checked_product({Index{1} << 32, Index{1} << 32}, "x"); }));  // wraps to 0
  CHECK(refused([] { checked_product({3, (kMax / 3) * 2}, "x"); }));               // wraps to a negative number
  CHECK(refused([] { checked_product({-1}, "x"); }) && refused([] { checked_product({kMin, kMin}, "x"); }));
  CHECK(refused([] { checked_product({0, -1}, "x"); }));
  CHECK(bounded_product({3, 5}) == 15 && bounded_product({kMax, kMax}) == kMostEntries);
  CHECK(bounded_product({kMax, 0}) == 0);
}

TEST(sizes_of_buffers) {
  for (const Index size : {Index{-1}, kMin, kMax, kMostEntries, Index{1} << 62, Index{1} << 61}) {
    check::context = std::to_string(size);
    CHECK(refused([&] { Buffer<double> made(size); }));
  }
  CHECK(!refused([] { Buffer<double> made(0); }));
}

// Each size of a good convolution in turn; what is let pass must be walked over without an overflow.
TEST(sizes_of_convolutions) {
  CHECK(!refused([] { require_countable(small_conv()); }));
  const std::function<Index*(ConvShape&, std::size_t)> places[] = {[](ConvShape& s, std::size_t a) { return &s.in[a]; },
                                                                   [](ConvShape& s, std::size_t a) { return &s.out[a]; },
                                                                   [](ConvShape& s, std::size_t a) { return &s.kernel[a]; },
                                                                   [](ConvShape& s, std::size_t a) { return &s.stride[a]; },
                                                                   [](ConvShape& s, std::size_t a) { return &s.dilation[a]; },
                                                                   [](ConvShape& s, std::size_t a) { return &s.pad[a]; },
                                                                   [](ConvShape& s, std::size_t) { return &s.in_channels; },
                                                                   [](ConvShape& s, std::size_t) { return &s.out_channels; },
                                                                   [](ConvShape& s, std::size_t) { return &s.groups; }};
  Index passed = 0;
  for (const auto& place : places) {
    for (std::size_t a = 0; a < 3; ++a) {
      for (const Index size : kHostile) {
        ConvShape shape = small_conv();
        *place(shape, a) = size;
        check::context = std::to_string(&place - places) + ", axis " + std::to_string(a) + ": " + std::to_string(size);
        const bool no = refused([&] { require_countable(shape); });
        const bool small_pad = &place - places == 5 && (size == 0 || size == -1);  // -1: a cut
        CHECK(no || size >= Index{1} << 31 || small_pad);
        if (!no && shape.taps() <= 1 << 10 && count(shape.in) <= 1 << 10 && count(shape.out) <= 1 << 10) {
          ++passed;
          for (const auto& walks : {walks_to_out(shape), walks_to_in(shape)}) {
            Index rows = 0;
            for (const Walk& walk : walks) {
              const Block block(walk, 0, walk.count());
              rows += block.count();
            }
            CHECK(rows == (walks.size() == 1 && walks[0].scale == shape.stride ? count(shape.out) : count(shape.in)));
          }
        }
      }
    }
  }
  CHECK(passed > 20);
  ConvShape shape = small_conv();
  shape.groups = 3;
  CHECK(refused([&] { require_countable(shape); }));
  // The pads of 2^62 outputs: sizes that wrap to 0.
  shape = {{1, 2, 2}, {1, Index{1} << 31, Index{1} << 31}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 1 << 30, 1 << 30}, 2, 4,
           1};
  CHECK(refused([&] { require_countable(shape); }));
}

TEST(sizes_of_convolutions_and_values) {
  const std::vector<float> weight(1000);
  ConvWeights<float> w{small_conv(), false, weight.data(), nullptr};
  const Index in = 5 * 6 * 4, out = 2 * 4 * 6;
  CHECK(!refused([&] { ConvLayer<float>(w).require_sizes({in}, out); }));
  CHECK(refused([&] { ConvLayer<float>(w).require_sizes({in - 1}, out); }));
  CHECK(refused([&] { ConvLayer<float>(w).require_sizes({in}, out + 1); }));
  CHECK(refused([&] { ConvLayer<float>(w).require_sizes({in, in}, out); }));
  w.transposed = true;
  CHECK(!refused([&] { ConvLayer<float>(w).require_sizes({out}, in); }));
  CHECK(refused([&] { ConvLayer<float>(w).require_sizes({in}, out); }));
  w.shape.out = {1, Index{1} << 30, Index{1} << 30};
  CHECK(w.products() == kMostEntries);
}

TEST(sizes_of_pools) {
  const auto fits = [](std::array<PoolAxis, 3> axes, Index channels = 5, Index in = 60, Index out = 20) {
    return !refused([&] { PoolLayer<double>(true, axes, channels).require_sizes({in}, out); });
  };
  CHECK(fits(small_pool()));
  CHECK(!fits(small_pool(), 5, 61) && !fits(small_pool(), 5, 60, 15) && !fits(small_pool(), 0, 0, 0));
  CHECK(!fits(small_pool(), -5, -60, -20));
  for (const Index size : kHostile) {
    for (int field = 0; field < 5; ++field) {
      auto axes = small_pool();
      Index* const places[] = {&axes[1].begin[1], &axes[1].end[1], &axes[1].count[1], &axes[1].step, &axes[1].in};
      *places[field] = size;
      check::context = std::to_string(field) + ": " + std::to_string(size);
      const bool begin_or_end = field < 2 && size == 0;                 // an empty window, or a longer one
      const bool harmless = field == 2 && size >= 0 && size < 1 << 30;  // a divisor
      const bool step = field == 3 && size > 0 && size <= Index{1} << 60;
      const bool divisor = field == 2 && size > 0 && size <= Index{1} << 46;
      CHECK(fits(axes) == (begin_or_end || harmless || step || divisor));
    }
  }
  auto axes = small_pool();
  axes[2].end.pop_back();
  CHECK(!fits(axes));
}

TEST(sizes_of_tables) {
  const std::int32_t index[] = {0, 1, 2, -1};
  CHECK(!refused([&] { SparseLayer<float>(3, 4, 1, index, nullptr, 0).require_sizes({3}, 4); }));
  CHECK(refused([&] { SparseLayer<float>(3, 4, 1, index, nullptr, 0).require_sizes({4}, 4); }));
  CHECK(refused([&] { SparseLayer<float>(3, 4, 1, index, nullptr, 0).require_sizes({3}, 3); }));
  CHECK(refused([&] { SparseLayer<float>(2, 4, 1, index, nullptr, 0); }));
  const std::int32_t before[] = {0, -2};
  CHECK(refused([&] { SparseLayer<float>(3, 2, 1, before, nullptr, 0); }));
  const std::pair<Index, Index> many[] = {{Index{1} << 16, Index{1} << 16},
                                          {Index{1} << 31, 1},
                                          {Index{1} << 32, Index{1} << 32},
                                          {-1, 1},
                                          {1, -1},
                                          {kMax, 2}};
  for (const auto& [outputs, taps] : many) {
    check::context = std::to_string(outputs) + " x " + std::to_string(taps);
    CHECK(refused([&, o = outputs, t = taps] { SparseLayer<float>(3, o, t, index, nullptr, 0); }));
  }
  for (const Index inputs : {Index{-1}, Index{1} << 31, kMax, kMin}) {
    CHECK(refused([&] { SparseLayer<float>(inputs, 4, 1, index, nullptr, 0); }));
  }
}

TEST(sizes_of_concatenations) {
  CHECK(!refused([] { ConcatLayer<float>(2, {3, 4}).require_sizes({6, 8}, 14); }));
  CHECK(refused([] { ConcatLayer<float>(2, {3, 4}).require_sizes({6, 9}, 14); }));
  CHECK(refused([] { ConcatLayer<float>(2, {3, 4}).require_sizes({6, 8}, 15); }));
  CHECK(refused([] { ConcatLayer<float>(2, {3, 4}).require_sizes({6}, 14); }));
  for (const Index size : kHostile) {
    check::context = std::to_string(size);
    CHECK(size == 0 || refused([&] { ConcatLayer<float>(2, {3, size}).require_sizes({6, 8}, 14); }));
    CHECK(refused([&] { ConcatLayer<float>(size, {3, 4}).require_sizes({6, 8}, 14); }));
    CHECK(size == 0 || refused([&] { ConcatLayer<float>(size, {size, size, size}).require_sizes({0, 0, 0}, 0); }));
  }
  CHECK(refused([] { ConcatLayer<float>(-2, {-3}).require_sizes({6}, 6); }));
}

TEST(sizes_of_pointwise_layers) {
  CHECK(!refused([] { ActivationLayer<float>(Activation{ActivationKind::kReLU, 0, 0}).require_sizes({7}, 7); }));
  CHECK(refused([] { ActivationLayer<float>(Activation{ActivationKind::kReLU, 0, 0}).require_sizes({7}, 8); }));
  CHECK(!refused([] { AffineLayer<float>({1, 2}, {3, 4}).require_sizes({6}, 6); }));
  CHECK(refused([] { AffineLayer<float>({1, 2}, {3, 4}).require_sizes({7}, 7); }));
  CHECK(refused([] { AffineLayer<float>({1, 2}, {3}).require_sizes({6}, 6); }));
  CHECK(refused([] { AffineLayer<float>({}, {}).require_sizes({6}, 6); }));
  CHECK(refused([] { PReLULayer<float>({}).require_sizes({6}, 6); }));
  CHECK(refused([] { PReLULayer<float>({1, 2, 3, 4}).require_sizes({6}, 6); }));
  CHECK(!refused([] { SoftmaxLayer<float>(3, false).require_sizes({6}, 6); }));
  CHECK(!refused(
      [] { StandardizeLayer<float>({{{2, 3, 0, true}, {3, 1, 1, false}}, {}, {1, 1, 1}, {}}).require_sizes({6}, 6); }));
  for (const Index size : kHostile) {  // a pixel of so many channels
    check::context = std::to_string(size);
    CHECK(refused([&] { SoftmaxLayer<float>(size, false).require_sizes({6}, 6); }));
    const auto standardize = [](std::vector<GroupAxis> axes) {
      return refused([&] { StandardizeLayer<float>({axes, {}, {1, 1, 1, 1, 1}, {}}).require_sizes({6}, 6); });
    };
    CHECK(standardize({{size, 1, 0, true}}));
    CHECK(standardize({{2, size, 0, true}, {3, 1, 0, false}}));
    CHECK(size == 0 || standardize({{2, 3, 0, true}, {3, 1, size, false}}));
    CHECK(standardize({{size, size, size, false}}));
    CHECK(refused([&] { LocalResponseNormLayer<float>(size, 3, 1, 1, 1).require_sizes({6}, 6); }));
    const bool many = size > 0 && size <= kMostEntries;
    CHECK(many != refused([&] { LocalResponseNormLayer<float>(3, size, 1, 1, 1).require_sizes({6}, 6); }));
  }
}

TEST(sizes_of_sums_and_weights) {
  CHECK(!refused([] { AddLayer<float>().require_sizes({6, 6, 6}, 6); }));
  CHECK(refused([] { AddLayer<float>().require_sizes({6, 5}, 6); }));
  const std::vector<float> weight(12);
  const DenseLayer<float> dense({{weight.data(), 3, 4, 4}, nullptr});
  CHECK(!refused([&] { dense.require_sizes({4}, 3); }));
  CHECK(refused([&] { dense.require_sizes({3}, 4); }) && refused([&] { dense.require_sizes({4, 4}, 3); }));
  // One row, seen many times.
  const DenseLayer<float> wide({{weight.data(), Index{1} << 40, Index{1} << 40, 0}, nullptr});
  CHECK(refused([&] { wide.require_sizes({Index{1} << 40}, Index{1} << 40); }));
}

TEST(sizes_in_a_graph) {
  const auto make = [](std::vector<Index> inputs, Index size, std::vector<std::size_t> from) {
    std::vector<GraphNode<float>> nodes;
    nodes.push_back({std::make_unique<AddLayer<float>>(), std::move(from), size});
    return Graph<float>(std::move(inputs), std::move(nodes));
  };
  CHECK(!refused([&] { make({6, 6}, 6, {0, 1}); }));
  CHECK(refused([&] { make({6, 5}, 6, {0, 1}); }));
  CHECK(refused([&] { make({6, 5}, 5, {0, 1}); }));
  for (const Index size : {Index{-6}, kMostEntries, kMax}) {
    CHECK(refused([&] { make({size, size}, size, {0, 1}); }));
  }
  // A batch whose values no address space holds: nothing is written.
  const Graph<float> graph = make({Index{1} << 40, Index{1} << 40}, Index{1} << 40, {0, 1});
  const Plan<float> plan(graph, std::vector<NodeRule<float>>(1), {1});
  const float x = 1;
  const Matrix<const float> rows{&x, Index{1} << 30, Index{1} << 40, 0};
  CHECK(refused([&] { plan.forward({rows, rows}, {2}, kNoValue, {1}); }));
}

}  // namespace
}  // namespace pylrp
