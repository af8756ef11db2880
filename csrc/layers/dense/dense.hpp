// The dense layer: z = W a + b, and its relevance for any rule.
//   dense.cpp  prepares what is constant, chooses the path
//   rows.cpp   few samples or sparse relevance: one pass over the weight rows that matter
//   batch.cpp  many samples: packed products
#pragma once

#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "base/view.hpp"
#include "kernels/table.hpp"
#include "layers/layer.hpp"

namespace pylrp {

template <class T>
struct DenseLayer {
  Matrix<const T> weight;   // (n_out, n_in)
  const T* bias = nullptr;  // (n_out) or null
};

// What the denominators hold besides the products: per group rho_b(b), and the constant terms with it.
template <class T>
struct DenseConstants : Prepared {
  struct OfGroup {
    Buffer<T> bias;  // (n_out), empty where the rule takes no bias
    Buffer<T> base;  // (n_out), empty where there are no constant terms: then the bias is all
  };
  std::vector<OfGroup> groups;
};

template <class T>
struct DenseJob {
  DenseLayer<T> layer;
  const LoweredRule* rule = nullptr;
  Bounds<T> bounds;
  const DenseConstants<T>* constants = nullptr;  // made by prepare(), or null: computed where needed
  Matrix<const T> input;                         // (batch, n_in); may be empty where the rule does not read it
  Matrix<const T> output;                        // (batch, n_out), z = W a + b of the forward pass, where it was kept
  Matrix<const T> relevance;                     // (batch, n_out)
  Matrix<T> result;                              // (batch, n_in)
  kernels::Absorbed* absorbed = nullptr;         // (batch), zeroed by the caller; null: no ledger
};

// Reads all weights once where the rule has constant terms (w^2, flat, z-box).
template <class T>
DenseConstants<T> prepare_dense(const DenseLayer<T>& layer, const LoweredRule& rule, const Bounds<T>& bounds,
                                const Threads& threads);

template <class T>
void dense_relevance(const DenseJob<T>& job, const Threads& threads);

// output(batch, n_out) = input W^T + b
template <class T>
void dense_forward(const DenseLayer<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads);

// --- between the files of this room ---

// prepare_dense() without the constant terms: reads no weights.
template <class T>
DenseConstants<T> prepare_biases(const DenseLayer<T>& layer, const LoweredRule& rule);
inline void add_absorbed(const kernels::Absorbed& part, kernels::Absorbed* total) {
  total->bias += part.bias;
  total->stabilizer += part.stabilizer;
  total->dead += part.dead;
  total->padding += part.padding;
  total->batchnorm += part.batchnorm;
}
// Up to this batch the whole batch goes along with each weight row while it is in cache.
template <class T>
Index few_samples(Matrix<const T> weight);
template <class T>
kernels::Weights<T> weights_of(const WeightMap& map);
template <class T>
kernels::Mix<T> mix_of(const BackProduct& product);
// All back products of a rule; where their sums lie is the caller's to say.
template <class T>
kernels::Mixed<T> mixed_of(const LoweredRule& rule);
// The numbers of shares(), base and bias per group may be null.
template <class T>
kernels::Shares<T> shares_of(const LoweredRule& rule, const T* const* base, const T* const* bias, const T* plain_base);
// The input row a constant term multiplies with: low, high or (null) ones.
template <class T>
const T* constant_input(Part part, const Bounds<T>& bounds);

// The same from a column on.
template <class T>
kernels::Shares<T> shares_at_column(kernels::Shares<T> plan, Index column);
// Of a rule whose one sum is the plain output: whether that may hold the bias, too.
bool sum_takes_whole_bias(const LoweredRule& rule, bool has_bias);
// Whether job.output can stand in for the one sum: same weights, whole bias.
template <class T>
bool output_is_sum(const DenseJob<T>& job);

// samples: rows of the batch that are served; weight rows without relevance are not read.
template <class T>
void relevance_by_rows(const DenseJob<T>& job, const Threads& threads);
template <class T>
void relevance_by_products(const DenseJob<T>& job, const Threads& threads);
template <class T>
void forward_by_products(const DenseLayer<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads);

}  // namespace pylrp
