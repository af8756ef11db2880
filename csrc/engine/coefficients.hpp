// The coefficient form: where the layers of a part of the graph hand on R = a c, a the entries of a value, its
// coefficients c go from layer to layer in place of R. Nothing is divided by an output or multiplied by an input then,
// a sum hands the very same c to all that it adds up, and an entry that is 0 loses none.
//
// At the edges of such a part R becomes c = R / a, where a is not 0, and c becomes R = a c. The ledger is a check as
// before: what arrives is the sum of c z, z the layer's output in the forward pass, what goes on the sum of the c that
// it has made times its inputs. liveness.hpp asks which values these are, backward_coefficients.cpp runs them.
#pragma once

#include <vector>

#include "engine/plan.hpp"

namespace pylrp {

struct CoefficientForm {
  std::vector<bool> nodes;   // takes coefficients and makes them
  std::vector<bool> values;  // of nodes in `nodes`, all of whose readers that relevance comes from are in there, too
};

// Of all that relevance reaches from the start. The layers say where it serves (Layer::coefficients): a part has one
// of those, and a value between two of its nodes.
template <class T>
CoefficientForm coefficient_form(const Graph<T>& graph, const std::vector<NodeRule<T>>& rules,
                                 const std::vector<bool>& reached, std::size_t start);

// Rows are targets * batch, those of the values the batch.

// The sum of each row of c a, in a fixed order.
template <class T>
std::vector<double> row_products(Matrix<const T> coefficients, Matrix<const T> values, const Threads& threads);
// R = a c; they may be the same array.
template <class T>
void to_relevance(Matrix<const T> coefficients, Matrix<const T> values, Matrix<T> relevance, const Threads& threads);
// c = R / a; they may be the same array. Where a is 0 or the quotient overflows there is no receiver: `dead` grows.
template <class T>
void to_coefficients(Matrix<const T> relevance, Matrix<const T> values, Matrix<T> coefficients,
                     kernels::Absorbed* absorbed, const Threads& threads);

}  // namespace pylrp
