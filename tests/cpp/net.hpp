// Graphs for the tests: built node by node, with layers that remember what the engine asked of them.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "conv_data.hpp"
#include "engine/plan.hpp"
#include "layers/activation.hpp"
#include "layers/add.hpp"
#include "layers/affine.hpp"
#include "layers/concat.hpp"
#include "layers/dense/dense_layer.hpp"
#include "layers/lrn.hpp"
#include "layers/pool.hpp"
#include "layers/prelu.hpp"
#include "layers/softmax.hpp"
#include "layers/sparse.hpp"
#include "layers/standardize.hpp"
#include "reference.hpp"
#include "rules.hpp"

namespace pylrp {

// What the engine told a layer, the last time.
struct Seen {
  bool fused = false, in_place = false;                                       // forward
  bool nonnegative = false, positive = false, input = false, output = false;  // relevance
  unsigned replaced = 0;                                                      // bits of inputs: relevance over them
  bool spare = false;                                                         // s may lie over relevance
  int forwards = 0, relevances = 0;
};

template <class T>
class Spy : public Layer<T> {
 public:
  Spy(std::unique_ptr<Layer<T>> layer, const std::function<void()>* meanwhile)
      : layer_(std::move(layer)), meanwhile_(meanwhile) {}
  Flow flow() const override { return layer_->flow(); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override {
    layer_->require_sizes(inputs, output);
  }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override {
    seen_.fused = clamp.low > Clamp<T>{}.low || clamp.high < Clamp<T>{}.high;
    seen_.in_place = inputs[0].data == output.data;
    ++seen_.forwards;
    layer_->forward(inputs, output, clamp, threads);
  }
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override {
    seen_.nonnegative = job.input_nonnegative;
    seen_.positive = job.output_positive;
    seen_.input = bool(job.inputs[0]);
    seen_.output = bool(job.output);
    seen_.replaced = 0;
    for (std::size_t k = 0; k < job.inputs.size(); ++k) {
      seen_.replaced |= job.inputs[k] && job.inputs[k].data == job.results[k].data ? 1u << k : 0u;
    }
    seen_.spare = bool(job.spare);
    ++seen_.relevances;
    if (*meanwhile_) {
      (*meanwhile_)();
    }
    layer_->relevance(job, threads);
  }
  bool in_place() const override { return layer_->in_place(); }
  bool clamps() const override { return layer_->clamps(); }
  bool is_clamp(Clamp<T>* clamp) const override { return layer_->is_clamp(clamp); }
  bool makes_nonnegative() const override { return layer_->makes_nonnegative(); }
  bool keeps_nonnegative() const override { return layer_->keeps_nonnegative(); }
  bool keeps_zero() const override { return layer_->keeps_zero(); }
  bool relevance_in_place() const override { return layer_->relevance_in_place(); }
  bool reads_inputs(const CompiledRule* rule) const override { return layer_->reads_inputs(rule); }
  bool reads_output(const CompiledRule* rule, bool at_hand) const override {
    return layer_->reads_output(rule, at_hand);
  }
  std::unique_ptr<Prepared> prepare(const CompiledRule& rule, const Bounds<T>& bounds,
                                    const Threads& threads) const override {
    return layer_->prepare(rule, bounds, threads);
  }
  const Seen& seen() const { return seen_; }

 private:
  std::unique_ptr<Layer<T>> layer_;
  const std::function<void()>* meanwhile_;
  mutable Seen seen_;
};

// Inputs are declared before nodes. Every call returns the new value.
template <class T>
class Net {
 public:
  // Spies write down what they see: not for several threads at once.
  explicit Net(std::vector<Index> inputs, bool spied = true)
      : spied_(spied), inputs_(std::move(inputs)), sizes_(inputs_) {}

