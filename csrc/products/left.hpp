// The left operand of a dense product (matrix_product.hpp), packed block by block as tiles or as lists (lists.hpp).
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "products/blocking.hpp"
#include "products/lists.hpp"
#include "products/operands.hpp"

namespace pylrp {

// The rows of the left operand in tiles of nearly equal height.
struct Tiles {
  Index rows, count;
  Tiles(Index rows_, int most) : rows(rows_), count((rows_ + most - 1) / most) {}
  Index begin(Index t) const { return rows * t / count; }
};

// Left operands, packed by all threads together: for each operand, block of the reduction and band of rows either
// tiles, (tiles, depth, rows of the tile), or lists of what is not zero, (parts of the block, rows), whichever is
// faster.
template <class T>
class Left {
 public:
  // panels: how many each operand's entries meet. reduction: in places of the operands; words are tiles.
  Left(const Tiles& tiles, int tile_rows, std::vector<Index> panels, Index reduction, const Operands<T>& operands)
      : tiles_(tiles),
        reduction_(reduction),
        blocks_((reduction + kReductionBlock - 1) / kReductionBlock),
        band_tiles_(std::max<Index>(1, kBandRows / tile_rows)),
        bands_((tiles.count + band_tiles_ - 1) / band_tiles_),
        panels_(std::move(panels)),
        by_lists_(!operands.words()),
        regions_(panels_.size() * static_cast<std::size_t>(blocks_ * bands_)) {}

  // Where lists are worth it, by a sample of the rows: comes first.
  // pieces(operand, row, first, depth, body): calls body(at, count, x, part) for their pieces, `at` columns on.
  template <class Pieces>
  void choose(const Threads& threads, Pieces pieces) {
    const Index steps = std::min({reduction_, kReductionBlock, group_steps<T>()});
    const auto counts = [&](Index panels) {
      return zeros_count<T>(std::min(tiles_.rows, kBandRows), panels, 1, steps, true);
    };
    if (!by_lists_ || std::none_of(panels_.begin(), panels_.end(), counts)) {
      return;
    }
    parallel_for(static_cast<Index>(regions_.size()), threads, [&](Index i) {
      const Place at = place_of(i);
      const Index panels = panels_[static_cast<std::size_t>(at.operand)];
      const Index apart = rows_from_count_to_count(at.rows);
      Index entries = 0, kept = 0;
      for (Index row = at.row + apart / 2; row < at.row + at.rows; row += apart) {
        pieces(at.operand, row, at.first, at.depth,
               [&](Index, Index count, const T* x, int part) { kept += kernels::table<T>().nonzeros(count, x, part); });
        entries += at.depth;
      }
      const double share = static_cast<double>(kept) / static_cast<double>(std::max<Index>(entries, 1));
      regions_[static_cast<std::size_t>(i)].lists =
          lists_forced() || lists_win<T>(share, at.rows, panels, 1, steps, true);
    });
  }
  // fill(operand, row, rows, first, depth, to): packs columns [first, first + depth) of some rows as a tile.
  template <class Fill, class Pieces>
  void pack(const Threads& threads, Fill fill, Pieces pieces) {
    place();
    parallel_for(static_cast<Index>(regions_.size()), threads, [&](Index i) {
      const Place at = place_of(i);
      if (regions_[static_cast<std::size_t>(i)].lists) {
        write_lists(at, pieces);
        return;
      }
      for (Index t = at.band * band_tiles_; t < band_end(at.band * band_tiles_); ++t) {
        const Index row = tiles_.begin(t);  // in order: a tile's packing writes a little beyond its end
        fill(at.operand, row, tiles_.begin(t + 1) - row, at.first, at.depth, this->at(at.operand, at.first, t));
      }
      count_left_work({products_of(at, at.rows * at.depth), 0, 0});
    });
  }
  // The tile behind the last one of t's band.
  Index band_end(Index t) const { return std::min((t / band_tiles_ + 1) * band_tiles_, tiles_.count); }
  bool has_lists(Index operand, Index first, Index t) const { return region(operand, first, t).lists; }
  // Anywhere; known once they are chosen.
  bool has_lists() const {
    return std::any_of(regions_.begin(), regions_.end(), [](const Region& r) { return r.lists; });
  }
  // In any band.
  bool has_lists(Index operand, Index first) const {
    const Region* const all = &region(operand, first, 0);
    return std::any_of(all, all + bands_, [](const Region& r) { return r.lists; });
  }
  T* at(Index operand, Index first, Index t) const {
    const Index depth = std::min(kReductionBlock, reduction_ - first);
    return memory_.data() + region(operand, first, t).begin + (tiles_.begin(t) - band_row(t)) * depth;
  }
  // The lists of the rows from t on, of the block's part that begins at step `from`.
  Lists<T> lists(Index operand, Index first, Index t, Index from) const {
    const Index rows = tiles_.begin(band_end(t)) - band_row(t);
    Lists<T> lists = lists_at(region(operand, first, t), rows, std::min(kReductionBlock, reduction_ - first));
    lists.begins += from / group_steps<T>() * rows + tiles_.begin(t) - band_row(t);
    return lists;
  }

