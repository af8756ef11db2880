#include "layers/pool.hpp"

#include <algorithm>
#include <limits>

#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"
#include "layers/registry.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

constexpr Index kChannels = 64;  // a task's share of the channels where windows overlap: channels do not
constexpr Index kLines = 8;      // of the output: with fewer, channels are shared out, too

// The windows along an axis meet every position once.
bool meets_once(const PoolAxis& axis) {
  Index next = 0;
  for (std::size_t o = 0; o < axis.begin.size(); ++o) {
    if (axis.begin[o] != next || axis.end[o] <= next) {
      return false;
    }
    next = axis.end[o];
  }
  return next == axis.in && axis.step == 1;
}

}  // namespace

template <class T>
void PoolLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  constexpr Index kFar = Index{1} << 60;  // beyond a step
  const auto largest = [](const PoolAxis& axis) {
    Index most = 0;
    for (std::size_t o = 0; o < axis.begin.size(); ++o) {
      most = std::max(most, (axis.end[o] - axis.begin[o] + axis.step - 1) / axis.step);
    }
    return most;
  };
  for (const PoolAxis& axis : axes_) {
    require_fit(axis.begin.size() == axis.end.size() && axis.begin.size() == axis.count.size() && axis.step > 0 &&
                    axis.step <= kFar && axis.in <= kMostEntries,
                "the windows of a pool");
    for (std::size_t o = 0; o < axis.begin.size(); ++o) {
      require_fit(axis.begin[o] >= 0 && axis.end[o] <= axis.in && axis.end[o] >= 0 && axis.begin[o] <= axis.in,
                  "the windows of a pool and its input");
    }
  }
  const auto& [z, y, x] = axes_;
  require_fit(channels_ > 0 && inputs.size() == 1 &&
                  inputs[0] == checked_product({z.in, y.in, x.in, channels_}, "a pool's input") &&
                  output == checked_product({z.out(), y.out(), x.out(), channels_}, "a pool's output"),
              "a pool and the values beside it");
  require_fit(bounded_product({largest(z), largest(y), largest(x)}) <= std::numeric_limits<int>::max(),
              "a pool's window and 32 bits");
  const auto most = [](const PoolAxis& axis) {
    return axis.count.empty() ? 1 : *std::max_element(axis.count.begin(), axis.count.end());
  };
  for (const PoolAxis& axis : axes_) {
    require_fit(std::all_of(axis.count.begin(), axis.count.end(), [](Index n) { return n >= 0; }), "a pool's divisors");
  }
  checked_product({most(z), most(y), most(x)}, "a pool's padded window");
}

template <class T>
bool PoolLayer<T>::is_partition() const {
  return std::all_of(axes_.begin(), axes_.end(), meets_once);
}

// body(task, row, first channel, channels, output pixel, pixels of the window, its divisor); a task has some lines of
// the output and some channels.
template <class T>
template <class Body>
void PoolLayer<T>::each_window(Index rows, const Split& split, const Threads& threads, Body body) const {
  const auto &z = axes_[0], &y = axes_[1], &x = axes_[2];  // a C++17 lambda can't refer to a structured binding
  parallel_for(rows * split.tasks(), threads, [&](Index task) {
    const Index row = task / split.tasks(), piece = task % split.pieces, part = task / split.pieces % split.parts;
    const Index first = channels_ * piece / split.pieces, count = channels_ * (piece + 1) / split.pieces - first;
    const Index lines = z.out() * y.out();
    std::vector<Index> window;
    for (Index line = lines * part / split.parts; line < lines * (part + 1) / split.parts; ++line) {
      const std::size_t k = static_cast<std::size_t>(line / y.out()), j = static_cast<std::size_t>(line % y.out());
      for (std::size_t i = 0; i < x.begin.size(); ++i) {
        window.clear();
        for (Index c = z.begin[k]; c < z.end[k]; c += z.step) {
          for (Index b = y.begin[j]; b < y.end[j]; b += y.step) {
            for (Index a = x.begin[i]; a < x.end[i]; a += x.step) {
              window.push_back((c * y.in + b) * x.in + a);
            }
          }
        }
        body(task, row, first, count, line * x.out() + static_cast<Index>(i), window,
             static_cast<T>(z.count[k] * y.count[j] * x.count[i]));
      }
    }
  });
}

