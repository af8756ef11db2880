// The loops: weights are packed once for all tasks; a task takes a block of rows and a group of panels. For each slab
// of panels and each block of the reduction (some taps, or some channels of one) it runs all tiles of rows: the slab's
// weights stay in the L2 cache, a tile's pixels in the L1. With few rows a task packs its panel itself, a block of the
// reduction at a time. The order of a sum does not depend on which task computes it.
#include "products/taps.hpp"

#include <memory>

#include "kernels/dispatch.hpp"
#include "products/fetch.hpp"
#include "products/tap_lists.hpp"
#include "products/tap_signs.hpp"

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

// Weights are fetched in so many pieces while lists are multiplied by those before.
constexpr Index kFetchPieces = 8;

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
    Buffer<T> sums;  // (outputs, panels of a slab, rows, width)
    Buffer<T>
        panels;  // of a block of the reduction, where the task packs them: (products, slab, kReductionBlock, width)
    Buffer<const T*> sources;
    const TapLeft<T>* left = nullptr;  // null: all by tiles
    std::unique_ptr<TapLeft<T>> own_left = nullptr;
    bool by_lists(Index product) const { return left != nullptr && left->lists(product) != nullptr; }
  };
  static Index even(Index rows) { return (rows + 1) / 2 * 2; }  // lists have them in pairs
  Index columns_of(Index panel) const { return std::min(width_, work_.columns - panel * width_); }
  T* packed(Index group, Index product, Index panel) const {
    return packed_.data() + ((group * products_ + product) * panels_ + panel) * walk_taps_ * tap_size_;
  }
  T* own_panel(const Task& task, Index product, Index panel) const {
    return task.panels.data() + (product * slab_ + panel) * kReductionBlock * width_;
  }
  T* sum(const Task& task, Index output, Index panel) const {
    return task.sums.data() + (output * slab_ + panel) * even(task.block.count()) * width_;
  }
  bool pack(Index group, Index product, Index panel, const Chunk& chunk, T* to) const;
  void pack_all(const Threads& threads);
  void share_lists(const Threads& threads);
  void choose(Task* task, Index panels) const;
  Index begin_of(Index block) const {  // no pair of samples is cut
    const Index begin = work_.rows() * block / work_.blocks();
    return work_.apart > 0 && block < work_.blocks() ? begin / 2 * 2 : begin;
  }
  void fetch_piece(const Task& task, Index first, Index last, const Chunk& chunk, Index piece, Index pieces) const;
  bool is_first(const Task& task, Index product, bool lists) const;
  void run_slab(Task* task, Index first, Index last) const;
  void run_lists(Task* task, Index product, Index first, Index last) const;
  void run_tile(Task* task, const Chunk& chunk, Index row, Index height, Index first, Index last) const;

  const kernels::Table<T>& kernel_ = kernels::table<T>();
  const TapWork<T>& work_;
  Index width_, panels_, walk_taps_, products_, tap_size_, slab_;
  bool in_tasks_;      // tasks pack their panels
  bool counts_zeros_;  // it may pay to look for them
  Buffer<T> packed_;   // else: all of them, (groups, products, panels, taps, channels, width)
  std::vector<Chunk> chunks_;
  std::vector<char> not_finite_;                     // of each of them
  std::vector<std::unique_ptr<TapLeft<T>>> shared_;  // of (blocks, groups), where several tasks take the same rows
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
      counts_zeros_(tap_zeros_count<T>(work.rows(), panels_, walk_taps_, work.channels) || has_signs(work)),
      chunks_(chunks_of(work.walk->taps.size(), work.channels)),
      zeros_(zeros<T>(kReductionBlock, &own_zeros_)) {
  const Index most = std::min(panels_, kSlabPanels);
  slab_ = in_tasks_ ? work.own_panels() : std::max<Index>(1, most / std::max<Index>(1, products_));
  if (!in_tasks_) {
    pack_all(threads);
  }
  if (counts_zeros_ && work.splits() > 1) {
    share_lists(threads);
  }
  if (!counts_zeros_) {
    const Index entries = work.rows() * walk_taps_ * work.channels * panels_ * width_ * work.groups * products_;
    count_left_work({static_cast<std::uint64_t>(entries), 0, 0});
  }
}

