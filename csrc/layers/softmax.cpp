#include "layers/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/buffer.hpp"
#include "kernels/dispatch.hpp"
#include "layers/registry.hpp"

namespace pylrp {

template <class T>
void SoftmaxLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  require_pixels(inputs, output, checked_product({channels_, inner_}, "a softmax"), "the channels of a softmax");
}

// One softmax, its channels one after the other: in eight columns, without one long chain of operations.
template <class T>
void SoftmaxLayer<T>::of_line(const T* x, T* out) const {
  constexpr Index kColumns = 8;
  const Index whole = channels_ / kColumns * kColumns;
  T most[kColumns], total[kColumns] = {};
  std::fill_n(most, kColumns, -std::numeric_limits<T>::infinity());
  for (Index c = 0; c < whole; c += kColumns) {
    for (Index k = 0; k < kColumns; ++k) {
      most[k] = x[c + k] > most[k] ? x[c + k] : most[k];
    }
  }
  T top = *std::max_element(most, most + kColumns);
  for (Index c = whole; c < channels_; ++c) {
    top = std::max(top, x[c]);
  }
  top = top == -std::numeric_limits<T>::infinity() ? T(0) : top;  // -inf everywhere: differences to 0 are -inf still
  for (Index c = 0; c < channels_; ++c) {
    out[c] = x[c] - top;
  }
  kernels::table<T>().function(kernels::Function::kExp, channels_, out, out);
  for (Index c = 0; c < whole; c += kColumns) {
    for (Index k = 0; k < kColumns; ++k) {
      total[k] += out[c + k];
    }
  }
  T sum = ((total[0] + total[1]) + (total[2] + total[3])) + ((total[4] + total[5]) + (total[6] + total[7]));
  for (Index c = whole; c < channels_; ++c) {
    sum += out[c];
  }
  const T divisor = sum == 0 ? T(1) : sum;
  for (Index c = 0; c < channels_; ++c) {
    out[c] /= divisor;
  }
}

// One (channels, inner): `inner` softmaxes side by side.
template <class T>
void SoftmaxLayer<T>::of_block(const T* x, T* out) const {
  if (inner_ == 1 && !logarithm_) {
    return of_line(x, out);
  }
  const Buffer<T> memory(2 * inner_);
  T* const most = memory.data();
  T* const total = memory.data() + inner_;
  std::copy_n(x, inner_, most);
  for (Index c = 1; c < channels_; ++c) {
    for (Index i = 0; i < inner_; ++i) {
      most[i] = std::max(most[i], x[c * inner_ + i]);
    }
  }
  std::fill_n(total, inner_, T(0));
  for (Index i = 0; i < inner_; ++i) {  // -inf everywhere: differences to 0 are -inf still
    most[i] = most[i] == -std::numeric_limits<T>::infinity() ? T(0) : most[i];
  }
  const Buffer<T> separate(logarithm_ ? block() : 0);
  T* const powers = logarithm_ ? separate.data() : out;
  for (Index c = 0; c < channels_; ++c) {
    for (Index i = 0; i < inner_; ++i) {
      powers[c * inner_ + i] = x[c * inner_ + i] - most[i];
    }
  }
  kernels::table<T>().function(kernels::Function::kExp, block(), powers, powers);
  for (Index c = 0; c < channels_; ++c) {
    for (Index i = 0; i < inner_; ++i) {
      total[i] += powers[c * inner_ + i];
    }
  }
  for (Index c = 0; c < channels_; ++c) {
    for (Index i = 0; i < inner_; ++i) {
      const Index k = c * inner_ + i;
      out[k] = logarithm_ ? x[k] - most[i] - std::log(total[i]) : (total[i] == 0 ? T(0) : powers[k] / total[i]);
    }
  }
}

template <class T>
void SoftmaxLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                              const Threads& threads) const {
  const Index blocks = output.cols / block();
  parallel_for(output.rows * blocks, threads, [&](Index task) {
    const Index at = task % blocks * block();
    of_block(inputs[0].row(task / blocks) + at, output.row(task / blocks) + at);
  });
}

// R_c = x_c (R_c - P_c sum R), or nothing; `softmax` takes what that leaves. Nothing where x_c is -inf.
template <class T>
void SoftmaxLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const bool taylor = job.rule->rule().treatment == Treatment::kTaylor;
  const Index blocks = job.relevance.cols / block();
  std::vector<double> lost(static_cast<std::size_t>(job.relevance.rows * blocks));
  parallel_for(job.relevance.rows * blocks, threads, [&](Index task) {
    const Index row = task / blocks, at = task % blocks * block();
    const T* const r = job.relevance.row(row) + at;
    T* const out = job.results[0].row(row) + at;
    const Buffer<double> all(inner_);
    std::fill_n(all.data(), inner_, 0.0);
    for (Index c = 0; c < channels_; ++c) {
      for (Index i = 0; i < inner_; ++i) {
        all.data()[i] += static_cast<double>(r[c * inner_ + i]);
      }
    }
    double kept = 0;
    for (Index i = 0; i < inner_; ++i) {
      kept += all.data()[i];
    }
    if (taylor) {
      const T* const x = job.inputs[0].row(row % job.batch) + at;
      const Buffer<T> share(block());
      of_block(x, share.data());
      for (Index c = 0; c < channels_; ++c) {
        for (Index i = 0; i < inner_; ++i) {
          const Index k = c * inner_ + i;
          const double part = static_cast<double>(r[k]) - static_cast<double>(share.data()[k]) * all.data()[i];
          out[k] = std::isinf(x[k]) ? T(0) : x[k] * static_cast<T>(part);
          kept -= static_cast<double>(out[k]);
        }
      }
    } else {
      std::fill_n(out, block(), T(0));
    }
    lost[static_cast<std::size_t>(task)] = kept;
  });
  for (std::size_t task = 0; task < lost.size(); ++task) {
    job.absorbed[static_cast<Index>(task) / blocks].softmax += lost[task];
  }
}

template class SoftmaxLayer<float>;
template class SoftmaxLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string&, const Fields<T>& fields) {
  return std::make_unique<SoftmaxLayer<T>>(fields.integer("channels"), fields.flag("logarithm"),
                                           fields.integer("inner"));
}

}  // namespace

void register_softmax(LayerKinds* kinds) { kinds->add("softmax", make<float>, make<double>); }

}  // namespace pylrp
