// Depthwise convolutions, line by line: nothing of a channel depends on the others, so a task takes some channels of a
// sample down the image. A few lines of sums become shares at once, and lines of the input get their relevance as soon
// as all shares that they receive from are there: inputs and relevance are read once, shares are never a whole image.
// No line of the input is read again once its relevance is written, which may stand in its place.
#include <algorithm>
#include <array>

#include "kernels/dispatch.hpp"
#include "layers/conv/depthwise_tasks.hpp"
#include "layers/conv/mapped_taps.hpp"
#include "layers/conv/plan.hpp"

namespace pylrp {
namespace {

constexpr Index kPositions = 56;  // of a group of lines, so that a call of a kernel has some work
constexpr Index kBands = 4;       // of lines, of the forward pass of a sample
constexpr Index kMostLines = 16;  // that a kernel reaches over

// Positions along an axis, at start + step * row, that meet places of a source: first + scale * row + l with their tap
// number l, which is the kernel's tap + tap_step * l.
struct Along {
  Index rows, start, step;
  Index first, scale, taps;
  Index tap, tap_step;
  Index source;
};
Along outputs_along(const ConvShape& shape, std::size_t axis) {
  return {shape.out[axis], 0, 1, -shape.pad[axis], shape.stride[axis], shape.kernel[axis], 0, 1, shape.in[axis]};
}
// Inputs that meet the same taps: there are as many kinds of them as steps in the stride.
Along inputs_along(const ConvShape& shape, std::size_t axis, Index phase) {
  const Index stride = shape.stride[axis], from = phase + shape.pad[axis];
  const Index least = from % stride, taps = std::max<Index>(0, (shape.kernel[axis] - least + stride - 1) / stride);
  const Index last = least + (taps - 1) * stride;  // the tap that meets the first output
  return {(shape.in[axis] - phase + stride - 1) / stride,
          phase,
          stride,
          (from - last) / stride,
          1,
          taps,
          last,
          -stride,
          shape.out[axis]};
}

template <class T>
bool fits(const ConvWeights<T>& w) {
  const ConvShape& s = w.shape;
  return w.depthwise() && !w.transposed && !w.bias_by_position && s.kernel[0] == 1 && s.in[0] == 1 && s.out[0] == 1 &&
         s.pad[0] == 0 && s.dilation == Axes{1, 1, 1} && s.kernel[1] <= kMostLines &&
         (s.kernel[2] == 3 || s.kernel[2] == 5) && s.stride[2] <= 2;
}

// Lines of sums: over an image, or over what a ring of lines holds of one.
template <class T>
class LineSums {
 public:
  LineSums(const ConvShape& shape, Index columns) : shape_(shape), columns_(columns) {}

  // Lines [begin, end) of the output, one behind the other, `columns` entries a position. from(line): of the source.
  template <class From>
  void outputs(Index begin, Index end, const T* weights, From from, Index step, T* to) const {
    for (Index line = begin; line < end; ++line, to += shape_.out[2] * columns_) {
      sum(outputs_along(shape_, 1), line, outputs_along(shape_, 2), weights, from, step, to);
    }
  }
  // The same of the input.
  template <class From>
  void inputs(Index begin, Index end, const T* weights, From from, Index step, T* to) const {
    for (Index line = begin; line < end; ++line, to += shape_.in[2] * columns_) {
      const Index phase = line % shape_.stride[1];
      for (Index other = 0; other < shape_.stride[2]; ++other) {
        sum(inputs_along(shape_, 1, phase), line / shape_.stride[1], inputs_along(shape_, 2, other), weights, from,
            step, to);
      }
    }
  }