// Lists that several tasks read are made by all threads together, part by part.
template <class T>
void TapLoops<T>::share_lists(const Threads& threads) {
  shared_.resize(static_cast<std::size_t>(work_.blocks() * work_.groups));
  parallel_for(static_cast<Index>(shared_.size()), threads, [&](Index i) {
    const Block block(*work_.walk, begin_of(i / work_.groups), begin_of(i / work_.groups + 1), work_.pairs());
    shared_[static_cast<std::size_t>(i)] =
        std::make_unique<TapLeft<T>>(work_, block, i % work_.groups, panels_, threads.workspace);
  });
  std::vector<std::pair<TapLeft<T>*, Index>> all;
  for (const auto& left : shared_) {
    for (Index part = 0; part < left->parts(); ++part) {
      all.push_back({left.get(), part});
    }
  }
  parallel_for(static_cast<Index>(all.size()), threads, [&](Index i) {
    const auto& [left, part] = all[static_cast<std::size_t>(i)];
    left->make(part);
  });
  for (const auto& left : shared_) {
    left->count_work();
  }
}

// Returns whether a weight is not finite, where lists may read them.
template <class T>
bool TapLoops<T>::pack(Index group, Index product, Index panel, const Chunk& chunk, T* to) const {
  bool not_finite = false;
  for (std::size_t t = 0; t < chunk.taps; ++t) {
    const Index tap = work_.walk->taps[chunk.tap + t].kernel;
    const TapProduct<T>& of = work_.products[static_cast<std::size_t>(product)];
    const auto fill = [&](Index channel, Index channels, T* x) {
      const bool bad = work_.pack({group, tap, channel, channels, panel * width_, columns_of(panel)}, of.map, x);
      not_finite = not_finite || bad;
    };
    pack_words_or_numbers(work_.operands, of.order == nullptr ? nullptr : of.order + 2 * group * work_.channels,
                          chunk.channel, chunk.depth, work_.steps, width_, to, fill);
    if (counts_zeros_ && work_.operands.rounded()) {  // which a number may become by rounding
      not_finite = not_finite || has_not_finite(work_.operands, to, chunk.depth);
    }
    to += chunk.depth * width_;
  }
  return not_finite;
}

template <class T>
void TapLoops<T>::pack_all(const Threads& threads) {
  const Index count = work_.groups * products_ * panels_, size = count * walk_taps_ * tap_size_;
  packed_.reset(size, threads.workspace);
  not_finite_.resize(static_cast<std::size_t>(count));
  parallel_for(count, threads.alone_if(size < kMinWeightsToPackInParallel), [&](Index i) {
    const Index panel = i % panels_, product = i / panels_ % products_, group = i / panels_ / products_;
    T* const to = packed(group, product, panel);
    not_finite_[static_cast<std::size_t>(i)] =
        pack(group, product, panel, {0, work_.walk->taps.size(), 0, work_.channels}, to);
  });
}

template <class T>
void TapLoops<T>::run_task(Index number) const {
  const Index splits = work_.splits();
  const Index split = number % splits, at = number / splits / work_.groups;
  const Index begin = begin_of(at), end = begin_of(at + 1);
  Task task{number,
            number / splits % work_.groups,
            {*work_.walk, begin, end, work_.pairs()},
            Buffer<T>(work_.outputs * slab_ * even(end - begin) * width_),
            Buffer<T>(in_tasks_ ? products_ * slab_ * kReductionBlock * width_ : 0),
            Buffer<const T*>(kReductionBlock * kernel_.tile_rows)};
  const Index panel_begin = panels_ * split / splits, panel_end = panels_ * (split + 1) / splits;
  choose(&task, panel_end - panel_begin);
  for (Index first = panel_begin; first < panel_end; first += slab_) {
    const Index last = std::min(first + slab_, panel_end);
    run_slab(&task, first, last);
    for (Index p = first; p < last; ++p) {
      work_.done(number, task.block, task.group * work_.columns + p * width_, columns_of(p),
                 [&](Index output) { return sum(task, output, p - first); });
    }
  }
}

