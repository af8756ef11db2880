// Small fixed pieces of work, one thread, for valgrind's callgrind: bench/instructions.py counts what measured()
// executes.
//   workload          the compiler, the instruction sets that run here (best first), the names; one a line
//   workload NAME     that one
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>

#include "conv_run.hpp"
#include "engine/chain.hpp"
#include "kernels/dispatch.hpp"
#include "layers/registry.hpp"

// Called once: callgrind collects between entry and return of measured* (the compiler may clone it).
extern "C" __attribute__((noinline)) void measured(const std::function<void()>& work) {
  work();
  asm volatile("");  // not a tail call
}

namespace pylrp {
namespace {

// Zeros in all but an n-th of the entries, in no order.
template <class T>
void thin(Matrix<T> x, std::uint32_t n) {
  std::uint32_t state = 1;
  for (Index i = 0; i < x.rows; ++i) {
    for (Index j = 0; j < x.cols; ++j) {
      state = state * 1664525u + 1013904223u;
      x.row(i)[j] *= state >> 16 < 65536u / n ? T(1) : T(0);
    }
  }
}

// One layer with an input >= 0, as behind a ReLU; one_of: an n-th of input and relevance is not zero.
template <class T>
void layer(const char* rule, Index batch, Index n_in, Index n_out, std::uint32_t one_of = 1) {
  DenseData<T> layer(batch, n_in, n_out, 1, true);
  thin(layer.input.view(), one_of);
  thin(layer.relevance.view(), one_of);
  Fenced<T> result(batch, n_in, 0);
  const CompiledRule compiled(rule_named(rule));
  const DenseJob<T> job{{layer.weight.read(), layer.bias.data()},
                        &compiled.form(true),
                        {layer.low.data(), layer.high.data()},
                        nullptr,
                        layer.input.read(),
                        {},
                        layer.relevance.read(),
                        result.view()};
  measured([&] { dense_relevance(job, {1}); });
}

template <class T>
void forward(Index batch, Index n_in, Index n_out) {
  DenseData<T> layer(batch, n_in, n_out, 1, true);
  Fenced<T> output(batch, n_out, 0);
  measured([&] { dense_forward<T>({layer.weight.read(), layer.bias.data()}, layer.input.read(), output.view(), {1}); });
}

// 784-300-10, one sample: w^2 at the input, z+ above, with the ledger.
void small_network() {
  DenseData<float> first(1, 784, 300, 1, true), second(1, 300, 10, 2, true);
  Fenced<float> hidden(1, 300), result(1, 784);
  const CompiledRule bottom(rule_named("w^2")), top(rule_named("z+"));
  const std::vector<ChainLayer<float>> layers{
      {{first.weight.read()}, &bottom, {}, true, nullptr, first.input.read(), {}, result.view()},
      {{second.weight.read()}, &top, {}, true, nullptr, second.input.read(), {}, hidden.view()}};
  std::vector<double> ledger(2 * kLedgerColumns);
  measured([&] { relevance_through_chain<float>(layers, second.relevance.read(), ledger.data(), {1}); });
}

// One convolution with signed inputs, 28 x 28 positions.
struct Convolution {
  ConvData<float> data;
  Fenced<float> output;

  Convolution(Index kernel, Index in, Index out, Index groups)
      : data(Geometry{{1, 28, 28},
                      {1, kernel, kernel},
                      {1, 1, 1},
                      {1, 1, 1},
                      {0, kernel / 2, kernel / 2},
                      {0, kernel / 2, kernel / 2}}
                 .shape(in, out, groups),
             false, 1, 1, 1, false),
        output(1, data.relevance.cols()) {}
  Convolution& zeros_but(std::uint32_t one_of) {
    thin(data.input.view(), one_of);
    thin(data.relevance.view(), one_of);
    return *this;
  }
  Convolution& below_a_pool() {
    keep_one_of_four(&data.relevance, data.shape.out, data.shape.out_channels);
    return *this;
  }
  void forward() {
    const ConvLayer<float> layer = data.layer(true);
    measured([&] { layer.forward({data.input.read()}, output.view(), {}, {1}); });
  }
  void relevance(const char* rule) {
    Options options(0);
    options.nonnegative = options.positive = options.prepared = false;
    options.threads = 1;
    const CompiledRule compiled(rule_named(rule));
    const ConvLayer<float> layer = data.layer(true);
    measured([&] { Relevance<float>(layer, data, compiled, {}, options); });
  }
};

auto small_numbers() {
  return [n = 0]() mutable { return 0.01 * ((n = (7 * n + 13) % 29) - 14); };
}

// An LSTM's description: 64 features, 128 units, its last state.
class LSTMFields : public Fields<float> {
 public:
  explicit LSTMFields(Index steps) : steps_(steps), weight_(512, 64), recurrent_(512, 128) {
    weight_.fill(small_numbers());
    recurrent_.fill(small_numbers());
  }
  Index integer(const char*, Path) const override { return 0; }
  std::vector<Index> integers(const char* name, Path) const override {
    const std::string what = name;
    if (what == "x") {
      return {steps_, 64, 64, 1};
    }
    return what == "y"        ? std::vector<Index>{-1, 0, 0}
           : what == "ends"   ? std::vector<Index>{0, -1}
           : what == "order"  ? std::vector<Index>{0, 1, 2, 3}
           : what == "inputs" ? std::vector<Index>{-1, -1, -1}
                              : std::vector<Index>{0};
  }
  double real(const char*) const override { return std::numeric_limits<double>::infinity(); }
  std::vector<double> reals(const char*) const override { return {0, 0, 0}; }
  bool flag(const char*) const override { return false; }
  std::string text(const char*, Path at) const override { return *at.begin() == 0 ? "sigmoid" : "tanh"; }
  bool has(const char*) const override { return false; }
  Matrix<const float> matrix(const char* name) const override {
    return std::strcmp(name, "weight") == 0 ? weight_.read() : recurrent_.read();
  }
  const float* vector_or_null(const char*, Index) const override { return nullptr; }
  Matrix<const std::int32_t> table(const char*) const override { return {}; }

