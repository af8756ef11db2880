// The loops: weights are packed once for everybody; a task takes a block of rows and a group of panels. For each slab
// of panels and each block of the reduction (some taps, or some channels of one) it runs all tiles of rows: the slab's
// weights stay in the L2 cache, a tile's pixels in the L1. With few rows a task packs its panel itself, a block of the
// reduction at a time. The order of a sum does not depend on who computes it.
#include "products/taps.hpp"

#include "kernels/dispatch.hpp"

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
  for (const Walk::Tap& tap : walk.taps) {
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
  const Index parts = std::max<Index>(1, panels() * groups);
  const Index blocks = std::max({Index{1}, (kMinOwnTasks + parts - 1) / parts, (rows() + kOwnRows - 1) / kOwnRows});
  return blocks <= kMaxPacks && (blocks == 1 || rows() / blocks >= kMinRowsOfPack) ? blocks : 0;
}

template <class T>
Index TapWork<T>::splits() const {
  if (packs_alone()) {
    return panels();
  }
  const Index have = std::max<Index>(1, blocks() * groups);
  return std::clamp<Index>((kMinConvTasks + have - 1) / have, 1, panels());
}

template <class T>
void multiply_taps(const TapWork<T>& work, const Threads& threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  const Walk& walk = *work.walk;
  const Index width = kernel.tile_cols, panels = work.panels(), taps = static_cast<Index>(walk.taps.size());
  const Index count = static_cast<Index>(work.products.size());
  const Index tap_size = work.channels * width, panel_size = taps * tap_size;
  const auto columns_of = [&](Index panel) { return std::min(width, work.columns - panel * width); };
  const auto pack = [&](Index group, Index product, Index panel, const Chunk& chunk, T* to) {
    for (std::size_t t = 0; t < chunk.taps; ++t) {
      const Index tap = walk.taps[chunk.tap + t].kernel;
      work.pack({group, tap, chunk.channel, chunk.depth, panel * width, columns_of(panel)},
                work.products[static_cast<std::size_t>(product)].map, to);
      to += chunk.depth * width;
    }
  };
  const bool alone = work.packs_alone();
  const Buffer<T> weights(alone ? 0 : work.groups * count * panels * panel_size, threads.workspace);
  const auto panel_at = [&](Index group, Index product, Index panel) {
    return weights.data() + ((group * count + product) * panels + panel) * panel_size;
  };
  if (!alone) {
    const bool small = work.groups * count * panels * panel_size < kMinWeightsToPackInParallel;
    parallel_for(work.groups * count * panels, threads.alone_if(small), [&](Index i) {
      const Index panel = i % panels, product = i / panels % count, group = i / panels / count;
      pack(group, product, panel, {0, walk.taps.size(), 0, work.channels}, panel_at(group, product, panel));
    });
  }

  const std::vector<Chunk> chunks = chunks_of(walk.taps.size(), work.channels);
  Buffer<T> own;
  const T* const nothing = zeros<T>(kReductionBlock, &own);
  const Index splits = work.splits(), blocks = work.blocks();
  const Index most = std::min(panels, kSlabPanels);
  const Index slab = alone ? 1 : std::max<Index>(1, most / std::max<Index>(1, count));
  parallel_for(work.tasks(), threads, [&](Index task) {
    const Index split = task % splits, group = task / splits % work.groups, at = task / splits / work.groups;
    const Index begin = work.rows() * at / blocks, end = work.rows() * (at + 1) / blocks, rows = end - begin;
    const Block block(walk, begin, end);
    const Index panel_begin = panels * split / splits, panel_end = panels * (split + 1) / splits;
    const Index sum_size = rows * width;
    const Buffer<T> sums(work.outputs * slab * sum_size), piece(alone ? count * kReductionBlock * width : 0);
    const auto sum_at = [&](Index output, Index panel) { return sums.data() + (output * slab + panel) * sum_size; };
    std::vector<const T*> pointers(static_cast<std::size_t>(kReductionBlock * kernel.tile_rows));
    const Index tiles = (rows + kernel.tile_rows - 1) / kernel.tile_rows;
    for (Index first = panel_begin; first < panel_end; first += slab) {
      const Index last = std::min(first + slab, panel_end);
      if (chunks.empty() || count == 0) {
        std::fill_n(sums.data(), work.outputs * slab * sum_size, T(0));
      }
      for (const Chunk& chunk : chunks) {
        for (Index i = 0; alone && i < count; ++i) {
          pack(group, i, first, chunk, piece.data() + i * kReductionBlock * width);
        }
        for (Index tile = 0; tile < tiles; ++tile) {
          const Index row = rows * tile / tiles, height = rows * (tile + 1) / tiles - row;
          const T* image = nullptr;
          for (Index i = 0; i < count; ++i) {
            const TapProduct<T>& product = work.products[static_cast<std::size_t>(i)];
            if (image != product.image.data) {
              image = product.image.data;
              Image<T> from = product.image;
              from.data += (from.pixel_stride == 0 ? 0 : group * work.channels) + chunk.channel;
              block.sources(from, row, height, chunk.tap, chunk.taps, nothing, pointers.data());
            }
            const bool add = &chunk != &chunks.front() ||
                             (i > 0 && work.products[static_cast<std::size_t>(i - 1)].output == product.output);
            for (Index p = first; p < last; ++p) {
              const T* const panel =
                  alone ? piece.data() + i * kReductionBlock * width
                        : panel_at(group, i, p) + static_cast<Index>(chunk.tap) * tap_size + chunk.channel * width;
              kernel.tile_taps(static_cast<int>(height), 2 * columns_of(p) <= width ? 1 : 2,
                               static_cast<int>(chunk.taps), chunk.depth, pointers.data(), panel, add,
                               sum_at(product.output, p - first) + row * width, width);
            }
          }
        }
      }
      for (Index p = first; p < last; ++p) {
        work.done(task, block, group * work.columns + p * width, columns_of(p),
                  [&](Index output) { return sum_at(output, p - first); });
      }
    }
  });
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