// Which of the images the task reads as lists.
template <class T>
void TapLoops<T>::choose(Task* task, Index panels) const {
  if (!shared_.empty()) {
    const Index block = task->number / work_.splits() / work_.groups;
    task->left = shared_[static_cast<std::size_t>(block * work_.groups + task->group)].get();
  } else if (counts_zeros_) {
    task->own_left = std::make_unique<TapLeft<T>>(work_, task->block, task->group, panels, nullptr);
    for (Index part = 0; part < task->own_left->parts(); ++part) {
      task->own_left->make(part);
    }
    task->own_left->count_work();
    task->left = task->own_left.get();
  }
}

// Whether a product is the first that goes into its output, of those by tiles or of those by lists, which come behind.
template <class T>
bool TapLoops<T>::is_first(const Task& task, Index product, bool lists) const {
  for (Index i = 0; i < products_; ++i) {
    const bool listed = task.by_lists(i);
    if (work_.products[static_cast<std::size_t>(i)].output ==
            work_.products[static_cast<std::size_t>(product)].output &&
        (listed == lists ? i < product : lists)) {
      return false;
    }
  }
  return true;
}

// The sums of panels [first, last).
template <class T>
void TapLoops<T>::run_slab(Task* task, Index first, Index last) const {
  const Index rows = task->block.count(), tiles = (rows + kernel_.tile_rows - 1) / kernel_.tile_rows;
  if (chunks_.empty() || products_ == 0) {
    std::fill_n(task->sums.data(), work_.outputs * slab_ * even(rows) * width_, T(0));
    return;
  }
  Index by_tiles = 0;
  for (Index i = 0; i < products_; ++i) {
    by_tiles += task->by_lists(i) ? 0 : 1;
  }
  for (std::size_t c = 0; by_tiles > 0 && c < chunks_.size(); ++c) {
    for (Index i = 0; in_tasks_ && i < products_; ++i) {
      for (Index p = first; p < last && !task->by_lists(i); ++p) {
        pack(task->group, i, p, chunks_[c], own_panel(*task, i, p - first));
      }
    }
    for (Index tile = 0; tile < tiles; ++tile) {
      const Index row = rows * tile / tiles;
      run_tile(task, chunks_[c], row, rows * (tile + 1) / tiles - row, first, last);
      if (c + 1 < chunks_.size()) {
        fetch_piece(*task, first, last, chunks_[c + 1], tile, tiles);
      }
    }
  }
  for (Index i = 0; i < products_; ++i) {
    if (task->by_lists(i)) {
      run_lists(task, i, first, last);
    }
  }
}

