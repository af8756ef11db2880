// The loops: weights are packed once for all tasks; a task takes a block of rows and a group of panels. For each slab
// of panels and each block of the reduction (some taps, or some channels of one) it runs all tiles of rows: the slab's
// weights stay in the L2 cache, a tile's pixels in the L1. With few rows a task packs its panel itself, a block of the
// reduction at a time. The order of a sum does not depend on which task computes it.
#include "products/taps.hpp"

#include "kernels/dispatch.hpp"

// CMake's PYLRP_CONV_PACK_IN_TASKS.
#ifndef PYLRP_CONV_PACK_IN_TASKS
#define PYLRP_CONV_PACK_IN_TASKS 1
#endif

namespace pylrp {
namespace {

// A block of the reduction: some taps with all channels, or some channels of one tap.
struct Chunk {
  std::size_t tap, taps;
  Index channel, depth;
};
std::vector<Chunk> chunks_of(std::size_t taps, Index channels) {
  std::vector<Chunk> chunks;
  if (channels <= kReductionBlock) {
    const std::size_t together = static_cast<std::size_t>(kReductionBlock / std::max<Index>(channels, 1));
    for (std::size_t t = 0; t < taps; t += together) {
      chunks.push_back({t, std::min(together, taps - t), 0, channels});
    }
    return chunks;
  }
  const Index parts = (channels + kReductionBlock - 1) / kReductionBlock;
  for (std::size_t t = 0; t < taps; ++t) {
    for (Index i = 0; i < parts; ++i) {
      const Index begin = channels * i / parts;
      chunks.push_back({t, 1, begin, channels * (i + 1) / parts - begin});
    }
  }
  return chunks;
}

}  // namespace

// Blocks come and go by the thousand: their memory stays with the thread.
thread_local std::vector<Block::At> Block::spare;

Block::~Block() { at_.swap(spare); }

Place::Place(const Walk& walk, Index index) : sample(index / walk.count()) {
  const Index position = index % walk.count();
  row = {position / (walk.rows[1] * walk.rows[2]), position / walk.rows[2] % walk.rows[1], position % walk.rows[2]};
}

void Place::next(const Walk& walk) {
  for (std::size_t a = 3; a-- > 0;) {
    if (++row[a] < walk.rows[a]) {
      return;
    }
    row[a] = 0;
  }
  ++sample;
}

Rows::Rows(const Walk& walk, Index begin, Index end) : walk_(walk), begin_(begin), count_(end - begin) {
  // A run ends with its sample, and, where the target is walked in steps, with its line.
  const Index line = walk.dense() ? walk.count() : walk.rows[2];
  for (Index r = begin; r < end;) {
    const Place place(walk, r);
    Axes target{};
    for (std::size_t a = 0; a < 3; ++a) {
      target[a] = walk.start[a] + walk.step[a] * place.row[a];
    }
    const Index pixel = (target[0] * walk.target[1] + target[1]) * walk.target[2] + target[2];
    const Index last = std::min(end, (r / line + 1) * line);
    runs_.push_back({r - begin, last - r, place.sample, pixel, walk.step[2]});
    r = last;
  }
}

Block::Block(const Walk& walk, Index begin, Index end) : Rows(walk, begin, end) {
  Axes least{}, most{};
  for (const KernelTap& tap : walk.taps) {
    delta_.push_back((tap.offset[0] * walk.source[1] + tap.offset[1]) * walk.source[2] + tap.offset[2]);
    for (std::size_t a = 0; a < 3; ++a) {
      least[a] = std::min(least[a], tap.offset[a]);
      most[a] = std::max(most[a], tap.offset[a]);
    }
  }
  at_.swap(spare);
  at_.resize(static_cast<std::size_t>(end - begin));
  Place place(walk, begin);
  for (At& at : at_) {
    at.sample = place.sample;
    at.inside = true;
    for (std::size_t a = 0; a < 3; ++a) {
      at.position[a] = walk.scale[a] * place.row[a];
      at.inside = at.inside && at.position[a] + least[a] >= 0 && at.position[a] + most[a] < walk.source[a];
    }
    at.pixel = (at.position[0] * walk.source[1] + at.position[1]) * walk.source[2] + at.position[2];
    place.next(walk);
  }
}

template <class T>
Index TapWork<T>::panels() const {
  const Index width = kernels::table<T>().tile_cols;
  return (columns + width - 1) / width;
}

template <class T>
Index TapWork<T>::own_blocks() const {
#if PYLRP_CONV_PACK_IN_TASKS
  const Index parts = std::max<Index>(1, panels() * groups);
  const Index blocks = std::max({Index{1}, (kMinOwnTasks + parts - 1) / parts, (rows() + kOwnRows - 1) / kOwnRows});
  return blocks <= kMaxPacks && (blocks == 1 || rows() / blocks >= kMinRowsOfPack) ? blocks : 0;
#else
  return 0;
#endif
}

template <class T>
Index TapWork<T>::splits() const {
  if (packs_in_tasks()) {
    return panels();
  }
  const Index have = std::max<Index>(1, blocks() * groups);
  return std::clamp<Index>((kMinConvTasks + have - 1) / have, 1, panels());
}

namespace {

// One call of multiply_taps(): what its tasks share.
template <class T>
class TapLoops {
 public:
  TapLoops(const TapWork<T>& work, const Threads& threads);
  void run_task(Index task) const;

