// How the operands of a product are packed: as they are; or, where bfloat16 was asked for, rounded to it. A processor
// with an instruction for bfloat16 gets two steps of the reduction side by side as a word in the place of one
// (kernels/bfloat16_tiles.inl); the loops are the same, over half as many places. For others they stay numbers, one in
// a place, whose products are exact: the same sums, with the usual kernels and in their time.
#pragma once

#include <algorithm>
#include <type_traits>

#include "base/buffer.hpp"
#include "base/view.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/quads.hpp"
#include "products/blocking.hpp"

namespace pylrp {

enum class Bfloat16Path : int { kBest, kWords, kEmulatedWords, kNumbers };
// For tests and measurements: from now on, in the whole process; kBest is the default.
void force_bfloat16_path(Bfloat16Path path);
// Whether operands in bfloat16 are words.
bool bfloat16_in_words();

template <class T>
class Operands {
 public:
  // bfloat16: float only; double is computed as it is.
  explicit Operands(bool bfloat16 = false)
      : rounded_(bfloat16 && std::is_same_v<T, float>), words_(rounded_ && bfloat16_in_words()) {}
  bool rounded() const { return rounded_; }
  bool words() const { return words_; }

  // Places of so many steps; the first step of a place; the steps of some places, where there are `all`.
  Index places(Index steps) const { return words_ ? (steps + 1) / 2 : steps; }
  Index step(Index place) const { return words_ ? 2 * place : place; }
  Index steps(Index first, Index places, Index all) const { return std::min(step(places), all - step(first)); }

  // to(places, columns): fill(x) writes (steps, columns) as numbers, and up to kSpare entries behind them.
  template <class Fill>
  void pack(Index steps, Index columns, T* to, Fill fill) const {
    if constexpr (std::is_same_v<T, float>) {
      if (words_) {
        const Buffer<T> numbers(steps * columns + kernels::kSpare);
        fill(numbers.data());
        kernels::bfloat16_table().join_rows(places(steps), columns, steps, numbers.data(), nullptr, to);
        return;
      }
      fill(to);
      if (rounded_) {
        kernels::bfloat16_table().round(steps * columns, to, to);
      }
    } else {
      fill(to);
    }
  }
  // Words of which each has two steps of its own: to(places, columns) from order(2 * places); a step from `steps` on
  // is zero.
  template <class Fill>
  void pack_in_order(Index steps, Index columns, Index places, const std::int32_t* order, T* to, Fill fill) const {
    if constexpr (std::is_same_v<T, float>) {
      const Buffer<T> numbers(steps * columns + kernels::kSpare);
      fill(numbers.data());
      kernels::bfloat16_table().join_rows(places, columns, steps, numbers.data(), order, to);
    }
  }
  // Rounds the neighbouring steps of one row: to(places).
  void round_row(Index steps, const T* x, T* to) const {
    if constexpr (std::is_same_v<T, float>) {
      const kernels::Bfloat16Table& kernel = kernels::bfloat16_table();
      (words_ ? kernel.join : kernel.round)(steps, x, to);
    }
  }

  // The kernels' tiles, with places in place of steps; panels of words are packed.
  void tile(int rows, Index places, const T* left, const T* panel, Index step, bool add, T* out) const {
    if constexpr (std::is_same_v<T, float>) {
      if (words_) {
        return kernels::bfloat16_table().tile(rows, places, left, panel, add, out);
      }
    }
    kernels::table<T>().tile(rows, places, left, panel, step, add, out);
  }
  void tile_taps(const kernels::TileTaps<T>& args) const {
    if constexpr (std::is_same_v<T, float>) {
      if (words_) {
        return kernels::bfloat16_table().tile_taps(args);
      }
    }
    kernels::table<T>().tile_taps(args);
  }

  // Lists of what is not zero (lists.hpp), of one row, two or (quads.hpp) four.
  Index compress(int rows, Index places, const T* const* x, T* values, std::uint16_t* steps) const {
    if constexpr (std::is_same_v<T, float>) {
      if (words_) {
        return kernels::bfloat16_table().compress(rows, places, x, values, steps);
      }
      if (rows == 4) {
        return kernels::quads()->compress(places, x, values, steps);
      }
    }
    return rows == 2 ? kernels::table<T>().compress_pair(places, x[0], x[1], values, steps)
                     : kernels::table<T>().compress(places, x[0], 0, 0, values, steps);
  }
  void list_rows(const kernels::ListRows<T>& args) const {
    if constexpr (std::is_same_v<T, float>) {
      if (words_) {
        return kernels::bfloat16_table().list_rows(args);
      }
    }
    kernels::table<T>().list_rows(args);
  }
  void list_pairs(const kernels::Lists<T>& args) const {
    if constexpr (std::is_same_v<T, float>) {
      if (words_) {
        return kernels::bfloat16_table().list_pairs(args);
      }
    }
    kernels::table<T>().list_pairs(args);
  }
  void list_quads(const kernels::ListQuads& args) const {
    words_ ? kernels::bfloat16_table().list_quads(args) : kernels::quads()->list_quads(args);
  }
  // to(tile_cols): 0 times what a packed panel has in each column: NaN where that is not finite. Lists never read the
  // weights that meet zeros.
  void spoilt(const T* panel, Index places, T* to) const;

 private:
  bool rounded_, words_;
};

}  // namespace pylrp
