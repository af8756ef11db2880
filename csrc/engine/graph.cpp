#include "engine/graph.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace pylrp {
namespace {

// A forward pass under way.
template <class T>
class Forward {
 public:
  Forward(const Graph<T>& graph, const std::vector<Matrix<const T>>& inputs, const std::vector<std::size_t>& wanted,
          const Threads& threads, const KeptValues& kept)
      : graph_(graph),
        threads_{threads.count, threads.poll, graph.workspace(), threads.bfloat16},
        kept_(kept.values),
        needed_(graph.values()),
        entries_(kept.entries),
        done_(graph.nodes().size()) {
    made_.batch = inputs[0].rows;
    made_.values.resize(graph.values());
    made_.memory.resize(graph.values());
    made_.wanted.resize(graph.values());
    made_.kept.resize(graph.nodes().size());
    made_.kept_memory.resize(graph.nodes().size());
    entries_.resize(graph.nodes().size());
    std::copy(inputs.begin(), inputs.end(), made_.values.begin());
    kept_.resize(graph.values());
    for (std::size_t value = 0; value < graph.values(); ++value) {
      unread_.push_back(graph.readers(value).size());
    }
    for (const std::size_t value : wanted) {
      kept_[value] = needed_[value] = made_.wanted[value] = true;
    }
    if (kept.start != kNoValue) {
      needed_[kept.start] = true;
    }
    for (std::size_t n = graph.nodes().size(); n-- > 0;) {
      if (needed_[graph.inputs() + n]) {
        for (const std::size_t value : graph.nodes()[n].inputs) {
          needed_[value] = true;
        }
      }
    }
  }

  // Of some nodes once more, from what a pass has left.
  Forward(const Graph<T>& graph, const ForwardValues<T>& given, std::size_t first, std::size_t last,
          const Threads& threads, const KeptValues& kept)
      : graph_(graph),
        threads_{threads.count, threads.poll, graph.workspace(), threads.bfloat16},
        made_(given.copy()),
        kept_(graph.values()),
        needed_(graph.values()),
        entries_(graph.nodes().size()),
        done_(graph.nodes().size(), true),
        unread_(graph.values()) {
    for (std::size_t n = last; n-- > first;) {
      const std::size_t value = graph.inputs() + n;
      entries_[n] = kept.entries[n];
      kept_[value] = kept.values[value];
      if (entries_[n] > 0 || ((kept_[value] || needed_[value]) && !made_.values[value])) {
        needed_[value] = true;
        done_[n] = false;
        for (const std::size_t input : graph.nodes()[n].inputs) {
          needed_[input] = true;
          ++unread_[input];
        }
      }
    }
  }

  ForwardValues<T> run() {
    for (std::size_t n = 0; n < graph_.nodes().size(); ++n) {
      if (needed_[graph_.inputs() + n] && !done_[n]) {
        step(n);
      }
    }
    return std::move(made_);
  }

 private:
  void step(std::size_t n) {
    const GraphNode<T>& node = graph_.nodes()[n];
    const std::size_t value = graph_.inputs() + n;
    std::vector<Matrix<const T>> from;
    for (const std::size_t input : node.inputs) {
      from.push_back(made_.values[input]);
    }
    if (node.layer->is_view()) {
      made_.values[value] = from[0];
      made_.memory[value] = made_.memory[node.inputs[0]];
      read(n);
      return;
    }
    const Matrix<T> to = memory_of(n);
    Clamp<T> clamp;
    const bool clamped = next_clamps(n, &clamp);
    if (entries_[n] > 0) {
      node.layer->forward_keeping(from, to, kept_of(n), threads_);
    } else {
      node.layer->forward(from, to, clamped ? clamp : Clamp<T>{}, threads_);
    }
    const Matrix<const T> view{to.data, to.rows, to.cols, to.stride};
    if (clamped) {
      const std::size_t next = graph_.readers(value)[0];
      made_.memory[graph_.inputs() + next] = std::move(made_.memory[value]);
      made_.values[graph_.inputs() + next] = view;
      done_[next] = true;
    } else {
      made_.values[value] = view;
    }
    read(n);
  }

  // Frees what nobody reads after this node.
  void read(std::size_t n) {
    for (const std::size_t input : graph_.nodes()[n].inputs) {
      if (--unread_[input] == 0 && !kept_[input]) {
        made_.values[input] = {};
        made_.memory[input] = nullptr;
      }
    }
  }