 private:
  // A task's rows, and the group and panels that it computes for them.
  struct Task {
    Index number, group;
    Block block;
    Buffer<T> sums;    // (outputs, panels of a slab, rows, width)
    Buffer<T> panels;  // of a block of the reduction, where the task packs them: (products, kReductionBlock, width)
    std::vector<const T*> sources;
  };
  Index columns_of(Index panel) const { return std::min(width_, work_.columns - panel * width_); }
  T* packed(Index group, Index product, Index panel) const {
    return packed_.data() + ((group * products_ + product) * panels_ + panel) * walk_taps_ * tap_size_;
  }
  T* sum(const Task& task, Index output, Index panel) const {
    return task.sums.data() + (output * slab_ + panel) * task.block.count() * width_;
  }
  void pack(Index group, Index product, Index panel, const Chunk& chunk, T* to) const;
  void pack_all(const Threads& threads);
  void run_slab(Task* task, Index first, Index last) const;
  void run_tile(Task* task, const Chunk& chunk, Index row, Index height, Index first, Index last) const;

  const kernels::Table<T>& kernel_ = kernels::table<T>();
  const TapWork<T>& work_;
  Index width_, panels_, walk_taps_, products_, tap_size_, slab_;
  bool in_tasks_;     // tasks pack their panels
  Buffer<T> packed_;  // else: all of them, (groups, products, panels, taps, channels, width)
  std::vector<Chunk> chunks_;
  Buffer<T> own_zeros_;
  const T* zeros_;
};

template <class T>
TapLoops<T>::TapLoops(const TapWork<T>& work, const Threads& threads)
    : work_(work),
      width_(kernel_.tile_cols),
      panels_(work.panels()),
      walk_taps_(static_cast<Index>(work.walk->taps.size())),
      products_(static_cast<Index>(work.products.size())),
      tap_size_(work.channels * width_),
      in_tasks_(work.packs_in_tasks()),
      chunks_(chunks_of(work.walk->taps.size(), work.channels)),
      zeros_(zeros<T>(kReductionBlock, &own_zeros_)) {
  const Index most = std::min(panels_, kSlabPanels);
  slab_ = in_tasks_ ? 1 : std::max<Index>(1, most / std::max<Index>(1, products_));
  if (!in_tasks_) {
    pack_all(threads);
  }
}

template <class T>
void TapLoops<T>::pack(Index group, Index product, Index panel, const Chunk& chunk, T* to) const {
  for (std::size_t t = 0; t < chunk.taps; ++t) {
    const Index tap = work_.walk->taps[chunk.tap + t].kernel;
    work_.pack({group, tap, chunk.channel, chunk.depth, panel * width_, columns_of(panel)},
               work_.products[static_cast<std::size_t>(product)].map, to);
    to += chunk.depth * width_;
  }
}

template <class T>
void TapLoops<T>::pack_all(const Threads& threads) {
  const Index count = work_.groups * products_ * panels_, size = count * walk_taps_ * tap_size_;
  packed_.reset(size, threads.workspace);
  parallel_for(count, threads.alone_if(size < kMinWeightsToPackInParallel), [&](Index i) {
    const Index panel = i % panels_, product = i / panels_ % products_, group = i / panels_ / products_;
    pack(group, product, panel, {0, work_.walk->taps.size(), 0, work_.channels}, packed(group, product, panel));
  });
}

template <class T>
void TapLoops<T>::run_task(Index number) const {
  const Index splits = work_.splits(), blocks = work_.blocks();
  const Index split = number % splits, at = number / splits / work_.groups;
  const Index begin = work_.rows() * at / blocks, end = work_.rows() * (at + 1) / blocks;
  Task task{number,
            number / splits % work_.groups,
            {*work_.walk, begin, end},
            Buffer<T>(work_.outputs * slab_ * (end - begin) * width_),
            Buffer<T>(in_tasks_ ? products_ * kReductionBlock * width_ : 0),
            std::vector<const T*>(static_cast<std::size_t>(kReductionBlock * kernel_.tile_rows))};
  const Index panel_begin = panels_ * split / splits, panel_end = panels_ * (split + 1) / splits;
  for (Index first = panel_begin; first < panel_end; first += slab_) {
    const Index last = std::min(first + slab_, panel_end);
    run_slab(&task, first, last);
    for (Index p = first; p < last; ++p) {
      work_.done(number, task.block, task.group * work_.columns + p * width_, columns_of(p),
                 [&](Index output) { return sum(task, output, p - first); });
    }
  }
}

// The sums of panels [first, last).
template <class T>
void TapLoops<T>::run_slab(Task* task, Index first, Index last) const {
  const Index rows = task->block.count(), tiles = (rows + kernel_.tile_rows - 1) / kernel_.tile_rows;
  if (chunks_.empty() || products_ == 0) {
    std::fill_n(task->sums.data(), work_.outputs * slab_ * rows * width_, T(0));
  }
  for (const Chunk& chunk : chunks_) {
    for (Index i = 0; in_tasks_ && i < products_; ++i) {
      pack(task->group, i, first, chunk, task->panels.data() + i * kReductionBlock * width_);
    }
    for (Index tile = 0; tile < tiles; ++tile) {
      const Index row = rows * tile / tiles;
      run_tile(task, chunk, row, rows * (tile + 1) / tiles - row, first, last);
    }
  }
}

// What a block of the reduction adds to the sums of some rows.
template <class T>
void TapLoops<T>::run_tile(Task* task, const Chunk& chunk, Index row, Index height, Index first, Index last) const {
  const T* image = nullptr;
  for (Index i = 0; i < products_; ++i) {
    const TapProduct<T>& product = work_.products[static_cast<std::size_t>(i)];
    if (image != product.image.data) {
      image = product.image.data;
      Image<T> from = product.image;
      from.data += (from.pixel_stride == 0 ? 0 : task->group * work_.channels) + chunk.channel;
      task->block.sources(from, row, height, chunk.tap, chunk.taps, zeros_, task->sources.data());
    }
    const bool add = &chunk != &chunks_.front() ||
                     (i > 0 && work_.products[static_cast<std::size_t>(i - 1)].output == product.output);
    for (Index p = first; p < last; ++p) {
      const T* const panel =
          in_tasks_ ? task->panels.data() + i * kReductionBlock * width_
                    : packed(task->group, i, p) + static_cast<Index>(chunk.tap) * tap_size_ + chunk.channel * width_;
      kernel_.tile_taps({.rows = static_cast<int>(height),
                         .halves = 2 * columns_of(p) <= width_ ? 1 : 2,
                         .taps = static_cast<int>(chunk.taps),
                         .k = chunk.depth,
                         .rows_at = task->sources.data(),
                         .panel = panel,
                         .add = add,
                         .out = sum(*task, product.output, p - first) + row * width_,
                         .out_stride = width_});
    }
  }
}

}  // namespace

template <class T>
void multiply_taps(const TapWork<T>& work, const Threads& threads) {
  const TapLoops<T> loops(work, threads);
  parallel_for(work.tasks(), threads, [&](Index task) { loops.run_task(task); });
}

template <class T>
const T* zeros(Index count, Buffer<T>* own) {
  alignas(64) static const T some[kReductionBlock + 64] = {};
  if (count <= kReductionBlock) {
    return some;
  }
  own->reset(count);
  std::fill_n(own->data(), count, T(0));
  return own->data();
}

template struct TapWork<float>;
template struct TapWork<double>;
template void multiply_taps<float>(const TapWork<float>&, const Threads&);
template void multiply_taps<double>(const TapWork<double>&, const Threads&);
template const float* zeros<float>(Index, Buffer<float>*);
template const double* zeros<double>(Index, Buffer<double>*);

}  // namespace pylrp
