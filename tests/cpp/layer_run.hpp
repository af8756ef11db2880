// One run of a layer without weights, and what it is checked against.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "check.hpp"
#include "layers/layer.hpp"
#include "reference.hpp"
#include "rules.hpp"

namespace pylrp {

inline constexpr Index kBatch = 2, kTargets = 2, kRows = kBatch * kTargets;

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
    if (layer.flow() != Flow::kIdentity) {
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

inline std::vector<NamedRule> proportional_rules() {
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
    LayerArrays<T> data(kBatch, kTargets, wires.inputs, n_out);
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

}  // namespace pylrp