 private:
  Index steps_;
  mutable Fenced<float> weight_, recurrent_;
};

// Prediction and relevance of one sample.
void lstm(Index steps) {
  const LSTMFields fields(steps);
  const std::unique_ptr<Layer<float>> layer = layer_kinds().make<float>("lstm", fields);
  Fenced<float> input(1, steps * 64), output(1, 128), kept(1, layer->kept_entries(nullptr)), result(1, steps * 64);
  input.fill(small_numbers());
  kernels::Absorbed absorbed;
  RelevanceJob<float> job;
  job.inputs = {input.read()};
  job.output = job.relevance = output.read();
  job.kept = kept.read();
  job.results = {result.view()};
  job.batch = 1;
  job.absorbed = &absorbed;
  measured([&] {
    layer->forward_keeping({input.read()}, output.view(), kept.view(), {1});
    layer->relevance(job, {1});
  });
}

struct Workload {
  const char* name;
  void (*run)();
};
constexpr Workload kWorkloads[] = {
    {"network 784-300-10, batch 1", small_network},
    {"z+ 512x512, batch 1", [] { layer<float>("z+", 1, 512, 512); }},
    {"z+ 512x512, batch 64", [] { layer<float>("z+", 64, 512, 512); }},
    {"z+ 512x512, batch 64, float64", [] { layer<double>("z+", 64, 512, 512); }},
    {"epsilon 512x512, batch 64", [] { layer<float>("epsilon", 64, 512, 512); }},
    {"gamma 512x512, batch 64", [] { layer<float>("gamma", 64, 512, 512); }},
    {"alpha-beta 512x512, batch 64", [] { layer<float>("alpha-beta", 64, 512, 512); }},
    {"z+ 512x512, batch 64, an eighth not zero", [] { layer<float>("z+", 64, 512, 512, 8); }},
    {"z-box 512x512, batch 64", [] { layer<float>("z-box", 64, 512, 512); }},
    {"forward 512x512, batch 1", [] { forward<float>(1, 512, 512); }},
    {"forward 512x512, batch 64", [] { forward<float>(64, 512, 512); }},
    {"convolution 3x3, 64 to 64, forward", [] { Convolution(3, 64, 64, 1).forward(); }},
    {"convolution 3x3, 64 to 64, z+", [] { Convolution(3, 64, 64, 1).relevance("z+"); }},
    {"convolution 3x3, 64 to 64, forward, a fourth not zero", [] { Convolution(3, 64, 64, 1).zeros_but(4).forward(); }},
    {"convolution 3x3, 64 to 64, z+, an eighth not zero",
     [] { Convolution(3, 64, 64, 1).zeros_but(8).relevance("z+"); }},
    {"convolution 3x3, 64 to 64, z+, below a pool", [] { Convolution(3, 64, 64, 1).below_a_pool().relevance("z+"); }},
    {"convolution 3x3, 3 to 32, gamma", [] { Convolution(3, 3, 32, 1).relevance("gamma"); }},
    {"convolution 1x1, 24 to 96, z+", [] { Convolution(1, 24, 96, 1).relevance("z+"); }},
    {"convolution 1x1, 24 to 96, alpha-beta", [] { Convolution(1, 24, 96, 1).relevance("alpha-beta"); }},
    {"convolution 3x3, depthwise 96, z+", [] { Convolution(3, 96, 96, 96).relevance("z+"); }},
    {"LSTM 64 to 128, explained, 50 steps", [] { lstm(50); }},
    {"LSTM 64 to 128, explained, 100 steps", [] { lstm(100); }},
};

}  // namespace
}  // namespace pylrp

int main(int argc, char** argv) {
  pylrp::kernels::active();  // chosen once, not part of the work
  if (argc < 2) {
#ifdef __clang__
    std::printf("clang %d\n", __clang_major__);
#else
    std::printf("gcc %d\n", __GNUC__);
#endif
    for (const std::string& isa : pylrp::kernels::supported()) {
      std::printf("%s ", isa.c_str());
    }
    std::puts("");
  }
  for (const auto& workload : pylrp::kWorkloads) {
    if (argc < 2) {
      std::puts(workload.name);
    } else if (std::strcmp(workload.name, argv[1]) == 0) {
      workload.run();
      return 0;
    }
  }
  return argc < 2 ? 0 : 1;
}
