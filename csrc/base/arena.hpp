// Blocks out of one range of addresses: a block that is given back joins the free memory beside it, so that what a
// call has taken serves another that wants other sizes.
#pragma once

#include <cstdint>
#include <vector>

#include "base/pages.hpp"

namespace pylrp {

// Without a lock: workspace.cpp has it. Sizes are multiples of kPage.
class Arena {
 public:
  Arena(std::size_t least, bool more);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // null: there is no room. `fresh`: how much memory has come from the system for it.
  void* take(std::size_t bytes, std::size_t* fresh);
  bool has(const void* block) const;
  void give(void* block) noexcept;  // it has it
  // Gives memory that is free back to the system, `bytes` and up to a huge page more, if there is as much. The largest
  // piece goes first. Returns how much.
  std::size_t drop(std::size_t bytes) noexcept;
  // Blocks are to lie below this, where that is possible. Nothing is in use. What lies above is given back; returns how
  // much.
  std::size_t set_top(std::size_t top) noexcept;
  // Has what lies below the top in huge pages from now on.
  void settle() noexcept { pages_.settle(top_); }
  // Where the highest block since the last call of it has ended.
  std::size_t reached();
  std::size_t bytes() const { return pages_.bytes(); }
  bool empty() const { return used_ == 0; }

 private:
  enum class Kind : std::uint8_t { kUsed, kFree, kFresh };  // fresh: free, and no memory is there
  struct Range {
    std::size_t at, bytes;
    Kind kind;
    bool high;             // it was put at the upper end of a hole
    std::uint64_t number;  // the youngest has the highest
  };
  struct Place {
    std::size_t at;
    bool found, high;
  };
  Place place_for(std::size_t bytes) const;
  bool youngest_is_low() const;
  std::size_t index_at(std::size_t at) const;  // of the range that holds it
  void split(std::size_t at);
  void join(std::size_t index);  // with its neighbours of the same kind
  std::size_t drop(std::size_t index, std::size_t bytes) noexcept;

  Pages pages_;
  std::vector<Range> ranges_;  // all of the addresses, in order
  std::size_t top_ = 0, reached_ = 0, highest_ = 0, used_ = 0;
  std::uint64_t taken_ = 0;
};

}  // namespace pylrp
