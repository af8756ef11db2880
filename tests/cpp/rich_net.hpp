// A graph with every kind of layer, for the tests of the engine.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "net.hpp"

namespace pylrp {

// With residual sums, a value read twice by one node, two inputs.
template <class T>
struct Rich {
  Net<T> net{{108, 10}};
  std::size_t first, first_relu, added, added_relu, pooled, joined, strided, side, total, top;

  // bottom, middle, above: rules of the convolutions and dense layers.
  Rich(const char* bottom, const char* middle, const char* above) {
    const Geometry same{{1, 6, 6}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}, {0, 1, 1}};
    first = net.conv(0, same.shape(3, 17), bottom);
    first_relu = net.relu(first);
    const std::size_t deep = net.conv(first_relu, same.shape(17, 17, 17), middle);
    const std::size_t clipped = net.activation(deep, {ActivationKind::kClip, 0, 0.75});
    added = net.sum({first_relu, clipped});
    added_relu = net.relu(added);
    pooled = pool(added_relu, true, 6, {{0, 2, 4}, {2, 4, 6}, {2, 2, 2}, 1, 6}, 17);
    const std::size_t smooth = pool(pooled, false, 3, {{0, 0, 1}, {2, 3, 3}, {3, 3, 3}, 1, 3}, 17);
    joined = net.add(std::make_unique<ConcatLayer<T>>(9, std::vector<Index>{17, 17}), {pooled, smooth}, 306);
    std::vector<std::int32_t> twice;  // each pixel doubled, the last column a constant
    for (Index pixel = 0; pixel < 36; ++pixel) {
      const Index y = pixel / 6, x = pixel % 6;
      for (Index c = 0; c < 34; ++c) {
        twice.push_back(x == 5 ? -1 : static_cast<std::int32_t>((y / 2 * 3 + x / 2) * 34 + c));
      }
    }
    const std::size_t large =
        net.add(std::make_unique<SparseLayer<T>>(306, 1224, 1, twice.data(), nullptr, T(0.5)), {joined}, 1224);
    const Geometry by_two{{1, 6, 6}, {1, 3, 2}, {1, 2, 2}, {1, 1, 1}, {0, 1, 0}, {0, 0, 0}};
    strided = net.conv(large, by_two.shape(34, 8, 2), middle);
    const std::size_t leaky = net.activation(strided, {ActivationKind::kLeakyReLU, 0.25});
    const std::size_t normed = net.add(
        std::make_unique<AffineLayer<T>>(std::vector<T>{1, 2, T(0.5), -1}, std::vector<T>{T(0.5), 0, T(-0.25), 1}),
        {leaky}, net.size(leaky));
    const std::size_t back = net.conv(normed, by_two.shape(5, 8), above, true);
    const std::size_t dense = net.dense(back, 20, above);
    side = net.activation(net.dense(1, 20, bottom), {ActivationKind::kTanh});
    total = net.sum({net.relu(dense), side, side});
    top = net.dense(total, 7, above);
  }
  Question<T> question(std::size_t start) { return {start, 1, {}, net.all_values()}; }

 private:
  std::size_t pool(std::size_t from, bool max, Index, const PoolAxis& axis, Index channels) {
    const PoolAxis flat{{0}, {1}, {1}, 1, 1};
    return net.add(std::make_unique<PoolLayer<T>>(max, std::array<PoolAxis, 3>{flat, axis, axis}, channels), {from},
                   axis.out() * axis.out() * channels);
  }
};
inline constexpr std::array<std::array<const char*, 3>, 5> kRules{{{"w^2", "z+", "epsilon"},
                                                                   {"z-box", "gamma", "alpha-beta"},
                                                                   {"epsilon", "epsilon", "epsilon"},
                                                                   {"gamma", "flat", "gamma"},
                                                                   {"alpha-beta", "where zero", "w^2"}}};

}  // namespace pylrp
