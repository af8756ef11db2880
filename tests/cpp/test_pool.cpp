// Pools: overlapping, padded, short, global, adaptive, dilated windows; channels that fill a task and that do not.
#include <algorithm>
#include <cmath>
#include <limits>

#include "layer_run.hpp"
#include "layers/pool.hpp"

namespace pylrp {
namespace {

// Windows along one axis.
PoolAxis axis_of(Index in, std::vector<std::array<Index, 3>> windows, Index step = 1) {
  PoolAxis axis;
  for (const auto& [begin, end, count] : windows) {
    axis.begin.push_back(begin);
    axis.end.push_back(end);
    axis.count.push_back(count);
  }
  axis.step = step;
  axis.in = in;
  return axis;
}
const std::vector<std::pair<const char*, std::array<PoolAxis, 3>>>& pools() {
  const PoolAxis flat = axis_of(1, {{0, 1, 1}}), halves = axis_of(4, {{0, 2, 2}, {2, 4, 2}});
  static const std::vector<std::pair<const char*, std::array<PoolAxis, 3>>> all{
      {"halves", {flat, halves, halves}},
      {"overlapping, padded",
       {flat, axis_of(5, {{0, 2, 3}, {1, 4, 3}, {3, 5, 3}}), axis_of(4, {{0, 3, 3}, {1, 4, 3}})}},
      {"ceil: the last window is short", {flat, axis_of(5, {{0, 2, 2}, {2, 4, 2}, {4, 5, 1}}), halves}},
      {"global", {flat, axis_of(3, {{0, 3, 3}}), axis_of(5, {{0, 5, 5}})}},
      {"adaptive", {flat, axis_of(5, {{0, 2, 2}, {1, 4, 3}, {3, 5, 2}}), axis_of(7, {{0, 4, 4}, {3, 7, 4}})}},
      {"dilated", {flat, axis_of(6, {{0, 5, 3}, {1, 6, 3}}, 2), axis_of(7, {{0, 7, 3}}, 3)}},
      {"three axes", {halves, axis_of(3, {{0, 2, 2}, {1, 3, 2}}), halves}},
      {"gaps", {flat, axis_of(5, {{0, 1, 1}, {3, 4, 1}}), halves}},
  };
  return all;
}
// body(output pixel, input pixels, divisor)
template <class Body>
void each_window(const std::array<PoolAxis, 3>& axes, Body body) {
  Index pixel = 0;
  for (std::size_t z = 0; z < axes[0].begin.size(); ++z) {
    for (std::size_t y = 0; y < axes[1].begin.size(); ++y) {
      for (std::size_t x = 0; x < axes[2].begin.size(); ++x, ++pixel) {
        std::vector<Index> window;
        for (Index c = axes[0].begin[z]; c < axes[0].end[z]; c += axes[0].step) {
          for (Index b = axes[1].begin[y]; b < axes[1].end[y]; b += axes[1].step) {
            for (Index a = axes[2].begin[x]; a < axes[2].end[x]; a += axes[2].step) {
              window.push_back((c * axes[1].in + b) * axes[2].in + a);
            }
          }
        }
        body(pixel, window, axes[0].count[z] * axes[1].count[y] * axes[2].count[x]);
      }
    }
  }
}
Index size_of(const std::array<PoolAxis, 3>& axes, bool out) {
  return out ? axes[0].out() * axes[1].out() * axes[2].out() : axes[0].in * axes[1].in * axes[2].in;
}

TEST(average_pool) {
  for (const auto& [name, axes] : pools()) {
    for (const Index channels : {1, 16, 33}) {
      check::context = std::string(name) + ", " + std::to_string(channels) + " channels";
      Wires wires{size_of(axes, false) * channels, {}, {}};
      each_window(axes, [&](Index, const std::vector<Index>& window, Index divisor) {
        for (Index c = 0; c < channels; ++c) {
          auto& fed = wires.outputs.emplace_back();
          for (const Index at : window) {
            fed.push_back({at * channels + c, 1 / static_cast<double>(divisor)});
          }
          wires.bias.push_back(0);
        }
      });
      check_shares_of_both<PoolLayer>(wires, {wires.inputs}, nullptr, false, axes, channels);
    }
  }
}

template <class T>
void check_max_pool(const std::array<PoolAxis, 3>& axes, Index channels) {
  const Index in = size_of(axes, false) * channels, out = size_of(axes, true) * channels;
  Fenced<T> x(kBatch, in), r(kRows, out);
  Random random(4);
  x.fill([&] { return std::floor(random(-2, 2)); });  // many ties
  r.fill([&] { return std::floor(random(-8, 8)); });  // sums are exact
  Run<T> run(PoolLayer<T>(true, axes, channels), {in}, x, r, nullptr, 1);
  std::vector<T> wanted(static_cast<std::size_t>(kRows * in));
  bool forward = true, right = true;
  each_window(axes, [&](Index pixel, const std::vector<Index>& window, Index) {
    for (Index c = 0; c < channels; ++c) {
      for (Index row = 0; row < kRows; ++row) {
        Index winner = window[0];
        for (const Index at : window) {
          winner = x.at(row % kBatch, at * channels + c) > x.at(row % kBatch, winner * channels + c) ? at : winner;
        }
        forward =
            forward && run.output.at(row % kBatch, pixel * channels + c) == x.at(row % kBatch, winner * channels + c);
        wanted[static_cast<std::size_t>(row * in + winner * channels + c)] += r.at(row, pixel * channels + c);
      }
    }
  });
  for (Index row = 0; row < kRows; ++row) {
    for (Index k = 0; k < in; ++k) {
      right = right && run.result(row, k) == wanted[static_cast<std::size_t>(row * in + k)];
    }
    const kernels::Absorbed& lost = run.absorbed[static_cast<std::size_t>(row)];
    right = right && lost.dead == 0 && lost.stabilizer == 0 && lost.padding == 0;
  }
  CHECK(forward);
  CHECK(right);
  Run<T> again(PoolLayer<T>(true, axes, channels), {in}, x, r, nullptr, 3);
  CHECK(run.same(again) && run.intact());
}
TEST(max_pool) {
  for (const auto& [name, axes] : pools()) {
    for (const Index channels : {1, 15, 16, 17, 33}) {
      check::context = std::string(name) + ", " + std::to_string(channels) + " channels";
      check_max_pool<float>(axes, channels);
      check_max_pool<double>(axes, channels);
    }
  }
  // NaN shows up wherever it stands in a window.
  Fenced<float> x(1, 16), y(1, 4, 0);
  for (const Index at : {0, 1, 4, 5}) {
    x.fill([] { return 1; });
    x.at(0, at) = std::numeric_limits<float>::quiet_NaN();
    PoolLayer<float>(true, pools()[0].second, 1).forward({x.read()}, y.view(), {}, {1});
    CHECK(std::isnan(y.at(0, 0)) && y.at(0, 3) == 1);
  }
}

// Nobody to win: what comes is lost.
TEST(max_pool_without_a_window) {
  const PoolAxis flat = axis_of(1, {{0, 1, 1}}), gap = axis_of(4, {{0, 0, 2}, {0, 4, 4}});
  Fenced<float> x(kBatch, 8), r(kRows, 4);
  x.fill(Random(1));
  r.fill([] { return 3; });
  Run<float> run(PoolLayer<float>(true, {flat, flat, gap}, 2), {8}, x, r, nullptr, 1);
  for (Index row = 0; row < kRows; ++row) {
    const float* const result = run.results[0]->row(row);
    CHECK(run.output.at(row % kBatch, 0) == -std::numeric_limits<float>::infinity());
    CHECK(std::count(result, result + 8, 3.0f) == 2 && std::count(result, result + 8, 0.0f) == 6);
  }
  CHECK(run.intact());
}

}  // namespace
}  // namespace pylrp
