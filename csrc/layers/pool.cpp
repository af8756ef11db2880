#include "layers/pool.hpp"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "layers/dense.hpp"
#include "layers/share.hpp"

namespace pylrp {
namespace {

constexpr Index kChannels = 16;  // a task's share of the channels: windows may overlap, channels do not

// A full count is a constant, which makes vectors of the loop.
template <class Body>
void each_channel(Index count, Body body) {
  if (count == kChannels) {
    for (Index c = 0; c < kChannels; ++c) {
      body(c);
    }
    return;
  }
  for (Index c = 0; c < count; ++c) {
    body(c);
  }
}

}  // namespace

// body(task, row, first channel, channels, output pixel, pixels of the window, its divisor)
template <class T>
template <class Body>
void PoolLayer<T>::each_window(Index rows, const Threads& threads, Body body) const {
  const Index pieces = (channels_ + kChannels - 1) / kChannels;
  const auto& [z, y, x] = axes_;
  parallel_for(rows * pieces, threads, [&](Index task) {
    const Index row = task / pieces, first = task % pieces * kChannels, count = std::min(kChannels, channels_ - first);
    std::vector<Index> window;
    Index pixel = 0;
    for (std::size_t k = 0; k < z.begin.size(); ++k) {
      for (std::size_t j = 0; j < y.begin.size(); ++j) {
        for (std::size_t i = 0; i < x.begin.size(); ++i, ++pixel) {
          window.clear();
          for (Index c = z.begin[k]; c < z.end[k]; c += z.step) {
            for (Index b = y.begin[j]; b < y.end[j]; b += y.step) {
              for (Index a = x.begin[i]; a < x.end[i]; a += x.step) {
                window.push_back((c * y.in + b) * x.in + a);
              }
            }
          }
          body(task, row, first, count, pixel, window, static_cast<T>(z.count[k] * y.count[j] * x.count[i]));
        }
      }
    }
  });
}

template <class T>
void PoolLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                           const Threads& threads) const {
  const Matrix<const T> input = inputs[0];
  each_window(
      input.rows, threads,
      [&](Index, Index row, Index first, Index count, Index pixel, const std::vector<Index>& window, T divisor) {
        const T* const in = input.row(row) + first;
        T total[kChannels];
        std::fill_n(total, kChannels, max_ ? -std::numeric_limits<T>::infinity() : T(0));
        for (const Index at : window) {
          const T* const a = in + at * channels_;
          each_channel(count, [&](Index c) {
            const T larger = a[c] > total[c] || a[c] != a[c] ? a[c] : total[c];
            total[c] = max_ ? larger : total[c] + a[c];
          });
        }
        T* const out = output.row(row) + pixel * channels_ + first;
        each_channel(count, [&](Index c) { out[c] = max_ ? total[c] : total[c] / divisor; });
      });
}

template <class T>
void PoolLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const Matrix<T> result = job.results[0];
  const Index pieces = (channels_ + kChannels - 1) / kChannels;
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * pieces));
  const Index pixels = axes_[0].in * axes_[1].in * axes_[2].in;
  parallel_for(result.rows * pieces, threads, [&](Index task) {
    const Index first = task % pieces * kChannels, count = std::min(kChannels, channels_ - first);
    for (Index p = 0; p < pixels; ++p) {
      std::fill_n(result.row(task / pieces) + p * channels_ + first, count, T(0));
    }
  });
  const Stabilizer<T> stabilizer(job.rule);
  each_window(
      result.rows, threads,
      [&](Index task, Index row, Index first, Index count, Index pixel, const std::vector<Index>& window, T divisor) {
        const T* const in = job.inputs[0].row(row % job.batch) + first;
        const T* const r = job.relevance.row(row) + pixel * channels_ + first;
        T* const out = result.row(row) + first;
        if (max_ && window.empty()) {
          return;
        }
        if (max_) {
          using Number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;  // as wide as T
          T best[kChannels];
          Number winner[kChannels] = {};
          each_channel(count, [&](Index c) { best[c] = in[window[0] * channels_ + c]; });
          for (std::size_t w = 1; w < window.size(); ++w) {
            const T* const a = in + window[w] * channels_;
            each_channel(count, [&](Index c) {
              const bool wins = a[c] > best[c];
              best[c] = wins ? a[c] : best[c];
              winner[c] = wins ? static_cast<Number>(w) : winner[c];
            });
          }
          for (Index c = 0; c < count; ++c) {
            out[window[static_cast<std::size_t>(winner[c])] * channels_ + c] += r[c];
          }
          return;
        }
        T share[kChannels] = {};
        for (const Index at : window) {
          for (Index c = 0; c < count; ++c) {
            share[c] += in[at * channels_ + c];
          }
        }
        for (Index c = 0; c < count; ++c) {
          share[c] = stabilizer.share(r[c], share[c] / divisor, &lost[static_cast<std::size_t>(task)]) / divisor;
        }
        for (const Index at : window) {
          for (Index c = 0; c < count; ++c) {
            out[at * channels_ + c] += in[at * channels_ + c] * share[c];
          }
        }
      });
  for (Index task = 0; task < result.rows * pieces; ++task) {
    add_absorbed(lost[static_cast<std::size_t>(task)], &job.absorbed[task / pieces]);
  }
}

template class PoolLayer<float>;
template class PoolLayer<double>;

}  // namespace pylrp