template <class T>
typename PoolLayer<T>::Split PoolLayer<T>::split(bool shared) const {
  const Index lines = axes_[0].out() * axes_[1].out();
  const Index pieces = (channels_ + kChannels - 1) / kChannels;
  return {shared || lines < kLines ? pieces : 1, shared ? 1 : lines};
}

template <class T>
void PoolLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                           const Threads& threads) const {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Matrix<const T> input = inputs[0];
  each_window(
      input.rows, split(false), threads,
      [&](Index, Index row, Index first, Index count, Index pixel, const std::vector<Index>& window, T divisor) {
        T* const out = output.row(row) + pixel * channels_ + first;
        if (window.empty()) {
          std::fill_n(out, count, max_ ? -std::numeric_limits<T>::infinity() : T(0));
          return;
        }
        thread_local std::vector<const T*> at;
        at.clear();
        for (const Index w : window) {
          at.push_back(input.row(row) + w * channels_ + first);
        }
        kernel.pool_rows(static_cast<int>(at.size()), at.data(), count, max_, divisor, out);
      });
}

template <class T>
void PoolLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Matrix<T> result = job.results[0];
  const bool partition = is_partition();
  const Split split = this->split(!partition);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(result.rows * split.tasks()));
  if (!partition) {  // else every entry is written once
    each_piece(result.rows, result.cols, threads,
               [&](Index, Index row, Index first, Index count) { std::fill_n(result.row(row) + first, count, T(0)); });
  }
  const kernels::Shares<T> plan = Stabilizer<T>(job.rule).of_sum(1);
  each_window(
      result.rows, split, threads,
      [&](Index task, Index row, Index first, Index count, Index pixel, const std::vector<Index>& window, T divisor) {
        const T* const r = job.relevance.row(row) + pixel * channels_ + first;
        thread_local std::vector<const T*> from;
        thread_local std::vector<T*> to;
        thread_local std::vector<T> share;
        from.clear();
        to.clear();
        for (const Index w : window) {
          from.push_back(job.inputs[0].row(row % job.batch) + w * channels_ + first);
          to.push_back(result.row(row) + w * channels_ + first);
        }
        const int entries = static_cast<int>(from.size());
        if (max_ && entries > 0) {
          kernel.to_winner(entries, from.data(), count, r, !partition, to.data());
        }
        if (max_) {
          return;
        }
        share.assign(static_cast<std::size_t>(count), T(0));
        if (entries > 0) {
          kernel.pool_rows(entries, from.data(), count, false, divisor, share.data());
        }
        const T* const z[] = {share.data()};
        T* const s[] = {share.data()};
        kernel.shares({.rows = 1,
                       .cols = count,
                       .rule = plan,
                       .z = z,
                       .z_stride = count,
                       .r = r,
                       .r_stride = count,
                       .s = s,
                       .s_stride = count,
                       .ledger = &lost[static_cast<std::size_t>(task)],
                       .ledger_step = 0});
        const kernels::Mixed<T> mixed{1, {share.data()}, {{1 / divisor, 0, 0, 0, 0, 0}}};
        for (std::size_t w = 0; w < from.size(); ++w) {
          kernel.accumulate({.rows = 1,
                             .cols = count,
                             .mixed = mixed,
                             .acc_stride = count,
                             .a = from[w],
                             .a_stride = count,
                             .low = nullptr,
                             .high = nullptr,
                             .bound_stride = 0,
                             .add = !partition,
                             .out = to[w],
                             .out_stride = count});
        }
      });
  add_absorbed(lost, split.tasks(), job.absorbed);
}

template class PoolLayer<float>;
template class PoolLayer<double>;

namespace {

template <class T>
std::unique_ptr<Layer<T>> make(const std::string& kind, const Fields<T>& fields) {
  std::array<PoolAxis, 3> axes;
  for (std::size_t a = 0; a < 3; ++a) {  // (begin, end, divisor, step, size of the input)
    axes[a] = {fields.integers("axes", {a, 0}), fields.integers("axes", {a, 1}), fields.integers("axes", {a, 2}),
               fields.integer("axes", {a, 3}), fields.integer("axes", {a, 4})};
  }
  return std::make_unique<PoolLayer<T>>(kind == "maxpool", std::move(axes), fields.integer("channels"));
}

}  // namespace

void register_pool(LayerKinds* kinds) {
  kinds->add("maxpool", make<float>, make<double>);
  kinds->add("avgpool", make<float>, make<double>);
}

}  // namespace pylrp
