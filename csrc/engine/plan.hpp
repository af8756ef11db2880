// The rules of a graph's nodes, and relevance from any value back to the inputs. Hands on to liveness.hpp (what is kept
// in memory, and until when) and backward.hpp (node by node, with the ledger).
//
// A plan is immutable: several threads may run it at once.
#pragma once

#include <memory>
#include <vector>

#include "engine/graph.hpp"
#include "engine/ledger.hpp"

namespace pylrp {

template <class T>
struct NodeRule {
  const CompiledRule* rule = nullptr;  // null: the layer has its own formula
  Bounds<T> bounds;

  bool is_identity() const { return rule != nullptr && rule->passes(); }
};

// Which channels of a value stay, the same at all of its positions; with as many as the value has entries, which
// entries. One mask for all samples, or one a sample, one after the other.
struct ChannelMask {
  std::size_t value;
  std::vector<bool> channels;
  Index samples = 1;
  Index step = 1;  // how far apart channels lie
};

// What relevance() fills and obeys: results[value] is where a value's relevance (targets * batch, size) goes, no data:
// nowhere; ledger(node, column, row).
template <class T>
struct RelevanceRequest {
  std::size_t start;
  Matrix<const T> top;
  std::vector<Matrix<T>> results;
  std::vector<ChannelMask> masks;
  double* ledger;
};

inline constexpr Index kMostKeptBytes = Index{112} << 20;

template <class T>
class Plan {
 public:
  // The graph, rules and bounds are the caller's to keep alive.
  Plan(const Graph<T>& graph, std::vector<NodeRule<T>> rules, const Threads& threads);

  const Graph<T>& graph() const { return graph_; }
  const std::vector<NodeRule<T>>& rules() const { return rules_; }
  // What a node's layer has computed for its rule, or null.
  const Prepared* prepared(std::size_t node) const { return prepared_[node].get(); }

  // wanted: values that must be there afterwards. start: the value whose relevance will be asked for, or kNoValue: then
  // nothing else is kept. checkpoint: keep little of what relevance reads, and compute the rest again there.
  // most_bytes: of values for relevance; beyond that some that are cheap are made again (again.hpp).
  ForwardValues<T> forward(const std::vector<Matrix<const T>>& inputs, const std::vector<std::size_t>& wanted,
                           std::size_t start, const Threads& threads, bool checkpoint = false,
                           Index most_bytes = kMostKeptBytes) const;
  // Frees what it has read for the last time, but for the values wanted.
  void relevance(ForwardValues<T>* forward, const RelevanceRequest<T>& request, const Threads& threads) const;

 private:
  const Graph<T>& graph_;
  std::vector<NodeRule<T>> rules_;
  std::vector<std::unique_ptr<Prepared>> prepared_;
};

}  // namespace pylrp
