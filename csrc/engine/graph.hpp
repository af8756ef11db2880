// A network as a graph of layers, and its forward pass. plan.hpp adds rules and relevance.
//
// A value is what an input or a node carries: inputs come first, node i makes value inputs() + i. Nodes are in
// topological order. A graph is immutable: several threads may run it at once.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "layers/layer.hpp"

namespace pylrp {

inline constexpr std::size_t kNoValue = ~std::size_t{0};

template <class T>
struct GraphNode {
  std::unique_ptr<Layer<T>> layer;
  std::vector<std::size_t> inputs;  // values
  Index size;                       // of the value it makes
};

// How a value that a forward pass has not kept is made again where relevance reads it (again.hpp).
enum class Again : std::uint8_t {
  kNever,       // it is kept, or not read
  kComputed,    // by its layer
  kSubtracted,  // from the sum that reads it, and the other summand
};

// The values that a forward pass has left, with their memory, which views share.
template <class T>
struct ForwardValues {
  std::vector<Matrix<const T>> values;
  std::vector<std::shared_ptr<Buffer<T>>> memory;
  std::vector<bool> wanted;
  std::vector<Matrix<T>> kept;  // of nodes: what their layers have written down for relevance
  std::vector<Buffer<T>> kept_memory;
  std::vector<Again> again;       // of values; empty: none
  std::vector<std::size_t> cuts;  // nodes: below each, what relevance reads is to be computed again (checkpoints.hpp)
  Index batch = 0;

  // The same values, without what layers have written down.
  ForwardValues copy() const {
    ForwardValues made;
    made.values = values;
    made.memory = memory;
    made.wanted = wanted;
    made.kept.resize(kept.size());
    made.kept_memory.resize(kept_memory.size());
    made.batch = batch;
    return made;
  }
  // Does nothing else look at this value's memory? Never at an input's, which is the caller's.
  bool alone(std::size_t value) const { return memory[value] != nullptr && memory[value].use_count() == 1; }
};

// What relevance will ask of a forward pass: the value it starts at, a bit a value that it reads, and for each node how
// many entries a sample its layer writes down (Layer::kept_entries). As it is: nothing.
struct KeptValues {
  std::size_t start = kNoValue;
  std::vector<bool> values;
  std::vector<Index> entries;
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

  // wanted: values that must be there afterwards. Others are freed after their last use, or not computed at all, but
  // for those that are kept for relevance.
  ForwardValues<T> forward(const std::vector<Matrix<const T>>& inputs, const std::vector<std::size_t>& wanted,
                           const Threads& threads, const KeptValues& kept = {}) const;
  // Adds what is kept of the nodes in [first, last), computed from the values that are there.
  void compute_again(std::size_t first, std::size_t last, const KeptValues& kept, const Threads& threads,
                     ForwardValues<T>* values) const;

 private:
  std::vector<Index> inputs_;
  std::vector<GraphNode<T>> nodes_;
  std::vector<std::vector<std::size_t>> readers_;
  std::vector<bool> nonnegative_;
  Index work_ = 0;
  std::unique_ptr<Workspace> workspace_ = std::make_unique<Workspace>();
};

}  // namespace pylrp