// What a product whose image is lists adds to the sums: taps and parts of the channels outermost, so that the weights
// that they read stay in the L1 cache for all rows.
template <class T>
void TapLoops<T>::run_lists(Task* task, Index product, Index first, Index last) const {
  const TapLists<T>& lists = *task->left->lists(product);
  const TapPixels& pixels = task->left->pixels(lists);
  const Index rows = task->block.count(), most = lists.steps();
  const Index output = work_.products[static_cast<std::size_t>(product)].output;
  const Index together = lists.panels();
  const Index groups = (last - first + together - 1) / together;
  const Index pieces = in_tasks_ ? std::min(kFetchPieces, std::max<Index>(pixels.rows(), 1)) : 1;
  const Buffer<std::uint16_t> signs(lists.by_sign() ? 2 * together * most : 0);
  for (Index group = 0; group < groups; ++group) {  // of nearly equal size
    const Index begin = first + (last - first) * group / groups;
    const Index count = first + (last - first) * (group + 1) / groups - begin;
    bool add = !is_first(*task, product, true);
    const T* panels[kernels::kListPanels];
    T* sums[kernels::kListPanels];
    for (Index p = 0; p < count; ++p) {
      sums[p] = sum(*task, output, begin + p - first);
    }
    for (std::size_t tap = 0; tap < work_.walk->taps.size(); ++tap) {
      for (Index from = 0; from < work_.channels; from += most) {
        const Chunk chunk{tap, 1, from, std::min(most, work_.channels - from)};
        bool finite = true;
        for (Index p = 0; p < count; ++p) {
          panels[p] = packed(task->group, product, begin + p) + static_cast<Index>(tap) * tap_size_ + from * width_;
          if (in_tasks_) {
            T* const own = own_panel(*task, product, begin + p - first);
            finite = !pack(task->group, product, begin + p, chunk, own) && finite;
            panels[p] = own;
          }
        }
        if (lists.by_sign()) {
          read_signs(chunk.depth, count, panels, signs.data());
        }
        Chunk next{tap, 1, from + most, 0};
        if (next.channel >= work_.channels) {
          next = {tap + 1, 1, 0, 0};
        }
        next.depth = std::min(most, work_.channels - next.channel);
        for (Index piece = 0; piece < pieces; ++piece) {
          lists.multiply(from / most, pixels.rows() * piece / pieces, pixels.rows() * (piece + 1) / pieces,
                         pixels.numbers(tap), count, panels, signs.data(), add, sums);
          fetch_piece(*task, begin, begin + count, next, piece, pieces);
        }
        add = true;
        for (Index p = 0; !finite && p < count; ++p) {
          add_not_finite(work_.operands, panels[p], chunk.depth, rows, sums[p], width_);
        }
      }
    }
    for (Index p = 0; !in_tasks_ && p < count; ++p) {
      const Index number = (task->group * products_ + product) * panels_ + begin + p;
      if (not_finite_[static_cast<std::size_t>(number)] != 0) {
        add_not_finite(work_.operands, packed(task->group, product, begin + p), walk_taps_ * work_.channels, rows,
                       sums[p], width_);
      }
    }
  }
}

// Where tasks pack their panels: a piece of the weights that they will pack next is fetched, while they multiply.
template <class T>
void TapLoops<T>::fetch_piece(const Task& task, Index first, Index last, const Chunk& chunk, Index piece,
                              Index pieces) const {
  if (!in_tasks_ || !work_.weights || chunk.tap >= work_.walk->taps.size()) {
    return;
  }
  const Index column = first * width_, channel = work_.operands.step(chunk.channel);
  const Index channels = work_.operands.steps(chunk.channel, chunk.depth, work_.steps);
  for (std::size_t t = 0; t < chunk.taps; ++t) {
    const Matrix<const T> from = work_.weights({task.group, work_.walk->taps[chunk.tap + t].kernel, channel, channels,
                                                column, std::min(last * width_, work_.columns) - column});
    fetch(from, from.rows * piece / pieces, from.rows * (piece + 1) / pieces);
  }
}

// What a block of the reduction adds to the sums of some rows.
template <class T>
void TapLoops<T>::run_tile(Task* task, const Chunk& chunk, Index row, Index height, Index first, Index last) const {
  const T* image = nullptr;
  for (Index i = 0; i < products_; ++i) {
    const TapProduct<T>& product = work_.products[static_cast<std::size_t>(i)];
    if (task->by_lists(i)) {
      continue;
    }
    if (image != product.image.data) {
      image = product.image.data;
      Image<T> from = product.image;
      from.data += (from.pixel_stride == 0 ? 0 : task->group * work_.channels) + chunk.channel;
      task->block.sources(from, row, height, chunk.tap, chunk.taps, zeros_, task->sources.data());
    }
    const bool add = &chunk != &chunks_.front() || !is_first(*task, i, false);
    for (Index p = first; p < last; ++p) {
      const T* const panel =
          in_tasks_ ? own_panel(*task, i, p - first)
                    : packed(task->group, i, p) + static_cast<Index>(chunk.tap) * tap_size_ + chunk.channel * width_;
      work_.operands.tile_taps({.rows = static_cast<int>(height),
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

template void multiply_taps<float>(const TapWork<float>&, const Threads&);
template void multiply_taps<double>(const TapWork<double>&, const Threads&);

}  // namespace pylrp
