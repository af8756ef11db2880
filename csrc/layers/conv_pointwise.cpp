// A convolution with a kernel of one: a dense layer at every position. Nothing of a position depends on its neighbours,
// so a task takes some positions through all steps (sums, shares, relevance) while they are in its cache.
#include <algorithm>
#include <cstring>

#include "kernels/dispatch.hpp"
#include "layers/conv.hpp"
#include "layers/dense.hpp"

namespace pylrp {
namespace {

constexpr Index kDepth = 256;               // of a product, at a time: a panel's piece stays in the L1 cache
constexpr Index kTasks = 4;                 // of a sample, wanted at least
constexpr Index kBytes = Index{384} << 10;  // of a task's arrays: they stay in the L2 cache

// The weights under a map, as panels for one direction.
template <class T>
class Panels {
 public:
  Panels(const ConvWeights<T>& w, const WeightMap& map, bool up, Workspace* workspace)
      : w_(w), map_(map), up_(up), memory_(count() * size(), workspace) {}
  Index depth() const { return up_ ? w_.shape.in_channels : w_.shape.out_channels; }
  Index columns() const { return up_ ? w_.shape.out_channels : w_.shape.in_channels; }
  Index count() const { return (columns() + width() - 1) / width(); }
  Index columns_of(Index panel) const { return std::min(width(), columns() - panel * width()); }
  const T* at(Index panel) const { return memory_.data() + panel * size(); }
  bool is(const WeightMap& map) const { return map == map_; }
  static Index width() { return kernels::table<T>().tile_cols; }

  void pack(Index panel) const {
    const kernels::Table<T>& kernel = kernels::table<T>();
    const int columns = static_cast<int>(columns_of(panel));
    const Index in = w_.shape.in_channels, first = panel * width();
    T* const to = memory_.data() + panel * size();
    if (up_) {
      kernel.pack_forward(columns, in, w_.weight + first * in, in, weights_of<T>(map_), to);
    } else {
      kernel.pack_backward(columns, w_.shape.out_channels, w_.weight + first, in, weights_of<T>(map_), to);
    }
  }

 private:
  Index size() const { return depth() * width(); }
  const ConvWeights<T>& w_;
  WeightMap map_;
  bool up_;
  Buffer<T> memory_;
};

// All that a layer needs, each map once; filled by all threads together.
template <class T>
class PanelSet {
 public:
  PanelSet(const ConvWeights<T>& w, Workspace* workspace) : w_(w), workspace_(workspace) {}
  std::size_t add(const WeightMap& map, bool up) {
    std::vector<std::unique_ptr<Panels<T>>>& of = up ? up_ : down_;
    for (std::size_t i = 0; i < of.size(); ++i) {
      if (of[i]->is(map)) {
        return i;
      }
    }
    of.push_back(std::make_unique<Panels<T>>(w_, map, up, workspace_));
    return of.size() - 1;
  }
  void pack(const Threads& threads) const {
    std::vector<std::pair<const Panels<T>*, Index>> all;
    for (const auto* of : {&up_, &down_}) {
      for (const auto& panels : *of) {
        for (Index p = 0; p < panels->count(); ++p) {
          all.push_back({panels.get(), p});
        }
      }
    }
    constexpr Index kLittle = 1 << 16;  // weights
    const bool little = w_.shape.in_channels * w_.shape.out_channels * static_cast<Index>(all.size()) < kLittle;
    parallel_for(static_cast<Index>(all.size()), threads.alone_if(little), [&](Index i) {
      const auto& [panels, panel] = all[static_cast<std::size_t>(i)];
      panels->pack(panel);
    });
  }
  const Panels<T>& up(std::size_t i) const { return *up_[i]; }
  const Panels<T>& down(std::size_t i) const { return *down_[i]; }