 private:
  struct Region {
    bool lists = false;
    Index begin = 0;
  };
  struct Place {
    Index operand, first, depth, band, row, rows;
  };
  Index band_row(Index t) const { return tiles_.begin(t / band_tiles_ * band_tiles_); }
  Place place_of(Index i) const {
    const Index band = i % bands_, block = i / bands_ % blocks_, row = tiles_.begin(band * band_tiles_);
    const Index first = block * kReductionBlock;
    return {i / bands_ / blocks_,
            first,
            std::min(kReductionBlock, reduction_ - first),
            band,
            row,
            tiles_.begin(band_end(band * band_tiles_)) - row};
  }
  const Region& region(Index operand, Index first, Index t) const {
    return regions_[static_cast<std::size_t>((operand * blocks_ + first / kReductionBlock) * bands_ + t / band_tiles_)];
  }
  // Where lists begin, then values, then steps: as many as there may be.
  Lists<T> lists_at(const Region& region, Index rows, Index depth) const {
    T* const values = memory_.data() + region.begin + places_of_begins(rows, depth);
    return {values, reinterpret_cast<std::uint16_t*>(values + entries_of_lists(rows, depth)),
            reinterpret_cast<Index*>(memory_.data() + region.begin)};
  }
  static Index in_lines(Index size) { return (size + kernels::kSpare - 1) / kernels::kSpare * kernels::kSpare; }
  static Index places_of_begins(Index rows, Index depth) {
    return in_lines((list_parts(depth, group_steps<T>()) * rows + 1) * Index{sizeof(Index) / sizeof(T)});
  }
  static Index entries_of_lists(Index rows, Index depth) {
    const Index zeros = (kernels::kListMultiple - 1) * list_parts(depth, group_steps<T>());
    return in_lines(rows * (depth + zeros) + kernels::kSpare);
  }
  static Index size_of(const Place& at, bool lists) {
    if (!lists) {
      return in_lines(at.rows * at.depth + kernels::kSpare);
    }
    const Index entries = entries_of_lists(at.rows, at.depth);
    return places_of_begins(at.rows, at.depth) + entries + entries * Index{sizeof(std::uint16_t)} / Index{sizeof(T)};
  }

  // Multiply-adds that entries of a region take part in.
  std::uint64_t products_of(const Place& at, Index entries) const {
    return static_cast<std::uint64_t>(entries * panels_[static_cast<std::size_t>(at.operand)] *
                                      kernels::table<T>().tile_cols);
  }

  // One after the other in memory; each a little longer, for what packing writes beyond the end.
  void place() {
    Index size = 0;
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      regions_[i].begin = size;
      size += size_of(place_of(static_cast<Index>(i)), regions_[i].lists);
    }
    memory_.reset(size);
  }
  template <class Pieces>
  void write_lists(const Place& at, Pieces pieces) const {
    const Index t = at.band * band_tiles_, most = group_steps<T>();
    const Lists<T> lists = lists_at(region(at.operand, at.first, t), at.rows, at.depth);
    Index kept = 0, end = 0;
    for (Index part = 0, from = 0; from < at.depth; ++part, from += most) {
      for (Index i = 0; i < at.rows; ++i) {
        lists.begins[part * at.rows + i] = end;
        pieces(at.operand, at.row + i, at.first + from, std::min(most, at.depth - from),
               [&](Index first_step, Index steps, const T* x, int sign) {
                 end += kernels::table<T>().compress(steps, x, sign, first_step, lists.values + end, lists.steps + end);
               });
        kept += end - lists.begins[part * at.rows + i];
        for (; (end - lists.begins[part * at.rows + i]) % kernels::kListMultiple != 0; ++end) {
          lists.values[end] = 0;
          lists.steps[end] = lists.steps[end - 1];
        }
      }
    }
    lists.begins[list_parts(at.depth, most) * at.rows] = end;
    count_left_work({0, products_of(at, at.rows * at.depth), products_of(at, kept)});
  }

  Tiles tiles_;
  Index reduction_, blocks_, band_tiles_, bands_;
  std::vector<Index> panels_;
  bool by_lists_;  // it may be
  std::vector<Region> regions_;
  Buffer<T> memory_;
};

}  // namespace pylrp