  std::size_t add(std::unique_ptr<Layer<T>> layer, std::vector<std::size_t> from, Index size,
                  const CompiledRule* rule = nullptr, Bounds<T> bounds = {}) {
    if (graph_) {
      throw std::logic_error("the graph is made already");
    }
    if (spied_) {
      auto spy = std::make_unique<Spy<T>>(std::move(layer), meanwhile_.get());
      spies_.push_back(spy.get());
      layer = std::move(spy);
    }
    nodes_.push_back({std::move(layer), std::move(from), size});
    assigned_.push_back({rule, bounds});
    sizes_.push_back(size);
    return sizes_.size() - 1;
  }
  std::size_t dense(std::size_t from, Index n_out, const char* rule) {
    const unsigned seed = static_cast<unsigned>(dense_.size());
    DenseData<T>& data = *dense_.emplace_back(std::make_unique<DenseData<T>>(1, sizes_[from], n_out, seed, false));
    return add(std::make_unique<DenseLayer<T>>(data.layer()), {from}, n_out, compiled(rule), data.bounds());
  }
  std::size_t conv(std::size_t from, const ConvShape& shape, const char* rule, bool transposed = false) {
    const unsigned seed = static_cast<unsigned>(10 + convs_.size());
    ConvData<T>& data = *convs_.emplace_back(std::make_unique<ConvData<T>>(shape, transposed, 1, 1, seed, false));
    return add(std::make_unique<ConvLayer<T>>(data.layer(true)), {from}, image_size(shape, !transposed), compiled(rule),
               data.bounds());
  }
  std::size_t activation(std::size_t from, const Activation& f) {
    return add(std::make_unique<ActivationLayer<T>>(f), {from}, sizes_[from]);
  }
  std::size_t relu(std::size_t from) { return activation(from, {ActivationKind::kReLU}); }
  std::size_t sum(std::vector<std::size_t> from) {
    const Index size = sizes_[from[0]];
    return add(std::make_unique<AddLayer<T>>(), std::move(from), size);
  }

  const CompiledRule* compiled(const char* name) {
    return &rules_.emplace_back(*name == 0 ? Rule{} : rule_named(name));
  }
  // Once, when all is there.
  const Graph<T>& graph() {
    if (!graph_) {
      graph_ = std::make_unique<Graph<T>>(inputs_, std::move(nodes_));
    }
    return *graph_;
  }
  Plan<T> plan(int threads = 1) {
    const Graph<T>& made = graph();
    return Plan<T>(made, assigned_, {threads});
  }
  // Called whenever a layer is asked for relevance.
  void meanwhile(std::function<void()> look) { *meanwhile_ = std::move(look); }
  const Seen& seen(std::size_t value) const { return spies_[value - inputs_.size()]->seen(); }
  std::size_t node_of(std::size_t value) const { return value - inputs_.size(); }
  Index size(std::size_t value) const { return sizes_[value]; }
  std::size_t values() const { return sizes_.size(); }
  std::vector<std::size_t> all_values() const {
    std::vector<std::size_t> all;
    for (std::size_t value = 0; value < sizes_.size(); ++value) {
      all.push_back(value);
    }
    return all;
  }
  const CompiledRule* rule(std::size_t node) const { return assigned_[node].rule; }
  Bounds<T> bounds(std::size_t node) const { return assigned_[node].bounds; }
  DenseData<T>& dense_data(std::size_t n) { return *dense_[n]; }
  // Nobody wrote the weights or bounds, or read around them.
  bool intact() {
    bool all = true;
    for (auto& data : dense_) {
      all = all && data->intact();
    }
    for (auto& data : convs_) {
      all = all && data->intact();
    }
    return all;
  }

 private:
  bool spied_;
  std::vector<Index> inputs_, sizes_;
  std::vector<GraphNode<T>> nodes_;
  std::vector<NodeRule<T>> assigned_;
  std::vector<const Spy<T>*> spies_;
  std::unique_ptr<std::function<void()>> meanwhile_ = std::make_unique<std::function<void()>>();
  std::deque<CompiledRule> rules_;
  std::vector<std::unique_ptr<DenseData<T>>> dense_;
  std::vector<std::unique_ptr<ConvData<T>>> convs_;
  std::unique_ptr<Graph<T>> graph_;
};

// A question: where relevance starts and how much of it, what is wanted.
template <class T>
struct Question {
  std::size_t start;
  Index targets = 1;
  std::vector<std::size_t> wanted = {}, asked = {};  // values; values whose relevance is asked for
  std::vector<ChannelMask> masks = {};
  int threads = 1;
  Index most_bytes = kMostKeptBytes;  // of values that the forward pass keeps for relevance
};

template <class T>
struct Answer {
  std::vector<std::vector<T>> values;     // of the wanted ones, by value
  std::vector<std::vector<T>> relevance;  // of the asked ones, by value
  std::vector<double> ledger;             // (nodes, columns, rows)
  std::vector<std::size_t> left;          // values with memory when all is done
  std::size_t kept = 0;                   // values with memory after the forward pass
  Index rows = 0;
  bool clean = true;  // shapes are right, nothing was written beside the results