  // Where a node writes: over its first input, where it can and is the last to read it, or a new block.
  Matrix<T> memory_of(std::size_t n) {
    const GraphNode<T>& node = graph_.nodes()[n];
    const std::size_t value = graph_.inputs() + n, first = node.inputs[0];
    const bool last_use = unread_[first] == 1 && !kept_[first] && made_.alone(first);
    if (node.layer->in_place() && last_use) {
      made_.memory[value] = std::move(made_.memory[first]);
    } else {
      made_.memory[value] =
          std::make_shared<Buffer<T>>(checked_product({made_.batch, node.size}, "a value"), graph_.workspace());
    }
    return {made_.memory[value]->data(), made_.batch, node.size, node.size};
  }

  Matrix<T> kept_of(std::size_t n) {
    made_.kept_memory[n].reset(checked_product({made_.batch, entries_[n]}, "what a layer keeps"), graph_.workspace());
    made_.kept[n] = {made_.kept_memory[n].data(), made_.batch, entries_[n], entries_[n]};
    return made_.kept[n];
  }

  // Is the only reader a clamp that the node can do itself, and is the value before it not asked for?
  bool next_clamps(std::size_t n, Clamp<T>* clamp) const {
    const std::size_t value = graph_.inputs() + n;
    const auto& readers = graph_.readers(value);
    return graph_.nodes()[n].layer->clamps() && entries_[n] == 0 && !kept_[value] && readers.size() == 1 &&
           needed_[graph_.inputs() + readers[0]] && graph_.nodes()[readers[0]].layer->is_clamp(clamp);
  }

  const Graph<T>& graph_;
  const Threads threads_;
  ForwardValues<T> made_;
  std::vector<bool> kept_, needed_;  // of values; what is not needed is not computed
  std::vector<Index> entries_;       // of nodes: what their layers write down
  std::vector<bool> done_;           // of nodes: as the clamp of the layer before
  std::vector<std::size_t> unread_;  // of values: readers that are still to come
};

}  // namespace

template <class T>
Graph<T>::Graph(std::vector<Index> inputs, std::vector<GraphNode<T>> nodes)
    : inputs_(std::move(inputs)),
      nodes_(std::move(nodes)),
      readers_(inputs_.size() + nodes_.size()),
      nonnegative_(inputs_.size() + nodes_.size()) {
  for (const Index size : inputs_) {
    checked_product({size, Index{sizeof(T)}}, "an input");
  }
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    std::vector<Index> sizes;
    for (const std::size_t value : nodes_[n].inputs) {
      sizes.push_back(size(value));
    }
    try {
      checked_product({nodes_[n].size, Index{sizeof(T)}}, "a value");
      nodes_[n].layer->require_sizes(sizes, nodes_[n].size);
    } catch (const Error& error) {
      throw NodeError(n, error.what());
    }
    bool all = true;
    for (const std::size_t value : nodes_[n].inputs) {
      readers_[value].push_back(n);
      all = all && nonnegative_[value];
    }
    const Layer<T>& layer = *nodes_[n].layer;
    work_ = std::min(kMostEntries, work_ + layer.products() + 16 * nodes_[n].size);
    nonnegative_[inputs_.size() + n] = layer.makes_nonnegative() || (all && layer.keeps_nonnegative());
  }
}

template <class T>
Index Graph<T>::size(std::size_t value) const {
  return value < inputs() ? inputs_[value] : nodes_[value - inputs()].size;
}

template <class T>
ForwardValues<T> Graph<T>::forward(const std::vector<Matrix<const T>>& inputs, const std::vector<std::size_t>& wanted,
                                   const Threads& threads, const KeptValues& kept) const {
  const Home home(workspace());
  return Forward<T>(*this, inputs, wanted, threads, kept).run();
}

template <class T>
void Graph<T>::compute_again(std::size_t first, std::size_t last, const KeptValues& kept, const Threads& threads,
                             ForwardValues<T>* values) const {
  const Home home(workspace());
  ForwardValues<T> made = Forward<T>(*this, *values, first, last, threads, kept).run();
  for (std::size_t n = first; n < last; ++n) {
    const std::size_t value = inputs() + n;
    if (kept.values[value] && !values->values[value]) {
      values->values[value] = made.values[value];
      values->memory[value] = std::move(made.memory[value]);
    }
    if (kept.entries[n] > 0) {
      values->kept[n] = made.kept[n];
      values->kept_memory[n] = std::move(made.kept_memory[n]);
    }
  }
}

template class Graph<float>;
template class Graph<double>;

}  // namespace pylrp
