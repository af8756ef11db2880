// Memory from the system, in pages: addresses first, memory behind them when it is touched, and back without the
// addresses. Where the system is asked for whole blocks alone, a block is there from its first day to its last.
#pragma once

#include <cstddef>

namespace pylrp {

inline constexpr std::size_t kPage = std::size_t{4} << 10;  // what blocks of an arena are multiples of
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

inline std::size_t rounded_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Blocks of their own, for one owner each. Throws std::bad_alloc.
void* block_from_system(std::size_t bytes);
void block_to_system(void* block, std::size_t bytes) noexcept;

// A range of addresses.
class Pages {
 public:
  // At least `least` bytes; more, up to kMostAddresses, where addresses cost nothing and `more` is true.
  Pages(std::size_t least, bool more);
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  // Can memory come and go while the addresses stay? If not, all of it is there.
  static bool in_parts();
  // The first so many bytes may be used. Throws std::bad_alloc.
  void open(std::size_t bytes);
  // Brings the first so many bytes, with what they hold, into huge pages.
  void settle(std::size_t bytes) noexcept;
  // Gives memory back: what is there is lost, and zeros come when it is touched again.
  void drop(std::size_t at, std::size_t bytes) noexcept;
  // Gives the addresses behind this back.
  void cut(std::size_t bytes) noexcept;

 private:
  char* data_ = nullptr;
  std::size_t bytes_ = 0, open_ = 0, advised_ = 0, settled_ = 0;
};

}  // namespace pylrp
