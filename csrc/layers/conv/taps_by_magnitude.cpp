// Inputs of both signs under z+, gamma and alpha-beta, for any kernel: the contributions above and below zero come out
// of z = W a + b and v = |W| |a| + |b| (rules/lower.hpp, by_magnitude), a bias being one more contribution. That is one
// product each, and none for z where it was kept. Where a denominator is a small part of v, which cancels, its
// contributions are computed one by one and what the entry sends, too; where too many are, the path gives up.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"
#include "rules/cancelled.hpp"

namespace pylrp {
namespace {

constexpr Index kChannelsATask = 64;  // of corrections
constexpr Index kMostCancelled = 64;  // one of so many entries

template <class T>
Index source_channels_of_group(const ConvWeights<T>& w) {
  return w.source_channels() / w.shape.groups;
}

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  LoweredRule made;
  if (w.bias_by_position || !by_magnitude(rule, &made)) {
    return false;
  }
  const bool no_bias = std::all_of(made.groups.begin(), made.groups.end(),
                                   [](const Denominator& group) { return group.bias.kind == BiasKind::kNone; });
  return (made.bias_by_sign || no_bias || w.bias == nullptr) &&
         has_terms_enough(made, w.shape.taps() * source_channels_of_group(w));
}

// Whether the output that is at hand is z.
template <class T>
bool takes_output(const ConvCall<T>& call) {
  return call.job.output && (call.form.magnitudes->bias_by_sign || call.weights.bias == nullptr);
}

template <class T>
bool applies(const ConvCall<T>& call) {
  // Rounded to words of 16 bits, shares would lose what is to cancel on the way back.
  return !(call.form.magnitudes->may_cancel && call.threads.bfloat16) &&
         (call.rule.sums.size() == 2 || takes_output(call));
}

// All that a position of the target reads.
struct Source {
  Index tap, pixel;
};
std::vector<Source> sources_of(const ConvShape& s, bool transposed, Index position) {
  const Axes &target = transposed ? s.in : s.out, &source = transposed ? s.out : s.in;
  const Axes at{position / (target[1] * target[2]), position / target[2] % target[1], position % target[2]};
  std::vector<Source> found;
  for (Index tap = 0; tap < s.taps(); ++tap) {
    const Axes k{tap / (s.kernel[1] * s.kernel[2]), tap / s.kernel[2] % s.kernel[1], tap % s.kernel[2]};
    Index pixel = 0;
    bool meets = true;
    for (std::size_t a = 0; a < 3; ++a) {
      const Index shift = k[a] * s.dilation[a] - s.pad[a], steps = at[a] - shift;
      const Index x = transposed ? steps / s.stride[a] : at[a] * s.stride[a] + shift;
      meets = meets && x >= 0 && x < source[a] && (!transposed || (steps >= 0 && steps % s.stride[a] == 0));
      pixel = pixel * source[a] + x;
    }
    if (meets) {
      found.push_back({tap, pixel});
    }
  }
  return found;
}

// Weights of a channel of the target for a tap, from the source channel `first` of its group on; `step` apart.
template <class T>
const T* weights_at(const ConvWeights<T>& w, Index channel, Index tap, Index first, Index* step) {
  *step = w.transposed && !w.depthwise() ? w.row_size() : 1;
  if (!w.transposed || w.depthwise()) {
    return w.at(channel, tap, first);
  }
  const Index group = channel / w.shape.group_in();
  return w.at(group * w.shape.group_out() + first, tap, channel % w.shape.group_in());
}

template <class T>
struct Cancelled {
  Index row, position, channel;  // row: of the slice
  BySign<T> share;
};

template <class T>
class Magnitudes {
 public:
  Magnitudes(const ConvCall<T>& call, const BatchSlice& slice, T* shares);
  // False: too many entries cancel; nothing but the shares was written.
  bool make_shares();
  void send_back() const;

