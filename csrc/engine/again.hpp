// Values that relevance reads where it goes by coefficients, and that are made again there: beyond some memory a
// forward pass does not keep what is cheap to make. plan.cpp asks which, backward.cpp makes them.
#pragma once

#include <vector>

#include "engine/liveness.hpp"

namespace pylrp {

// In turn, until what is kept fits into `most_bytes`:
//   outputs of functions and normalisations whose input is kept;
//   a product's output that is added to another value, where the sum is kept: their difference;
//   outputs of products whose inputs are kept or are of the first kind, those with the least work an entry, the lowest
//   first; at most a share of the forward pass's products in all.
template <class T>
std::vector<Again> values_made_again(const Plan<T>& plan, const Liveness<T>& liveness,
                                     const std::vector<std::size_t>& wanted, std::size_t start, Index batch,
                                     Index most_bytes);

// The node that adds this value to another one, through views of it alone; `value` becomes the view that it reads.
// kNoValue: there is none.
template <class T>
std::size_t sum_of(const Graph<T>& graph, std::size_t* value);
template <class T>
std::size_t other_summand(const Graph<T>& graph, std::size_t sum, std::size_t summand);

}  // namespace pylrp
