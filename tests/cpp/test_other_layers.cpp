// Layers without weights but the pools. Those that share relevance in proportion are wires with a rule, like any other.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "layer_run.hpp"
#include "layers/activation.hpp"
#include "layers/add.hpp"
#include "layers/affine.hpp"
#include "layers/concat.hpp"
#include "layers/lrn.hpp"
#include "layers/prelu.hpp"
#include "layers/softmax.hpp"
#include "layers/sparse.hpp"
#include "layers/standardize.hpp"

namespace pylrp {
namespace {

constexpr Index kLarge = 3 * (1 << 14) + 5;  // several tasks

TEST(add) {
  for (const Index size : {Index{1}, Index{7}, kLarge}) {
    for (const Index count : {1, 2, 3, 4, 5, 7}) {  // the kernel takes a few at once
      if (size == kLarge && count != 2 && count != 5) {
        continue;
      }
      check::context = std::to_string(count) + " times " + std::to_string(size);
      Wires wires{count * size, {}, std::vector<double>(static_cast<std::size_t>(size))};
      for (Index j = 0; j < size; ++j) {
        auto& fed = wires.outputs.emplace_back();
        for (Index k = 0; k < count; ++k) {
          fed.push_back({k * size + j, 1});
        }
      }
      check_shares_of_both<AddLayer>(wires, std::vector<Index>(static_cast<std::size_t>(count), size), nullptr);
    }
  }
}

// A sum of any number of values clamps.
TEST(add_clamps) {
  for (const std::size_t count : {1u, 2u, 3u}) {
    check::context = std::to_string(count) + " values";
    Fenced<float> x(2, 9), free(2, 9), clamped(2, 9, 0);
    x.fill(Random(1));
    x.at(1, 4) = std::numeric_limits<float>::quiet_NaN();
    const std::vector<Matrix<const float>> inputs(count, x.read());
    AddLayer<float>().forward(inputs, free.view(), {}, {1});
    AddLayer<float>().forward(inputs, clamped.view(), {-0.125f, 0.25f}, {1});
    bool right = true;
    for (Index i = 0; i < 2; ++i) {
      for (Index j = 0; j < 9; ++j) {
        const float z = free.at(i, j);
        right = right && (std::isnan(z) ? std::isnan(clamped.at(i, j))
                                        : clamped.at(i, j) == std::min(std::max(z, -0.125f), 0.25f));
      }
    }
    CHECK(right && std::isnan(free.at(1, 4)) && clamped.intact());
  }
}

TEST(affine) {
  for (const Index channels : {1, 3, 40}) {
    for (const Index pixels : {Index{1}, Index{5}, kLarge / channels}) {
      check::context = std::to_string(channels) + " channels, " + std::to_string(pixels) + " pixels";
      Random random(2);
      std::vector<double> scale, shift;  // numbers that are the same in float
      Wires wires{channels * pixels, {}, {}};
      for (Index c = 0; c < channels; ++c) {
        scale.push_back(static_cast<double>(static_cast<float>(random())));
        shift.push_back(static_cast<double>(static_cast<float>(c == 2 ? 0 : random(0.5, 1))));
      }
      for (Index j = 0; j < channels * pixels; ++j) {
        wires.outputs.push_back({{j, scale[static_cast<std::size_t>(j % channels)]}});
        wires.bias.push_back(shift[static_cast<std::size_t>(j % channels)]);
      }
      const std::vector<float> scale32(scale.begin(), scale.end()), shift32(shift.begin(), shift.end());
      const auto bias = &kernels::Absorbed::batchnorm;
      check_shares<float>(AffineLayer<float>(scale32, shift32), wires, {channels * pixels}, bias);
      check_shares<double>(AffineLayer<double>(scale, shift), wires, {channels * pixels}, bias);
    }
  }
  // Without a shift relevance passes unchanged.
  Fenced<float> x(kBatch, 6), r(kRows, 6);
  x.fill(Random(1));
  r.fill(Random(2));
  Run<float> run(AffineLayer<float>({0, 2, -1}, {0, 0, 0}), {6}, x, r, nullptr, 1);
  CHECK(same_bits(run.results[0]->entries(), r.entries()) && run.output.at(1, 4) == 2 * x.at(1, 4));
}

// --- tables, concatenations ---

TEST(moves) {
  const Index inputs = 11;
  const std::vector<std::int32_t> index{3, 0, -1, 3, 10, 3, -1, 5, 4, 4, 10, 9, 1};  // some never, some often
  const Index outputs = static_cast<Index>(index.size());
  for (const float fill : {0.0f, -2.5f}) {
    const SparseLayer<float> layer(inputs, outputs, 1, index.data(), nullptr, fill);
    Fenced<float> x(kBatch, inputs), r(kRows, outputs);
    x.fill(Random(1));
    Random random(3);
    r.fill([&] { return std::floor(random(-8, 8)); });
    Run<float> run(layer, {inputs}, x, r, nullptr, 1);
    bool forward = true, right = true;
    for (Index row = 0; row < kRows; ++row) {
      std::vector<float> wanted(static_cast<std::size_t>(inputs));
      double outside = 0;
      for (Index j = 0; j < outputs; ++j) {
        const std::int32_t from = index[static_cast<std::size_t>(j)];
        forward = forward && run.output.at(row % kBatch, j) == (from < 0 ? fill : x.at(row % kBatch, from));
        outside += from < 0 ? static_cast<double>(r.at(row, j)) : 0;
        if (from >= 0) {
          wanted[static_cast<std::size_t>(from)] += r.at(row, j);
        }
      }
      for (Index k = 0; k < inputs; ++k) {
        right = right && run.result(row, k) == wanted[static_cast<std::size_t>(k)];
      }
      right = right && run.absorbed[static_cast<std::size_t>(row)].padding == outside;
    }
    CHECK(forward && right && run.intact());
  }
}

TEST(moves_with_constants_of_their_own) {
  const std::vector<std::int32_t> index{1, -1, 0, -1};
  const SparseLayer<float> layer(2, 4, 1, index.data(), nullptr, std::vector<float>{9, 3, 9, -4});
  CHECK(!layer.keeps_nonnegative());
  Fenced<float> x(kBatch, 2), r(kRows, 4);
  x.fill(Random(1));
  r.fill(Random(2));
  Run<float> run(layer, {2}, x, r, nullptr, 1);
  CHECK(run.output.at(1, 0) == x.at(1, 1) && run.output.at(1, 1) == 3 && run.output.at(1, 3) == -4);
  CHECK(run.result(0, 0) == r.at(0, 2) && run.result(0, 1) == r.at(0, 0));
}

TEST(moves_of_many_entries) {
  std::vector<std::int32_t> index;
  for (Index j = 0; j < kLarge; ++j) {
    index.push_back(j % 7 == 0 ? -1 : static_cast<std::int32_t>((j * 5) % 40000));
  }
  Fenced<double> x(kBatch, 40000), r(kRows, kLarge);
  x.fill(Random(1));
  r.fill(Random(2));
  const SparseLayer<double> layer(40000, kLarge, 1, index.data(), nullptr, 0);
  Run<double> alone(layer, {40000}, x, r, nullptr, 1), together(layer, {40000}, x, r, nullptr, 3);
  CHECK(alone.same(together) && alone.intact() && together.intact());
}

// Interpolation: several inputs with weights, one of them twice, one outside.
TEST(weighted_tables) {
  for (const double fill : {0.0, 0.5}) {
    check::context = "fill " + std::to_string(fill);
    const std::vector<std::int32_t> index{0, 1, 2, 1, 2, 3, 4, 4, 5, 6, 6, 5, 2, 1, -1, 0, 8, 8};
    const std::vector<double> weight{0.25, 0.5, 0.25, 1,   0,    0.5,  0.5, -0.25, 2,
                                     1,    1,   1,    0.5, 0.25, 0.25, 1,   0.75,  0.25};
    const std::vector<float> weight32(weight.begin(), weight.end());
    Wires wires{9, {}, {}};
    for (std::size_t j = 0; j < 6; ++j) {
      auto& fed = wires.outputs.emplace_back();
      wires.bias.push_back(0);
      for (std::size_t t = 3 * j; t < 3 * j + 3; ++t) {
        if (index[t] < 0) {
          wires.bias.back() += weight[t] * fill;  // what lies outside takes its share
        } else {
          fed.push_back({index[t], weight[t]});
        }
      }
    }
    const auto bias = fill == 0 ? nullptr : &kernels::Absorbed::padding;
    check_shares<float>(SparseLayer<float>(9, 6, 3, index.data(), weight32.data(), float(fill)), wires, {9}, bias);
    check_shares<double>(SparseLayer<double>(9, 6, 3, index.data(), weight.data(), fill), wires, {9}, bias);
  }
}

TEST(concat) {
  for (const Index outer : {1, 3, 5000}) {
    const std::vector<Index> blocks{2, 1, 4};
    const ConcatLayer<float> layer(outer, blocks);
    Fenced<float> x(kBatch, 7 * outer), r(kRows, 7 * outer);
    x.fill(Random(1));
    r.fill(Random(2));
    Run<float> run(layer, {2 * outer, outer, 4 * outer}, x, r, nullptr, 1);
    bool right = true;
    for (Index row = 0; row < kRows; ++row) {
      for (Index n = 0; n < outer; ++n) {
        Index column = 0;
        for (std::size_t k = 0; k < 3; ++k) {
          for (Index j = 0; j < blocks[k]; ++j, ++column) {
            right = right && run.results[k]->at(row, n * blocks[k] + j) == r.at(row, 7 * n + column);
            right = right &&
                    run.output.at(row % kBatch, 7 * n + column) == run.inputs[k]->at(row % kBatch, n * blocks[k] + j);
          }
        }
      }
    }
    CHECK(right && run.intact());
    Run<float> again(layer, {2 * outer, outer, 4 * outer}, x, r, nullptr, 3);
    CHECK(run.same(again));
  }
}

// --- layers whose relevance passes unchanged ---

void check_forward(const Layer<float>& layer, Index size, const std::function<double(const float*, Index)>& wanted) {
  Fenced<float> x(kBatch, size), r(kRows, size);
  Random random(1);
  x.fill([&] { return random(-3, 3); });
  Run<float> run(layer, {size}, x, r, nullptr, 1), again(layer, {size}, x, r, nullptr, 3);
  bool right = layer.flow() == Flow::kIdentity;
  for (Index i = 0; i < kBatch; ++i) {
    for (Index j = 0; j < size; ++j) {
      const double y = wanted(x.row(i), j);
      right = right && near(static_cast<double>(run.output.at(i, j)), y, kFew * kUnit<float> * (1 + std::abs(y)));
    }
  }
  CHECK(right && run.same(again) && run.intact());
}
TEST(layers_that_pass_relevance_on) {
  for (const Index channels : {1, 3}) {
    const std::vector<float> slopes(channels == 1 ? std::vector<float>{0.25f} : std::vector<float>{0.25f, -1, 2});
    check_forward(PReLULayer<float>(slopes), 15, [&](const float* x, Index j) {
      return x[j] < 0 ? static_cast<double>(x[j] * slopes[static_cast<std::size_t>(j % channels)])
                      : static_cast<double>(x[j]);
    });
  }
  for (const Index size : {1, 2, 3, 5, 20}) {  // around c: ONNX's way for even sizes, one more behind than before
    check_forward(LocalResponseNormLayer<float>(7, size, 0.5, 0.75, 2), 21, [&](const float* x, Index j) {
      const Index c = j % 7;
      double squares = 0;
      for (Index k = 0; k < 7; ++k) {
        const double v = static_cast<double>(x[j - c + k]);
        squares += c - k <= (size - 1) / 2 && k - c <= size / 2 ? v * v : 0;
      }
      return static_cast<double>(x[j]) / std::pow(2 + 0.5 / static_cast<double>(size) * squares, 0.75);
    });
  }
  for (const bool logarithm : {false, true}) {
    check_forward(SoftmaxLayer<float>(5, logarithm), 20, [&](const float* x, Index j) {
      double total = 0;
      for (Index k = 0; k < 5; ++k) {
        total += std::exp(static_cast<double>(x[j - j % 5 + k]));
      }
      const double p = std::exp(static_cast<double>(x[j])) / total;
      return logarithm ? std::log(p) : p;
    });
  }
}

}  // namespace
}  // namespace pylrp
