// Matrices that notice trespassing: NaN before, between and behind the rows, in memory that starts one element off any
// alignment. A kernel that reads the fence gets NaN into its result; one that writes it is seen by intact(); under
// AddressSanitizer both stop on the spot.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "base/view.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define PYLRP_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PYLRP_ASAN 1
#endif
#endif
#ifdef PYLRP_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace pylrp {

template <class T>
class Fenced {
 public:
  // extra: how much longer than a row the leading dimension is.
  explicit Fenced(Index rows, Index cols, Index extra = 3)
      : rows_(rows),
        cols_(cols),
        stride_(cols + extra),
        memory_(static_cast<std::size_t>(kOffset + rows * stride_ + kGuard), poison()) {
    protect(true);
  }
  ~Fenced() { protect(false); }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;

  T* data() { return memory_.data() + kOffset; }
  T* row(Index i) { return data() + i * stride_; }
  T& at(Index i, Index j) { return row(i)[j]; }
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index stride() const { return stride_; }
  Matrix<T> view() { return {data(), rows_, cols_, stride_}; }
  Matrix<const T> read() { return {data(), rows_, cols_, stride_}; }

  template <class F>
  Fenced& fill(F value) {
    for (Index i = 0; i < rows_; ++i) {
      for (Index j = 0; j < cols_; ++j) {
        at(i, j) = static_cast<T>(value());
      }
    }
    return *this;
  }
  std::vector<T> entries() {
    std::vector<T> all;
    for (Index i = 0; i < rows_; ++i) {
      all.insert(all.end(), row(i), row(i) + cols_);
    }
    return all;
  }
  // As new: what was computed is forgotten.
  void reset() { fill(poison); }

  // Whether nothing but the entries was written.
  bool intact() {
    protect(false);
    const T clean = poison();
    bool same = true;
    for (Index n = 0; n < static_cast<Index>(memory_.size()); ++n) {
      const Index at = n - kOffset;
      const bool entry = at >= 0 && at < rows_ * stride_ && at % stride_ < cols_;
      same = same && (entry || std::memcmp(&memory_[static_cast<std::size_t>(n)], &clean, sizeof(T)) == 0);
    }
    protect(true);
    return same;
  }

 private:
  static constexpr Index kGuard = 64, kOffset = kGuard + 1;
  // A NaN that no arithmetic makes.
  static T poison() {
    using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    const Bits bits = sizeof(T) == 4 ? static_cast<Bits>(0x7fedbeefu) : static_cast<Bits>(0x7ff8dead12345678u);
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  void protect([[maybe_unused]] bool on) {
#ifdef PYLRP_ASAN
    const auto mark = [&](T* from, T* to) {
      const auto bytes = static_cast<std::size_t>(to - from) * sizeof(T);
      on ? __asan_poison_memory_region(from, bytes) : __asan_unpoison_memory_region(from, bytes);
    };
    T* const end = memory_.data() + memory_.size();
    mark(memory_.data(), data());
    for (Index i = 0; i < rows_; ++i) {
      mark(row(i) + cols_, i + 1 < rows_ ? row(i + 1) : end);
    }
#endif
  }

  Index rows_, cols_, stride_;
  std::vector<T> memory_;
};

// The same numbers in every run and on every machine.
class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  // Uniform in [low, high).
  double operator()(double low = -1, double high = 1) {
    return low + (high - low) * static_cast<double>(engine_() >> 11) * 0x1p-53;
  }
  Index up_to(Index least, Index most) {
    return least + static_cast<Index>((*this)(0, static_cast<double>(most - least + 1)));
  }
  bool chance(double probability) { return (*this)(0, 1) < probability; }

 private:
  std::mt19937_64 engine_;
};

// Sizes around a tile, and two primes.
inline std::vector<Index> around(Index tile) {
  std::vector<Index> sizes{1, tile, tile + 1, 3 * tile, 37, 53};
  if (tile > 2) {
    sizes.push_back(tile - 1);
  }
  return sizes;
}
// Sizes around the block of a reduction (256).
inline std::vector<Index> depths(Index tile) {
  std::vector<Index> sizes = around(tile);
  sizes.insert(sizes.end(), {255, 256, 257, 511, 513});
  return sizes;
}

}  // namespace pylrp
