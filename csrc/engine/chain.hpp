// Relevance through a chain of dense layers, output to input.
#pragma once

#include <vector>

#include "engine/ledger.hpp"
#include "layers/dense/dense.hpp"

namespace pylrp {

template <class T>
struct ChainLayer {
  DenseWeights<T> dense;
  const CompiledRule* rule = nullptr;
  Bounds<T> bounds;
  bool nonnegative = false;  // the input is known to be >= 0
  const GroupConstants<T>* constants = nullptr;
  Matrix<const T> input;         // (batch, n_in), may be empty where the rule does not read it
  Matrix<const T> output;        // (batch, n_out) before the activation, where it was kept
  Matrix<T> result;              // (batch, n_in)
  int* flags = nullptr;          // gets what a scan of columns says, or null
  Matrix<const T> columns = {};  // (n_in, n_out): the weights, where they lie by columns; dense.weight then has no data
};

// top: (batch, n_out of the last layer). ledger: (layers, kLedgerColumns, batch) or null.
template <class T>
void relevance_through_chain(const std::vector<ChainLayer<T>>& layers, Matrix<const T> top, double* ledger,
                             const Threads& threads);

}  // namespace pylrp
