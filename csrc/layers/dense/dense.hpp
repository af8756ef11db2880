// The dense layer: z = W a + b, and its relevance for any rule.
//   dense.cpp  prepares what is constant, chooses the path
//   rows.cpp   few samples or sparse relevance: one pass over the weight rows that matter
//   batch.cpp  many samples: packed products
//   cancelled.*  samples of both signs by fewer products: what they can't do
//   coefficients.cpp  the same where c arrives, R = a c
//   backward_panels.hpp  the loop of both over panels of W
#pragma once

#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "base/view.hpp"
#include "kernels/table.hpp"
#include "layers/layer.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {

template <class T>
struct DenseWeights {
  Matrix<const T> weight;   // (n_out, n_in); without data where there is nothing but `half`
  const T* bias = nullptr;  // (n_out) or null
  // The same weights in bfloat16, where they are kept so: few samples are a matter of reading them. Float only.
  Matrix<const kernels::Bfloat16> half = {};
};

template <class T>
struct DenseJob {
  DenseWeights<T> layer;
  const LoweredRule* rule = nullptr;
  Bounds<T> bounds;
  const GroupConstants<T>* constants = nullptr;  // made by prepare(), or null: computed where needed
  Matrix<const T> input;                         // (batch, n_in); may be empty where the rule does not read it
  Matrix<const T> output;                        // (batch, n_out), z = W a + b of the forward pass, where it was kept
  Matrix<const T> relevance;                     // (batch, n_out)
  Matrix<T> result;                              // (batch, n_in)
  kernels::Absorbed* absorbed = nullptr;         // (batch), zeroed by the caller; null: no ledger
  // The same rule by fewer products, out of the output: by_magnitude() in rules/lower.hpp. For many samples.
  const LoweredRule* magnitudes = nullptr;
  const GroupConstants<T>* magnitude_constants = nullptr;
};

// Reads all weights once where the rule has constant terms (w^2, flat, z-box).
template <class T>
GroupConstants<T> prepare_dense(const DenseWeights<T>& layer, const LoweredRule& rule, const Bounds<T>& bounds,
                                const Threads& threads);

template <class T>
void dense_relevance(const DenseJob<T>& job, const Threads& threads);

// result(batch, n_in) = c(batch, n_out) W; absorbed(batch) gets what the biases take.
template <class T>
void dense_coefficients(const DenseWeights<T>& layer, Matrix<const T> c, Matrix<T> result, kernels::Absorbed* absorbed,
                        const Threads& threads);

// output(batch, n_out) = input W^T + b
template <class T>
void dense_forward(const DenseWeights<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads);

// --- between the files of this folder ---

// The bfloat16 of a call's weight rows, which are made block by block where they are not kept: rows in half the bytes
// for relevance_by_rows() and the forward pass of few samples.
template <class T>
class HalfRows {
 public:
  explicit HalfRows(const DenseWeights<T>& layer) : layer_(layer) {}
  // Rows that are made one after the other in `made`, row_size() apart.
  Index row_size() const { return layer_.half ? 0 : (layer_.weight.cols + 1) / 2 * 2; }
  const kernels::Bfloat16* row(Index index, kernels::Bfloat16* made) const;

 private:
  const DenseWeights<T>& layer_;
};

// Up to this batch the whole batch goes along with each weight row while it is in cache.
template <class T>
Index few_samples(Matrix<const T> weight);
// Whether passes over the rows of weights that meet relevance are faster than products.
template <class T>
bool rows_win(const DenseJob<T>& job);
Threads threads_worth(Index products, const Threads& threads);
// A large batch goes in parts of at most so many rows; wide: entries a row takes in the largest of the work arrays.
template <class T>
Index rows_of_part(Matrix<const T> weight, Index wide);
// Whether job.output can stand in for the one sum: same weights, whole bias.
template <class T>
bool output_is_sum(const DenseJob<T>& job);

// samples: rows of the batch that are served; weight rows without relevance are not read.
template <class T>
void relevance_by_rows(const DenseJob<T>& job, const Threads& threads);
template <class T>
void relevance_by_products(const DenseJob<T>& job, const Threads& threads);
template <class T>
void forward_by_products(const DenseWeights<T>& layer, Matrix<const T> input, Matrix<T> output, const Threads& threads);

}  // namespace pylrp