 private:
  struct Sums {  // of a run
    const T* z[2];
    Index stride;
  };
  void finish(Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride);
  std::vector<Index> cancelled_in(const Run& run, Index column, Index columns, const Sums& sums, const T* products);
  void write_around(const std::vector<Index>& cancelled, const Run& run, Index column, Index columns, const Sums& sums,
                    Index task, kernels::Absorbed* lost);
  void write_alone(const Run& run, Index column, Index task, kernels::Absorbed* lost);
  void correct(T* corrections) const;

  const kernels::Table<T>& kernel_ = kernels::table<T>();
  const ConvCall<T> call_;  // with the rule by magnitude
  const ConvCall<T>& usual_call_;
  const BatchSlice& slice_;
  const ConvWeights<T>& w_;
  const LoweredRule& rule_;
  bool with_bias_, kept_;
  Buffer<T> bias_sizes_;  // |b|
  ShareWriter<T> writer_, usual_;
  T* shares_;
  SliceLedger<T>* lost_ = nullptr;
  std::vector<std::vector<Cancelled<T>>> found_;  // by task
  std::atomic<Index> cancelled_{0};
  Index most_cancelled_;
};

template <class T>
Magnitudes<T>::Magnitudes(const ConvCall<T>& call, const BatchSlice& slice, T* shares)
    : call_{call.weights, call.form, *call.form.magnitudes, call.job, call.threads},
      usual_call_(call),
      slice_(slice),
      w_(call.weights),
      rule_(call_.rule),
      with_bias_(rule_.bias_by_sign && w_.bias != nullptr),
      kept_(takes_output(call)),
      writer_(call_, slice, with_bias_, shares),
      usual_(call, slice, false, shares),
      shares_(shares),
      most_cancelled_(slice.samples * w_.target_size() / kMostCancelled + kMostCancelled) {
  if (with_bias_) {
    bias_sizes_.reset(w_.bias_size());
    kernel_.part_of(w_.bias_size(), w_.bias, 0, bias_sizes_.data());
  }
}

template <class T>
bool Magnitudes<T>::make_shares() {
  for (const SharesPath<T>& path : call_.form.shares) {  // of four positions one: where nothing is to cancel
    const ConvCall<T>& call = rule_.may_cancel ? usual_call_ : call_;
    if (path.path == ConvPath::kOneOfFour && !(rule_.may_cancel && rule_.half_sum_and_difference) &&
        path.applies(call)) {
      count_run(path.path);
      return path.run(call, slice_, shares_);
    }
  }
  const InputPartImages<T> images(call_, slice_);
  ConvSums<T> sums = sums_of_rule(call_, slice_, images, 2);
  if (kept_) {
    sums.products.erase(sums.products.begin());
    sums.products.front().output = 0;
    sums.outputs = 1;
  }
  SliceLedger<T> lost(slice_, sums);
  lost_ = &lost;
  found_.resize(static_cast<std::size_t>(conv_tasks(sums)));
  sums.done = [&](Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& of, Index stride) {
    finish(task, block, column, columns, of, stride);
  };
  conv_sums(sums, call_.threads);
  if (cancelled_ > most_cancelled_) {
    return false;
  }
  lost.add_to(call_.job);
  return true;
}

template <class T>
void Magnitudes<T>::finish(Index task, const Rows& block, Index column, Index columns, const SumsOf<T>& of,
                           Index stride) {
  const Index channels = w_.target_channels(), size = block.count() * stride;
  const Buffer<T> memory(2 * size);
  for (const Run& run : block.runs()) {
    T* const z = memory.data() + run.first * stride;
    const auto complete = [&](const T* sum, Index sum_stride, const T* bias, T* out) {
      const Clamp<T> none;
      kernel_.finish({.rows = run.count,
                      .cols = columns,
                      .acc = sum,
                      .acc_stride = sum_stride,
                      .bias = bias,
                      .low = none.low,
                      .high = none.high,
                      .out = out,
                      .out_stride = stride});
    };
    const T* const products = of(kept_ ? 0 : 1) + run.first * stride;
    if (kept_) {
      complete(call_.job.output.row(slice_.begin + run.sample) + run.pixel * channels + column, run.step * channels,
               nullptr, z);
    } else {
      complete(of(0) + run.first * stride, stride, with_bias_ ? w_.bias + column : nullptr, z);
    }
    complete(products, stride, with_bias_ ? bias_sizes_.data() + column : nullptr, z + size);
    const Sums sums{{z, z + size}, stride};
    write_around(cancelled_in(run, column, columns, sums, products), run, column, columns, sums, task,
                 lost_->at(task, block, run));
  }
}

// Entries (row * columns + column) whose relevance meets a small part of v; products: v without the bias.
template <class T>
std::vector<Index> Magnitudes<T>::cancelled_in(const Run& run, Index column, Index columns, const Sums& sums,
                                               const T* products) {
  if (!rule_.may_cancel) {
    return {};
  }
  std::vector<Index> found(static_cast<std::size_t>(run.count * columns));
  found.resize(static_cast<std::size_t>(
      kernel_.cancelled(run.count, columns, sums.z[0], sums.z[1], sums.stride, run.count * columns, found.data())));
  const auto is_exact = [&](Index entry) {
    const Index row = entry / columns, at = row * sums.stride + entry % columns;
    const Index in_image = (run.pixel + row * run.step) * w_.target_channels() + column + entry % columns;
    bool meets = false;
    const bool matters = is_cancelled(rule_, static_cast<double>(sums.z[0][at]), static_cast<double>(sums.z[1][at]));
    for (Index t = 0; t < slice_.targets && matters; ++t) {
      meets = meets || call_.job.relevance.row(slice_.row(call_.job, t, run.sample))[in_image] != 0;
    }
    return !meets || products[at] == 0;  // nothing but the bias is there, as on a black background
  };
  found.erase(std::remove_if(found.begin(), found.end(), is_exact), found.end());
  return (cancelled_ += static_cast<Index>(found.size())) > most_cancelled_ ? std::vector<Index>{} : found;
}

// The shares of a run, those of the cancelled entries by themselves.
template <class T>
void Magnitudes<T>::write_around(const std::vector<Index>& cancelled, const Run& run, Index column, Index columns,
                                 const Sums& sums, Index task, kernels::Absorbed* lost) {
  const auto part = [&](Index row, Index rows) {
    return Run{run.first + row, rows, run.sample, run.pixel + row * run.step, run.step};
  };
  const auto write = [&](Index row, Index rows, Index first, Index last) {
    if (rows > 0 && last > first) {
      const Index at = row * sums.stride + first;
      const T* const z[] = {sums.z[0] + at, sums.z[1] + at};
      writer_.write(part(row, rows), column + first, last - first, z, sums.stride, lost);
    }
  };
  Index row = 0, first = 0;  // where the next entry is
  for (const Index entry : cancelled) {
    if (first > 0 && entry / columns > row) {
      write(row++, 1, first, columns);
      first = 0;
    }
    if (entry / columns > row) {
      write(row, entry / columns - row, 0, columns);
      row = entry / columns;
    }
    write(row, 1, first, entry % columns);
    write_alone(part(row, 1), column + entry % columns, task, lost);
    first = entry % columns + 1;
  }
  if (first > 0) {
    write(row++, 1, first, columns);
  }
  write(row, run.count - row, 0, columns);
}

template <class T>
void Magnitudes<T>::write_alone(const Run& run, Index column, Index task, kernels::Absorbed* lost) {
  const Index size = source_channels_of_group(w_), group = column / (w_.target_channels() / w_.shape.groups);
  const T* const input = call_.job.inputs[0].row(slice_.begin + run.sample) + group * size;
  BySign<double> of;
  for (const Source& source : sources_of(w_.shape, w_.transposed, run.pixel)) {
    Index step = 0;
    const T* const weights = weights_at(w_, column, source.tap, 0, &step);
    add_contributions(size, weights, step, input + source.pixel * w_.source_channels(), &of);
  }
  const T sums[] = {static_cast<T>(of.above), static_cast<T>(of.below)};
  const T* const z[] = {&sums[0], &sums[1]};
  usual_.write(run, column, 1, z, 1, lost);
  if (!rule_.half_sum_and_difference) {
    return;
  }
  for (Index t = 0; t < slice_.targets; ++t) {  // these take no part in the products
    const Index row = t * slice_.samples + run.sample;
    T* const s = shares_ + row * w_.target_size() + run.pixel * w_.target_channels() + column;
    T& other = s[slice_.rows() * w_.target_size()];
    if (*s != 0 || other != 0) {
      found_[static_cast<std::size_t>(task)].push_back({row, run.pixel, column, {*s, other}});
      *s = other = 0;
    }
  }
}

// What the cancelled entries send, (rows, size of the input).
template <class T>
void Magnitudes<T>::correct(T* corrections) const {
  const Index size = source_channels_of_group(w_), chunks = (size + kChannelsATask - 1) / kChannelsATask;
  parallel_for(slice_.rows() * chunks, call_.threads, [&](Index task) {
    const Index row = task / chunks, first = task % chunks * kChannelsATask;
    const Index count = std::min(kChannelsATask, size - first);
    const T* const input = call_.job.inputs[0].row(slice_.begin + row % slice_.samples);
    T* const sent = corrections + row * w_.source_size();
    for (const std::vector<Cancelled<T>>& entries : found_) {
      for (const Cancelled<T>& entry : entries) {
        if (entry.row != row) {
          continue;
        }
        const Index group = entry.channel / (w_.target_channels() / w_.shape.groups);
        for (const Source& source : sources_of(w_.shape, w_.transposed, entry.position)) {
          Index step = 0;
          const T* const weights = weights_at(w_, entry.channel, source.tap, first, &step);
          const Index at = source.pixel * w_.source_channels() + group * size + first;
          send_contributions(count, weights, step, input + at, entry.share, sent + at);
        }
      }
    }
  });
}

template <class T>
void Magnitudes<T>::send_back() const {
  const bool any = std::any_of(found_.begin(), found_.end(), [](const auto& entries) { return !entries.empty(); });
  const Index size = w_.source_size();
  const Buffer<T> corrections(any ? slice_.rows() * size : 0, call_.threads.workspace);
  if (any) {  // before the result, which may take the input's place
    std::fill_n(corrections.data(), slice_.rows() * size, T(0));
    correct(corrections.data());
  }
  pylrp::send_back(call_, slice_, static_cast<const T*>(shares_));
  if (any) {
    each_piece(slice_.rows(), size, call_.threads, [&](Index, Index row, Index first, Index count) {
      const T* const from = corrections.data() + row * size + first;
      T* const to = call_.job.results[0].row(slice_.row(call_.job, row / slice_.samples, row % slice_.samples)) + first;
      std::transform(from, from + count, to, to, [](T a, T b) { return a + b; });
    });
  }
}

template <class T>
bool run(const ConvCall<T>& call, const BatchSlice& slice, T* shares) {
  Magnitudes<T> magnitudes(call, slice, shares);
  if (!magnitudes.make_shares()) {
    count_run(ConvPath::kTapsCancelled);
    return false;
  }
  magnitudes.send_back();
  return true;
}

}  // namespace

template <class T>
SlicePath<T> taps_by_magnitude() {
  return {ConvPath::kTapsByMagnitude, may_run<T>, applies<T>, run<T>};
}

template SlicePath<float> taps_by_magnitude<float>();
template SlicePath<double> taps_by_magnitude<double>();

}  // namespace pylrp
