// A network as a graph of layers: its forward pass, and relevance from any value back to the inputs.
//
// A value is what an input or a node carries: inputs come first, node i makes value inputs() + i. Nodes are in
// topological order. Graph and Plan are immutable: several threads may run them at once.
#pragma once

#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "engine/ledger.hpp"
#include "layers/layer.hpp"

namespace pylrp {

template <class T>
struct GraphNode {
  std::unique_ptr<Layer<T>> layer;
  std::vector<std::size_t> inputs;  // values
  Index size;                       // of the value it makes
};

template <class T>
class Graph {
 public:
  // Throws Error where a layer does not fit the values that it reads and makes.
  Graph(std::vector<Index> inputs, std::vector<GraphNode<T>> nodes);

  std::size_t inputs() const { return inputs_.size(); }
  const std::vector<GraphNode<T>>& nodes() const { return nodes_; }
  std::size_t values() const { return inputs() + nodes_.size(); }
  Index size(std::size_t value) const;
  // The nodes that read a value, once for each time they do.
  const std::vector<std::size_t>& readers(std::size_t value) const { return readers_[value]; }
  // Where runs get the memory of their values.
  Workspace* workspace() const { return workspace_.get(); }
  // Of a forward pass of one sample: multiplications, a value's element counts as much as 16.
  Index work() const { return work_; }
  // >= 0 whatever the inputs are.
  bool nonnegative(std::size_t value) const { return nonnegative_[value]; }

 private:
  std::vector<Index> inputs_;
  std::vector<GraphNode<T>> nodes_;
  std::vector<std::vector<std::size_t>> readers_;
  std::vector<bool> nonnegative_;
  Index work_ = 0;
  std::unique_ptr<Workspace> workspace_ = std::make_unique<Workspace>();
};

// The rules of a graph's nodes, and what depends on them and the weights alone.
template <class T>
class Plan {
 public:
  struct NodeRule {
    const CompiledRule* rule = nullptr;  // null: the layer's own way
    Bounds<T> bounds;
  };
  // The graph, rules and bounds are the caller's to keep alive.
  Plan(const Graph<T>& graph, std::vector<NodeRule> rules, const Threads& threads);

  // The values that a run has, with their memory.
  struct Pass {
    std::vector<Matrix<const T>> values;
    std::vector<Buffer<T>> memory;
    std::vector<bool> wanted;
    Index batch = 0;
  };
  // wanted: values that must be there afterwards. start: the value whose relevance will be asked for, or none
  // (kNoValue): then nothing else is kept.
  static constexpr std::size_t kNoValue = ~std::size_t{0};
  Pass forward(const std::vector<Matrix<const T>>& inputs, const std::vector<std::size_t>& wanted, std::size_t start,
               const Threads& threads) const;

  struct Mask {
    std::size_t value;
    std::vector<bool> channels;  // those that stay
  };
  // What relevance() fills and obeys: result(value) is where a value's relevance (targets * batch, size) goes, no data:
  // nowhere; ledger(node, column, row).
  struct Request {
    std::size_t start;
    Matrix<const T> top;
    std::vector<Matrix<T>> results;
    std::vector<Mask> masks;
    double* ledger;
  };
  // Frees what it has read for the last time, but for the values wanted.
  void relevance(Pass* pass, const Request& request, const Threads& threads) const;

 private:
  struct Roles;
  Roles roles(std::size_t start) const;
  bool passes(std::size_t node) const;

  const Graph<T>& graph_;
  std::vector<NodeRule> rules_;
  std::vector<std::unique_ptr<Prepared>> prepared_;
};

}  // namespace pylrp
