// The layers without weights. Those that share relevance in proportion are wires with a rule, like any other.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "check.hpp"
#include "layers/combine.hpp"
#include "layers/pointwise.hpp"
#include "layers/pool.hpp"
#include "layers/sparse.hpp"
#include "reference.hpp"
#include "rules.hpp"

namespace pylrp {
namespace {

constexpr Index kBatch = 2, kTargets = 2, kRows = kBatch * kTargets;

// One run of a layer on inputs of its own.
template <class T>
struct Run {
  std::vector<std::unique_ptr<Fenced<T>>> inputs, results;
  Fenced<T> output;
  std::vector<kernels::Absorbed> absorbed;

  // x(batch, all inputs one after the other)
  Run(const Layer<T>& layer, const std::vector<Index>& sizes, Fenced<T>& x, Fenced<T>& relevance,
      const CompiledRule* rule, int threads)
      : output(kBatch, relevance.cols(), 1), absorbed(kRows) {
    std::vector<Matrix<const T>> views;
    RelevanceJob<T> job;
    Index at = 0;
    for (const Index size : sizes) {
      inputs.push_back(std::make_unique<Fenced<T>>(kBatch, size));
      results.push_back(std::make_unique<Fenced<T>>(kRows, size, 2));
      for (Index i = 0; i < kBatch; ++i) {
        std::copy_n(x.row(i) + at, size, inputs.back()->row(i));
      }
      at += size;
      views.push_back(inputs.back()->read());
      job.inputs.push_back(layer.reads_inputs(rule) ? views.back() : Matrix<const T>{});
      job.results.push_back(results.back()->view());
    }
    layer.forward(views, output.view(), {}, {threads});
    job.relevance = relevance.read();
    job.batch = kBatch;
    job.rule = rule;
    job.absorbed = absorbed.data();
    if (layer.flow() != Flow::kSame) {
      layer.relevance(job, {threads});
    }
  }
  T result(Index row, Index entry) {
    std::size_t k = 0;
    while (entry >= results[k]->cols()) {
      entry -= results[k++]->cols();
    }
    return results[k]->at(row, entry);
  }
  bool intact() {
    bool all = output.intact();
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      all = all && inputs[k]->intact() && results[k]->intact();
    }
    return all;
  }
  bool same(Run& other) {
    bool all = same_bits(output.entries(), other.output.entries());
    for (std::size_t k = 0; k < results.size(); ++k) {
      all = all && same_bits(results[k]->entries(), other.results[k]->entries());
    }
    const auto lost = [](const Run& run) {
      std::vector<double> columns;
      for (const kernels::Absorbed& page : run.absorbed) {
        columns.insert(columns.end(), {page.bias, page.stabilizer, page.dead, page.padding, page.batchnorm});
      }
      return columns;
    };
    return all && same_bits(lost(*this), lost(other));
  }
};

std::vector<NamedRule> proportional_rules() {
  Rule own = rule_named("epsilon");
  own.groups[0].epsilon = 1e-6;
  return {{"", own}, {"epsilon", rule_named("epsilon")}, {"where zero", rule_named("where zero")}};
}

// bias: where its share is written, batchnorm or padding.
template <class T>
void check_shares(const Layer<T>& layer, const Wires& wires, const std::vector<Index>& sizes,
                  double kernels::Absorbed::* bias = nullptr, bool nonnegative = false) {
  const std::string what = check::context;
  const Index n_out = static_cast<Index>(wires.outputs.size());
  for (const NamedRule& named : proportional_rules()) {
    check::context = what + ", " + named.name + ", bytes " + std::to_string(sizeof(T));
    Operands<T> data(kBatch, kTargets, wires.inputs, n_out);
    Random random(5);
    data.fill(random, nonnegative);
    const Reference expected = reference<T>(wires, data, named.rule, Care::kSettle);
    const CompiledRule rule(named.rule);
    const CompiledRule* const given = named.name.empty() ? nullptr : &rule;  // its own: 1e-6
    Run<T> run(layer, sizes, data.input, data.relevance, given, 1);
    bool forward = true, right = true, account = true;
    double shared = 0;  // by the bias
    for (Index i = 0; i < kBatch; ++i) {
      for (Index j = 0; j < n_out; ++j) {
        forward = forward && near(run.output.at(i, j), expected.output[static_cast<std::size_t>(i * n_out + j)]);
      }
    }
    for (Index row = 0; row < kRows; ++row) {
      for (Index k = 0; k < wires.inputs; ++k) {
        right = right && near(run.result(row, k), expected.relevance[static_cast<std::size_t>(row * wires.inputs + k)]);
      }
      kernels::Absorbed lost = run.absorbed[static_cast<std::size_t>(row)];
      const auto of = [&](int column) { return expected.absorbed[column][static_cast<std::size_t>(row)]; };
      account = account && near(lost.stabilizer, of(1)) && near(lost.dead, of(2));
      if (bias != nullptr) {
        account = account && near(lost.*bias, of(0));
        shared += of(0).size;
        lost.*bias = 0;
      }
      account = account && lost.bias == 0 && lost.padding == 0 && lost.batchnorm == 0;
    }
    CHECK(forward);
    CHECK(right);
    CHECK(account && (bias == nullptr || shared > 0));
    CHECK(run.intact() && data.intact());
    for (const int threads : {2, 3}) {
      Run<T> again(layer, sizes, data.input, data.relevance, given, threads);
      CHECK(run.same(again));
    }
  }
  check::context = what;
}
template <template <class> class L, class... Args>
void check_shares_of_both(const Wires& wires, const std::vector<Index>& sizes, double kernels::Absorbed::* bias,
                          const Args&... args) {
  check_shares<float>(L<float>(args...), wires, sizes, bias);
  check_shares<double>(L<double>(args...), wires, sizes, bias);
}

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

// --- pools ---

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
    for (const Index channels : {1, 15, 16, 17, 33}) {
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
  bool right = layer.flow() == Flow::kSame;
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
