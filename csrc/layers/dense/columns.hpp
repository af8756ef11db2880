// Dense layers whose weights lie by columns, as MATLAB, Fortran and Keras keep them: the same relevance, without a
// copy of the weights where samples are few.
#pragma once

#include "layers/dense/dense.hpp"

namespace pylrp {

// As dense_relevance(); columns(n_in, n_out) are the weights, job.layer.weight says their shape and has no data.
// flags: null, or gets what the kernels' scan says of all weights, without another pass over memory where samples are
// few. With weights that are not finite the relevance means nothing.
template <class T>
void dense_relevance_by_columns(const DenseJob<T>& job, Matrix<const T> columns, const Threads& threads,
                                int* flags = nullptr);

}  // namespace pylrp