 private:
  template <class From>
  void sum(const Along& across, Index row, const Along& along, const T* weights, From from, Index step, T* to) const {
    const T *at[kMostLines], *w[kMostLines];
    int lines = 0;
    const Index channels = shape_.in_channels;
    for (Index l = 0; l < across.taps; ++l) {
      const Index line = across.first + across.scale * row + l;
      if (line >= 0 && line < across.source) {
        at[lines] = from(line);
        w[lines++] = weights + ((across.tap + across.tap_step * l) * shape_.kernel[2] + along.tap) * channels;
      }
    }
    kernels::table<T>().depthwise_line({.lines = lines,
                                        .taps = static_cast<int>(along.taps),
                                        .scale = static_cast<int>(along.scale),
                                        .rows = along.rows,
                                        .n = columns_,
                                        .at = at,
                                        .first = along.first,
                                        .pixels = along.source,
                                        .step = step,
                                        .w = w,
                                        .w_step = along.tap_step * channels,
                                        .out = to + along.start * columns_,
                                        .out_stride = along.step * columns_});
  }

  const ConvShape& shape_;
  Index columns_;
};

Index lines_together(Index lines, Index width) { return std::clamp<Index>(kPositions / width, 1, lines); }

// --- forward ---

template <class T>
bool forward_applies(const ConvWeights<T>& w, Matrix<const T>, const Threads&) {
  return fits(w);
}

template <class T>
void forward_run(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
                 const Threads& threads) {
  const ConvShape& shape = w.shape;
  const Index channels = shape.in_channels, width = shape.out[2];
  const Index together = lines_together(shape.out[1], width);
  const ChannelTasks tasks(w, 1);
  const Index groups = (shape.out[1] + together - 1) / together, bands = std::min(kBands, groups);
  parallel_for(input.rows * tasks.parts() * bands, threads, [&](Index task) {
    const Index band = task % bands, sample = task / bands / tasks.parts();
    const Index begin = groups * band / bands * together, last = groups * (band + 1) / bands * together;
    const Columns columns = tasks.columns(task / bands % tasks.parts());
    const LineSums<T> sums(shape, columns.count);
    const T* const x = input.row(sample) + columns.first;
    const Buffer<T> z(together * width * columns.count);
    for (Index line = begin; line < std::min(last, shape.out[1]); line += together) {
      const Index end = std::min(line + together, shape.out[1]);
      sums.outputs(
          line, end, w.weight + columns.first, [&](Index at) { return x + at * shape.in[2] * channels; }, channels,
          z.data());
      kernels::table<T>().finish({.rows = (end - line) * width,
                                  .cols = columns.count,
                                  .acc = z.data(),
                                  .acc_stride = columns.count,
                                  .bias = w.bias ? w.bias + columns.first : nullptr,
                                  .low = clamp.low,
                                  .high = clamp.high,
                                  .out = output.row(sample) + line * width * channels + columns.first,
                                  .out_stride = channels});
    }
  });
}

// --- relevance ---

bool is_input_alone(const std::array<double, kParts>& factor) {
  for (std::size_t part = 0; part < factor.size(); ++part) {
    if (factor[part] != 0 && part != static_cast<std::size_t>(Part::kInput)) {
      return false;
    }
  }
  return true;
}

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  return fits(w) && !rule.back.empty() &&
         std::all_of(rule.sums.begin(), rule.sums.end(),
                     [](const Sum& sum) { return sum.size() == 1 && sum[0].part == Part::kInput; }) &&
         std::all_of(rule.back.begin(), rule.back.end(),
                     [](const BackProduct& back) { return is_input_alone(back.factor); });
}

template <class T>
bool applies(const ConvCall<T>& call) {
  return !is_narrow(call) || least_parts(call) == 1;
}

template <class T>
class DepthwiseLines {
 public:
  explicit DepthwiseLines(const ConvCall<T>& call)
      : call_(call),
        shape_(call.weights.shape),
        output_is_sum_(call.output_is_sum()),
        constants_(call.weights, call.rule, output_is_sum_),
        target_parts_(target_parts(call)),
        tasks_(call.weights, least_parts(call)),
        together_(lines_together(shape_.out[1], shape_.out[2])),
        slots_((shape_.kernel[1] + together_ - 2) / together_ + 1) {
    for (std::size_t q = 0; !output_is_sum_ && q < call.rule.sums.size(); ++q) {
      forward_.emplace_back(call.weights, weights_of<T>(call.rule.sums[q][0].map));
    }
    factors_.count = 0;
    for (const BackProduct& back : call.rule.back) {
      backward_.emplace_back(call.weights, weights_of<T>(back.map));
      factors_.mix[factors_.count++] = mix_of<T>(back);
    }
  }
  void run() {
    const Index targets = call_.job.targets(), count = call_.job.batch * tasks_.parts();
    std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(count * targets));
    parallel_for(count * target_parts_, call_.threads, [&](Index task) {
      const Index part = task % target_parts_, place = task / target_parts_;
      run_task(place, targets * part / target_parts_, targets * (part + 1) / target_parts_,
               &lost[static_cast<std::size_t>(place * targets)]);
    });
    for (Index task = 0; task < count; ++task) {
      add_lost(call_.job, {0, call_.job.batch, 0, targets}, task / tasks_.parts(),
               &lost[static_cast<std::size_t>(task * targets)]);
    }
  }

