// Relevance through a graph, node by node from the start down, with what each node writes into the ledger.
#pragma once

#include <vector>

#include "engine/liveness.hpp"
#include "engine/plan.hpp"

namespace pylrp {

template <class T>
class Backward {
 public:
  Backward(const Plan<T>& plan, ForwardValues<T>* forward, const RelevanceRequest<T>& request, const Threads& threads);
  void run();

 private:
  // What arrives at a node; what its mask takes, empty without one.
  struct Arrival {
    std::vector<double> incoming, masked;
    bool is_masked = false;
  };
  // A layer's call, and memory for what goes to values that another reader has reached before.
  struct Step {
    RelevanceJob<T> job;
    std::vector<Buffer<T>> extra;
    std::vector<kernels::Absorbed> absorbed;
  };

  void compute_again(std::size_t node);
  void step(std::size_t node);
  Arrival arrive(std::size_t node);
  // The relevance as it is becomes the input's, without a copy. False where it has to be copied or added.
  bool hand_on(std::size_t node, bool is_masked);
  Step prepare(std::size_t node);
  void call_layer(std::size_t node, Step* step);
  // Adds up what the layer has sent; returns the sum of each row.
  std::vector<double> collect(std::size_t node, const Step& step);
  void make(std::size_t value);
  void new_memory(std::size_t value);
  void finish(std::size_t node);
  void release(std::size_t value, std::size_t node);
  // A part of R that a node has sent to an input: its sum is written down; the part is added where it has memory of its
  // own, since another reader was there.
  void arrived(std::size_t node, std::size_t input, Matrix<T> part, bool is_extra, std::vector<double>* outgoing);
  void close(std::size_t value);
  void add(Matrix<const T> part, std::size_t value);

  // backward_coefficients.cpp
  // What a node reads and the forward pass has not kept.
  void make_again(std::size_t node);
  void make_value(std::size_t value);
  void step_by_coefficients(std::size_t node);
  Arrival arrive_as_coefficients(std::size_t node);
  void become_coefficients(std::size_t node, kernels::Absorbed* absorbed);
  void hand_on_coefficients(std::size_t node, std::vector<double>* outgoing);
  void send_coefficients(std::size_t node, Step* step);
  void collect_coefficients(std::size_t node, Step* step, std::vector<double>* outgoing);
  void own(std::size_t value);

  bool is_nonnegative(std::size_t value, Matrix<const T> values);
  bool is_same(std::size_t node) const {
    return graph_.nodes()[node].layer->flow_under(plan_.rules()[node].rule) == Flow::kIdentity;
  }
  double* page(std::size_t node) const;

  const Plan<T>& plan_;
  const Graph<T>& graph_;
  ForwardValues<T>& forward_;
  const RelevanceRequest<T>& request_;
  const Threads threads_;
  const Liveness<T> liveness_;
  const Index rows_;
  std::vector<Matrix<T>> relevance_;                // of values, R or c; no data: none has arrived
  std::vector<std::shared_ptr<Buffer<T>>> memory_;  // of values; several may have the same c
  std::vector<int> nonnegative_;                    // of values, -1: not looked at yet
  std::vector<std::vector<double>> sums_;           // of the relevance's rows, where they have just been added up
};

}  // namespace pylrp