  double page(std::size_t node, Ledger::Column column, Index row) const {
    return ledger[(node * kLedgerColumns + column) * static_cast<std::size_t>(rows) + static_cast<std::size_t>(row)];
  }
};

// Everything in fenced memory.
template <class T>
class Inputs {
 public:
  Inputs(const Net<T>& net, std::size_t count, Index batch, unsigned seed, bool nonnegative = false) : batch_(batch) {
    Random random(seed);
    for (std::size_t i = 0; i < count; ++i) {
      fenced_.push_back(std::make_unique<Fenced<T>>(batch, net.size(i)));
      fenced_.back()->fill([&] { return random.chance(0.2) ? 0 : random(nonnegative ? 0 : -1, 1); });
    }
  }
  std::vector<Matrix<const T>> views() const {
    std::vector<Matrix<const T>> all;
    for (const auto& fenced : fenced_) {
      all.push_back(fenced->read());
    }
    return all;
  }
  Fenced<T>& operator[](std::size_t i) { return *fenced_[i]; }
  Index batch() const { return batch_; }
  bool intact() const {
    bool all = true;
    for (const auto& fenced : fenced_) {
      all = all && fenced->intact();
    }
    return all;
  }

 private:
  Index batch_;
  std::vector<std::unique_ptr<Fenced<T>>> fenced_;
};

// The relevance at the start: the same for a row whatever else is asked.
template <class T>
void fill_top(Fenced<T>& top, Index batch, Index first_target = 0) {
  for (Index row = 0; row < top.rows(); ++row) {
    Random random(static_cast<unsigned>(77 + 100 * (first_target + row / batch) + row % batch));
    for (Index j = 0; j < top.cols(); ++j) {
      top.at(row, j) = random.chance(0.2) ? T(0) : static_cast<T>(random());
    }
  }
}

// As many of these at once as there are threads.
template <class T>
Answer<T> ask_plan(const Graph<T>& graph, const Plan<T>& plan, const Inputs<T>& inputs, const Question<T>& question,
                   Index first_target = 0) {
  const Index batch = inputs.batch(), rows = question.targets * batch;
  ForwardValues<T> pass =
      plan.forward(inputs.views(), question.wanted, question.start, {question.threads}, false, question.most_bytes);
  Answer<T> answer;
  answer.rows = rows;
  answer.kept = static_cast<std::size_t>(
      std::count_if(pass.memory.begin(), pass.memory.end(), [](const auto& memory) { return memory != nullptr; }));
  answer.values.resize(graph.values());
  answer.relevance.resize(graph.values());
  const auto numbers = [&](std::size_t value) {
    const Matrix<const T> found = pass.values[value];
    answer.clean = answer.clean && found && found.rows == batch && found.cols == graph.size(value);
    std::vector<T> all;
    for (Index i = 0; found && i < batch; ++i) {
      all.insert(all.end(), found.row(i), found.row(i) + found.cols);
    }
    return all;
  };
  for (const std::size_t value : question.wanted) {
    answer.values[value] = numbers(value);
  }
  Fenced<T> top(rows, graph.size(question.start));
  fill_top(top, batch, first_target);
  const std::size_t pages = graph.nodes().size() * kLedgerColumns * static_cast<std::size_t>(rows);
  constexpr double kUnwritten = 99;  // pages are written, not added to
  answer.ledger.assign(pages + 1, kUnwritten);
  std::vector<std::unique_ptr<Fenced<T>>> results(graph.values());
  RelevanceRequest<T> request{question.start, top.read(), {}, question.masks, answer.ledger.data()};
  request.results.resize(graph.values());
  for (const std::size_t value : question.asked) {
    results[value] = std::make_unique<Fenced<T>>(rows, graph.size(value), 1);
    request.results[value] = results[value]->view();
  }
  plan.relevance(&pass, request, {question.threads});
  for (const std::size_t value : question.wanted) {  // still there, as they were
    answer.clean = answer.clean && same_bits(answer.values[value], numbers(value));
  }
  for (std::size_t value = 0; value < graph.values(); ++value) {
    if (pass.memory[value] != nullptr) {
      answer.left.push_back(value);
    }
  }
  for (const std::size_t value : question.asked) {
    answer.relevance[value] = results[value]->entries();
    answer.clean = answer.clean && results[value]->intact();
  }
  answer.clean = answer.clean && answer.ledger.back() == kUnwritten && top.intact();
  answer.ledger.pop_back();
  return answer;
}
template <class T>
Answer<T> ask(Net<T>& net, const Plan<T>& plan, const Inputs<T>& inputs, const Question<T>& question,
              Index first_target = 0) {
  Answer<T> answer = ask_plan(net.graph(), plan, inputs, question, first_target);
  CHECK(answer.clean && inputs.intact() && net.intact());
  return answer;
}

}  // namespace pylrp