 private:
  // Some channels of a sample on their way down the image.
  struct Task {
    Index sample;
    Columns columns;
    Index first_target;
    Buffer<T> sums, shares, back;
  };
  // Entries of a group of lines of the output, or of as many lines of the input.
  Index group_size(Index columns) const { return together_ * shape_.out[2] * columns; }
  Index lines_back() const { return lines_together(shape_.in[1], shape_.in[2]); }
  // Shares of a line: a ring has those of the groups that a line of the input may receive from.
  T* shares(const Task& task, Index target, int group, Index line) const {
    const Index groups = static_cast<Index>(call_.rule.groups.size()), size = group_size(task.columns.count);
    return task.shares.data() +
           (((target - task.first_target) * groups + group) * slots_ + line / together_ % slots_) * size +
           line % together_ * shape_.out[2] * task.columns.count;
  }

  // Targets [begin, last).
  void run_task(Index number, Index first_target, Index last_target, kernels::Absorbed* lost) const {
    const Columns columns = tasks_.columns(number % tasks_.parts());
    const Index targets = last_target - first_target, groups = static_cast<Index>(call_.rule.groups.size());
    const Index size = group_size(columns.count);
    const Task task{number / tasks_.parts(),
                    columns,
                    first_target,
                    Buffer<T>(static_cast<Index>(forward_.size()) * size),
                    Buffer<T>(targets * groups * slots_ * size),
                    Buffer<T>(factors_.count * lines_back() * shape_.in[2] * columns.count)};
    Index written = 0;
    for (Index line = 0; line < shape_.out[1]; line += together_) {
      const Index end = std::min(line + together_, shape_.out[1]);
      compute_sums(task, line, end);
      // What lines of the output from `end` on do not meet any more.
      const Index ready = end == shape_.out[1]
                              ? shape_.in[1]
                              : std::clamp<Index>(end * shape_.stride[1] - shape_.pad[1], written, shape_.in[1]);
      for (Index target = first_target; target < last_target; ++target) {
        compute_shares(task, target, line, end, lost + target);
        for (Index first = written; first < ready; first += lines_back()) {
          send_back(task, target, first, std::min(first + lines_back(), ready));
        }
      }
      written = ready;
    }
  }

  void compute_sums(const Task& task, Index begin, Index end) const {
    const Index channels = shape_.in_channels;
    const T* const x = call_.job.inputs[0] ? call_.job.inputs[0].row(task.sample) + task.columns.first : nullptr;
    for (std::size_t q = 0; q < forward_.size(); ++q) {
      LineSums<T>(shape_, task.columns.count)
          .outputs(
              begin, end, forward_[q].data() + task.columns.first,
              [&](Index line) { return x + line * shape_.in[2] * channels; }, channels,
              task.sums.data() + static_cast<Index>(q) * group_size(task.columns.count));
    }
  }