 private:
  const ConvWeights<T>& w_;
  Workspace* workspace_;
  std::vector<std::unique_ptr<Panels<T>>> up_, down_;
};

// out(rows, columns) = or += x(rows, depth) times the weights. Rows of `out` have room for whole panels.
template <class T>
void multiply(const T* x, Index x_stride, Index rows, const Panels<T>& panels, bool add, T* out, Index out_stride) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index width = Panels<T>::width(), depth = panels.depth();
  const Index tiles = (rows + kernel.tile_rows - 1) / kernel.tile_rows, chunks = (depth + kDepth - 1) / kDepth;
  thread_local std::vector<const T*> at;
  at.resize(static_cast<std::size_t>(rows));
  for (Index c = 0; c < chunks; ++c) {
    const Index first = depth * c / chunks, count = depth * (c + 1) / chunks - first;
    for (Index i = 0; i < rows; ++i) {
      at[static_cast<std::size_t>(i)] = x + i * x_stride + first;
    }
    for (Index p = 0; p < panels.count(); ++p) {
      for (Index t = 0; t < tiles; ++t) {
        const Index row = rows * t / tiles, height = rows * (t + 1) / tiles - row;
        kernel.tile_taps(static_cast<int>(height), 2 * panels.columns_of(p) <= width ? 1 : 2, 1, count, at.data() + row,
                         panels.at(p) + first * width, add || c > 0, out + row * out_stride + p * width, out_stride);
      }
    }
  }
}

Index padded(Index columns, Index width) { return (columns + width - 1) / width * width; }

// Positions of all samples in tasks that need `row_bytes` a position: body(task, sample, first position, positions).
struct Positions {
  Index samples, positions, parts;
  Positions(Index samples_, Index positions_, Index row_bytes, Index tile_rows)
      : samples(samples_), positions(positions_) {
    const Index fitting = std::max<Index>(1, kBytes / row_bytes / tile_rows) * tile_rows;
    const Index tiles = (positions + tile_rows - 1) / tile_rows;
    parts = std::clamp<Index>((positions + fitting - 1) / fitting, std::min(kTasks, (tiles + 1) / 2), tiles);
  }
  Index tasks() const { return samples * parts; }
  template <class Body>
  void each(const Threads& threads, Body body) const {
    parallel_for(tasks(), threads, [&](Index task) {
      const Index part = task % parts, first = positions * part / parts;
      body(task, task / parts, first, positions * (part + 1) / parts - first);
    });
  }
};

}  // namespace

template <class T>
void pointwise_forward(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
                       const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Index in = w.source_channels(), out = w.target_channels(), stride = padded(out, kernel.tile_cols);
  PanelSet<T> panels(w, threads.workspace);
  const std::size_t plain = panels.add(WeightMap{}, true);
  panels.pack(threads);
  const Positions work(input.rows, count(w.target()), (in + 2 * stride) * static_cast<Index>(sizeof(T)),
                       kernel.tile_rows);
  work.each(threads, [&](Index, Index sample, Index first, Index rows) {
    const Buffer<T> sums(rows * stride);
    multiply(input.row(sample) + first * in, in, rows, panels.up(plain), false, sums.data(), stride);
    kernel.finish(rows, out, sums.data(), stride, w.bias, clamp.low, clamp.high, output.row(sample) + first * out, out);
  });
}

