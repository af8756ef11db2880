// Rules that read every weight as 1 (flat). The channels of a position have one denominator, the number n of its
// inputs, and each of these receives the same, R_in = 1^T (R / n): the channels of R are added up first, and what
// positions send is added up along the lines of the image, then from line to line.
#include <algorithm>
#include <functional>

#include "kernels/dispatch.hpp"
#include "layers/conv/plan.hpp"

namespace pylrp {
namespace {

bool reads_ones(const LoweredRule& rule) {
  std::array<double, kParts> only{};
  only[static_cast<std::size_t>(Part::kOne)] = 1;
  return rule.sums.size() == 1 && rule.sums[0].size() == 1 && rule.sums[0][0].part == Part::kOne &&
         rule.sums[0][0].map.kind == MapKind::kOne && rule.back.size() == 1 && rule.back[0].map.kind == MapKind::kOne &&
         rule.back[0].factor == only;
}

template <class T>
bool may_run(const ConvWeights<T>& w, const LoweredRule& rule) {
  return reads_ones(rule) && !rule.masked && rule.groups[0].bias.kind == BiasKind::kNone && !w.transposed &&
         !w.depthwise() && w.shape.groups == 1 && w.target_channels() > 1;
}

template <class T>
bool applies(const ConvCall<T>&) {
  return true;
}

// How many taps of a position along an axis are inside.
Index taps_inside(const ConvShape& shape, std::size_t axis, Index position) {
  Index inside = 0;
  for (Index k = 0; k < shape.kernel[axis]; ++k) {
    const Index x = position * shape.stride[axis] - shape.pad[axis] + k * shape.dilation[axis];
    inside += x >= 0 && x < shape.in[axis] ? 1 : 0;
  }
  return inside;
}

// The position along an axis that meets place x with its tap k, or -1.
Index position_of(const ConvShape& shape, std::size_t axis, Index x, Index k) {
  const Index from = x + shape.pad[axis] - k * shape.dilation[axis];
  return from >= 0 && from % shape.stride[axis] == 0 && from / shape.stride[axis] < shape.out[axis]
             ? from / shape.stride[axis]
             : -1;
}

template <class T>
class UniformWeights {
 public:
  explicit UniformWeights(const ConvCall<T>& call)
      : call_(call),
        shape_(call.weights.shape),
        args_(shares_of<T>(call.rule, no_bias_, no_bias_, nullptr)),
        inputs_(count(shape_.out)),
        sent_(call.job.relevance.rows * lines(shape_.out) * shape_.in[2], call.threads.workspace) {
    Index at = 0;
    for (Index z = 0; z < shape_.out[0]; ++z) {
      for (Index y = 0; y < shape_.out[1]; ++y) {
        const Index outer = taps_inside(shape_, 0, z) * taps_inside(shape_, 1, y) * shape_.in_channels;
        for (Index x = 0; x < shape_.out[2]; ++x) {
          inputs_.data()[at++] = static_cast<T>(outer * taps_inside(shape_, 2, x));
        }
      }
    }
  }
  void run() {
    const Index rows = call_.job.relevance.rows, out = lines(shape_.out), in = lines(shape_.in);
    std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(rows * out));
    parallel_for(rows * out, call_.threads,
                 [&](Index i) { send_along(i / out, i % out, &lost[static_cast<std::size_t>(i)]); });
    parallel_for(rows * in, call_.threads, [&](Index i) { gather(i / in, i % in); });
    add_absorbed(lost, out, call_.job.absorbed);
  }

 private:
  static Index lines(const Axes& axes) { return axes[0] * axes[1]; }
  T* sent(Index row, Index line) const { return sent_.data() + (row * lines(shape_.out) + line) * shape_.in[2]; }

  // What the positions of a line send to places along it.
  void send_along(Index row, Index line, kernels::Absorbed* lost) {
    const Index channels = shape_.out_channels, width = shape_.out[2];
    const T* const relevance = call_.job.relevance.row(row) + line * width * channels;
    const Buffer<T> shares(width);
    for (Index x = 0; x < width; ++x) {
      shares.data()[x] = static_cast<T>(kernels::table<T>().sum(channels, relevance + x * channels));
    }
    const T* const z[] = {inputs_.data() + line * width};
    T* const s[] = {shares.data()};
    kernels::table<T>().shares({.rows = 1,
                                .cols = width,
                                .rule = args_,
                                .z = z,
                                .z_stride = 0,
                                .r = shares.data(),
                                .r_stride = 0,
                                .s = s,
                                .s_stride = 0,
                                .ledger = lost,
                                .ledger_step = 0});
    T* const to = sent(row, line);
    std::fill_n(to, shape_.in[2], T(0));
    for (Index k = 0; k < shape_.kernel[2]; ++k) {
      for (Index x = 0; x < width; ++x) {
        const Index place = x * shape_.stride[2] - shape_.pad[2] + k * shape_.dilation[2];
        if (place >= 0 && place < shape_.in[2]) {
          to[place] += shares.data()[x];
        }
      }
    }
  }

  // What a line of the input receives from the lines that meet it.
  void gather(Index row, Index line) const {
    const Index width = shape_.in[2], channels = shape_.in_channels;
    const Buffer<T> memory(width);
    T* const all = memory.data();
    std::fill_n(all, width, T(0));
    for (Index i = 0; i < shape_.kernel[0]; ++i) {
      const Index z = position_of(shape_, 0, line / shape_.in[1], i);
      for (Index j = 0; z >= 0 && j < shape_.kernel[1]; ++j) {
        const Index y = position_of(shape_, 1, line % shape_.in[1], j);
        if (y >= 0) {
          const T* const from = sent(row, z * shape_.out[1] + y);
          std::transform(from, from + width, all, all, std::plus<>());
        }
      }
    }
    T* to = call_.job.results[0].row(row) + line * width * channels;
    for (Index x = 0; x < width; ++x, to += channels) {
      std::fill_n(to, channels, all[x]);
    }
  }

  static constexpr const T* no_bias_[kernels::kMaxGroups] = {};
  const ConvCall<T>& call_;
  const ConvShape& shape_;
  kernels::Shares<T> args_;
  Buffer<T> inputs_;  // of each position
  Buffer<T> sent_;    // (rows, lines of the output, width of the input)
};

template <class T>
void run(const ConvCall<T>& call) {
  UniformWeights<T>(call).run();
}

}  // namespace

template <class T>
RelevancePath<T> uniform_weights() {
  return {ConvPath::kUniformWeights, may_run<T>, applies<T>, run<T>};
}

template RelevancePath<float> uniform_weights<float>();
template RelevancePath<double> uniform_weights<double>();

}  // namespace pylrp