  void compute_shares(const Task& task, Index target, Index begin, Index end, kernels::Absorbed* lost) const {
    const RelevanceJob<T>& job = call_.job;
    const Index channels = shape_.in_channels, at = begin * shape_.out[2] * channels + task.columns.first;
    const T* z[kernels::kMaxSums] = {};
    T* s[kernels::kMaxGroups] = {};
    if (output_is_sum_) {
      z[0] = job.output.row(task.sample) + at;
    }
    for (std::size_t q = 0; q < forward_.size(); ++q) {
      z[q] = task.sums.data() + static_cast<Index>(q) * group_size(task.columns.count);
    }
    for (std::size_t g = 0; g < call_.rule.groups.size(); ++g) {
      s[g] = shares(task, target, static_cast<int>(g), begin);
    }
    kernels::table<T>().shares({.rows = (end - begin) * shape_.out[2],
                                .cols = task.columns.count,
                                .rule = shares_at_column(constants_.args, task.columns.first),
                                .z = z,
                                .z_stride = output_is_sum_ ? channels : task.columns.count,
                                .r = job.relevance.row(target * job.batch + task.sample) + at,
                                .r_stride = channels,
                                .s = s,
                                .s_stride = task.columns.count,
                                .ledger = lost,
                                .ledger_step = 0});
  }

  // Relevance of lines [begin, end) of the input.
  void send_back(const Task& task, Index target, Index begin, Index end) const {
    const RelevanceJob<T>& job = call_.job;
    const Index channels = shape_.in_channels, at = begin * shape_.in[2] * channels + task.columns.first;
    const Index size = lines_back() * shape_.in[2] * task.columns.count;
    kernels::Mixed<T> mixed = factors_;
    for (std::size_t b = 0; b < backward_.size(); ++b) {
      T* const to = task.back.data() + static_cast<Index>(b) * size;
      mixed.acc[b] = to;
      LineSums<T>(shape_, task.columns.count)
          .inputs(
              begin, end, backward_[b].data() + task.columns.first,
              [&](Index line) { return shares(task, target, call_.rule.back[b].group, line); }, task.columns.count, to);
    }
    kernels::table<T>().accumulate({.rows = (end - begin) * shape_.in[2],
                                    .cols = task.columns.count,
                                    .mixed = mixed,
                                    .acc_stride = task.columns.count,
                                    .a = job.inputs[0] ? job.inputs[0].row(task.sample) + at : nullptr,
                                    .a_stride = channels,
                                    .low = nullptr,
                                    .high = nullptr,
                                    .bound_stride = 0,
                                    .add = false,
                                    .out = job.results[0].row(target * job.batch + task.sample) + at,
                                    .out_stride = channels});
  }

  const ConvCall<T>& call_;
  const ConvShape& shape_;
  bool output_is_sum_;
  ShareConstants<T> constants_;
  Index target_parts_;
  ChannelTasks tasks_;
  Index together_, slots_;  // lines of a group, groups of a ring
  std::vector<MappedTaps<T>> forward_, backward_;
  kernels::Mixed<T> factors_;
};

template <class T>
void run(const ConvCall<T>& call) {
  if (call.output_is_sum()) {
    count_run(ConvPath::kOutputAsSum);
  }
  DepthwiseLines<T>(call).run();
}

}  // namespace

template <class T>
ForwardPath<T> depthwise_lines_forward() {
  return {ConvPath::kDepthwiseLinesForward, forward_applies<T>, forward_run<T>};
}

template <class T>
RelevancePath<T> depthwise_lines() {
  return {ConvPath::kDepthwiseLines, may_run<T>, applies<T>, run<T>};
}

template ForwardPath<float> depthwise_lines_forward<float>();
template ForwardPath<double> depthwise_lines_forward<double>();
template RelevancePath<float> depthwise_lines<float>();
template RelevancePath<double> depthwise_lines<double>();

}  // namespace pylrp
