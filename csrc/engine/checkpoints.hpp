// Which values a forward pass keeps where memory is short: single ones that everything above is computed from. What
// relevance reads between two of them is computed again when it comes there, a part of the network at a time.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/graph.hpp"

namespace pylrp {

// Nodes, in order, whose value alone (with the graph's inputs) makes all that is above it, up to a value where
// relevance starts. So many that the values kept and those of a part take about the same memory.
template <class T>
std::vector<std::size_t> checkpoints(const Graph<T>& graph, std::size_t start);

}  // namespace pylrp