template <class T>
void pointwise_relevance(const ConvWeights<T>& w, const LoweredRule& rule, bool reuse, const RelevanceJob<T>& job,
                         const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const ChannelBases<T> bases(w, rule, reuse);
  const Index in = w.source_channels(), out = w.target_channels();
  const Index in_stride = padded(in, kernel.tile_cols), out_stride = padded(out, kernel.tile_cols);
  const Index sums = reuse ? 0 : static_cast<Index>(rule.sums.size()), groups = static_cast<Index>(rule.groups.size());
  PanelSet<T> panels(w, threads.workspace);
  std::vector<std::vector<std::size_t>> up(static_cast<std::size_t>(sums));
  std::vector<std::size_t> down;
  for (std::size_t q = 0; q < up.size(); ++q) {
    for (const Tap& tap : rule.sums[q]) {
      up[q].push_back(panels.add(tap.map, true));
    }
  }
  for (const BackProduct& back : rule.back) {
    down.push_back(panels.add(back.map, false));
  }
  panels.pack(threads);
  std::vector<T> ones(static_cast<std::size_t>(rule.reads(Part::kOne) ? in : 0), T(1));
  const Index row_bytes = (4 * in_stride + (sums + groups + 1) * out_stride) * static_cast<Index>(sizeof(T));
  const Positions work(job.batch, count(w.target()), row_bytes, kernel.tile_rows);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(work.tasks() * job.targets()));
  work.each(threads, [&](Index task, Index sample, Index first, Index rows) {
    const T* const x = job.inputs[0] ? job.inputs[0].row(sample) + first * in : nullptr;
    const T* const low = job.bounds.low ? job.bounds.low + first * in : nullptr;
    const T* const high = job.bounds.high ? job.bounds.high + first * in : nullptr;
    Buffer<T> halves[2];
    const auto source = [&](Part part, Index* stride) -> const T* {
      *stride = part == Part::kOne ? 0 : in;
      if (part != Part::kPositive && part != Part::kNegative) {
        return part == Part::kInput ? x : (part == Part::kOne ? ones.data() : (part == Part::kLow ? low : high));
      }
      Buffer<T>& half = halves[part == Part::kPositive ? 0 : 1];
      if (half.data() == nullptr) {
        half.reset(rows * in);
        kernel.part_of(rows * in, x, part == Part::kPositive ? 1 : -1, half.data());
      }
      return half.data();
    };
    const Buffer<T> memory(rows * ((sums + groups) * out_stride + in_stride));
    T* const sum_memory = memory.data();
    T* const share_memory = sum_memory + sums * rows * out_stride;
    T* const back_memory = share_memory + groups * rows * out_stride;
    const T* z[kernels::kMaxSums] = {job.output ? job.output.row(sample) + first * out : nullptr};
    for (std::size_t q = 0; q < up.size(); ++q) {
      T* const sum = sum_memory + static_cast<Index>(q) * rows * out_stride;
      for (std::size_t i = 0; i < up[q].size(); ++i) {
        Index stride = 0;
        const T* const from = source(rule.sums[q][i].part, &stride);
        multiply(from, stride, rows, panels.up(up[q][i]), i > 0, sum, out_stride);
      }
      z[q] = sum;
    }
    T* s[kernels::kMaxGroups] = {};
    for (Index g = 0; g < groups; ++g) {
      s[g] = share_memory + g * rows * out_stride;
    }
    for (Index t = 0; t < job.targets(); ++t) {
      const Index row = t * job.batch + sample;
      kernel.shares(rows, out, bases.plan, z, reuse ? out : out_stride, job.relevance.row(row) + first * out, out, s,
                    out_stride, &lost[static_cast<std::size_t>(task * job.targets() + t)], 0);
      bool written = false;
      for (std::size_t b = 0; b < rule.back.size(); ++b) {
        multiply(s[rule.back[b].group], out_stride, rows, panels.down(down[b]), rule.joins(b), back_memory, in_stride);
        if (b + 1 < rule.back.size() && rule.joins(b + 1)) {
          continue;
        }
        kernel.accumulate(rows, in, back_memory, in_stride, x, in, low, high, in, mix_of<T>(rule.back[b]), written,
                          job.results[0].row(row) + first * in, in);
        written = true;
      }
    }
  });
  for (Index task = 0; task < work.tasks(); ++task) {
    for (Index t = 0; t < job.targets(); ++t) {
      add_absorbed(lost[static_cast<std::size_t>(task * job.targets() + t)],
                   &job.absorbed[t * job.batch + task / work.parts]);
    }
  }
}

template void pointwise_forward<float>(const ConvWeights<float>&, Matrix<const float>, Matrix<float>,
                                       const Clamp<float>&, const Threads&);
template void pointwise_forward<double>(const ConvWeights<double>&, Matrix<const double>, Matrix<double>,
                                        const Clamp<double>&, const Threads&);
template void pointwise_relevance<float>(const ConvWeights<float>&, const LoweredRule&, bool,
                                         const RelevanceJob<float>&, const Threads&);
template void pointwise_relevance<double>(const ConvWeights<double>&, const LoweredRule&, bool,
                                          const RelevanceJob<double>&, const Threads&);

}  // namespace pylrp
