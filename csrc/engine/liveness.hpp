// Liveness and sign facts of nodes and values for a given start: which values relevance reaches and reads, where it
// vanishes with the value, which node is the last to need one. For plan.cpp and backward.cpp.
#pragma once

#include <vector>

#include "engine/plan.hpp"

namespace pylrp {

template <class T>
struct Liveness {
  std::vector<bool> reached;             // values that relevance reaches
  std::vector<bool> kept;                // values that relevance() reads
  std::vector<bool> vanishes;            // no relevance where the value is 0
  std::vector<bool> output_positive;     // of nodes: the output is > 0 wherever there is relevance
  std::vector<Index> entries;            // of nodes: what the layer writes down for relevance(), entries a sample
  std::vector<std::size_t> output;       // of nodes: the value that stands for the output, or kNoValue
  std::vector<bool> by_coefficients;     // of nodes: takes and makes coefficients of R = a c (coefficients.hpp)
  std::vector<bool> coefficients;        // of values: what arrives there is c, not R
  std::vector<std::size_t> last_reader;  // of values: the node that reads it last; nodes run backwards here

  // kNoValue as the start: nothing is reached.
  Liveness(const Plan<T>& plan, std::size_t start);

  // May relevance take the place of an input that this node is the last to read? Half as much memory is touched then.
  bool may_replace(const ForwardValues<T>& forward, const RelevanceRequest<T>& request, std::size_t value,
                   std::size_t node) const;

 private:
  void find_reached(std::size_t start);
  void find_forms(std::size_t start);
  void find_kept_inputs(std::size_t start);
  void find_kept_outputs(std::size_t start);
  void find_last_readers();
  void find_entries();
  // Of the readers of a value together.
  bool vanishes_by_readers(std::size_t value) const;

  const Plan<T>& plan_;
  const Graph<T>& graph_;
};

}  // namespace pylrp
