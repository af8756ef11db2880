#include "base/arena.hpp"

#include <algorithm>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define PYLRP_FORBID(data, bytes) ASAN_POISON_MEMORY_REGION(data, bytes)
#define PYLRP_ALLOW(data, bytes) ASAN_UNPOISON_MEMORY_REGION(data, bytes)
#else
#define PYLRP_FORBID(data, bytes)
#define PYLRP_ALLOW(data, bytes)
#endif

namespace pylrp {
namespace {

constexpr std::size_t kSpareRanges = 16;
// What an arena keeps of its addresses once it is known how much a call takes, at least: larger calls may come.
constexpr std::size_t kAddresses = sizeof(void*) > 4 ? std::size_t{1} << 30 : 0;

}  // namespace

Arena::Arena(std::size_t least, bool more) : pages_(least, more) {
  const bool in_parts = Pages::in_parts();
  ranges_.push_back({0, pages_.bytes(), in_parts ? Kind::kFresh : Kind::kFree, false, 0});
  top_ = in_parts ? 0 : pages_.bytes();
}

// Other owners of these addresses find them allowed.
Arena::~Arena() { PYLRP_ALLOW(pages_.data(), std::min(highest_, pages_.bytes())); }

void* Arena::take(std::size_t bytes, std::size_t* fresh) {
  *fresh = 0;
  const Place place = place_for(bytes);
  if (!place.found) {
    return nullptr;
  }
  const std::size_t end = place.at + bytes;
  pages_.open(end);
  if (ranges_.capacity() - ranges_.size() < kSpareRanges) {  // nothing else of the class allocates
    ranges_.reserve(2 * ranges_.size() + 2 * kSpareRanges);
  }
  split(place.at);
  split(end);
  const std::size_t first = index_at(place.at);
  std::size_t last = first;
  for (; last < ranges_.size() && ranges_[last].at < end; ++last) {
    *fresh += ranges_[last].kind == Kind::kFresh ? ranges_[last].bytes : 0;
  }
  ranges_[first] = {place.at, bytes, Kind::kUsed, place.high, ++taken_};
  const auto begin = ranges_.begin();
  ranges_.erase(begin + static_cast<std::ptrdiff_t>(first) + 1, begin + static_cast<std::ptrdiff_t>(last));
  reached_ = std::max(reached_, end);
  highest_ = std::max(highest_, end);
  used_ += bytes;
  PYLRP_ALLOW(pages_.data() + place.at, bytes);
  return pages_.data() + place.at;
}

// The smallest hole below the top that is large enough, and in it the end away from the youngest block. A layer's
// output lies far from its input, which is freed next, so the free memory stays in one piece; what a forward pass keeps
// grows from both ends and goes back in the opposite order. Before the first call has shown how much it takes, and
// where no hole below the top will do, the lower end of the smallest hole: the last one counts as the largest.
Arena::Place Arena::place_for(std::size_t bytes) const {
  Place place{0, false, false};
  std::size_t smallest = 0, above_at = 0, above_smallest = 0;
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    if (ranges_[i].kind == Kind::kUsed) {
      continue;
    }
    const std::size_t at = ranges_[i].at;
    while (i + 1 < ranges_.size() && ranges_[i + 1].kind != Kind::kUsed) {
      ++i;
    }
    const std::size_t end = ranges_[i].at + ranges_[i].bytes, below = std::max(at, std::min(end, top_)) - at;
    if (below >= bytes && (!place.found || below < smallest)) {
      place = {at, true, false};
      smallest = below;
    }
    if (end - at >= bytes && (above_smallest == 0 || (end - at < above_smallest && end < pages_.bytes()))) {
      above_at = at;
      above_smallest = end - at;
    }
  }
  if (place.found && youngest_is_low()) {
    return {place.at + smallest - bytes, true, true};
  }
  return place.found ? place : Place{above_at, above_smallest > 0, false};
}

bool Arena::youngest_is_low() const {
  const Range* youngest = nullptr;
  for (const Range& range : ranges_) {
    if (range.kind == Kind::kUsed && (youngest == nullptr || range.number > youngest->number)) {
      youngest = &range;
    }
  }
  return youngest != nullptr && !youngest->high;
}

std::size_t Arena::index_at(std::size_t at) const {
  const auto behind = std::upper_bound(ranges_.begin(), ranges_.end(), at,
                                       [](std::size_t place, const Range& range) { return place < range.at; });
  return static_cast<std::size_t>(behind - ranges_.begin()) - 1;
}

void Arena::split(std::size_t at) {
  const std::size_t index = at < pages_.bytes() ? index_at(at) : 0;
  if (at >= pages_.bytes() || ranges_[index].at == at) {
    return;
  }
  Range rest = ranges_[index];
  rest.bytes -= at - rest.at;
  rest.at = at;
  ranges_[index].bytes -= rest.bytes;
  ranges_.insert(ranges_.begin() + static_cast<std::ptrdiff_t>(index) + 1, rest);
}

void Arena::join(std::size_t index) {
  if (index + 1 < ranges_.size() && ranges_[index + 1].kind == ranges_[index].kind) {
    ranges_[index].bytes += ranges_[index + 1].bytes;
    ranges_.erase(ranges_.begin() + static_cast<std::ptrdiff_t>(index) + 1);
  }
  if (index > 0 && ranges_[index - 1].kind == ranges_[index].kind) {
    ranges_[index - 1].bytes += ranges_[index].bytes;
    ranges_.erase(ranges_.begin() + static_cast<std::ptrdiff_t>(index));
  }
}

bool Arena::has(const void* block) const {
  const char* const at = static_cast<const char*>(block);
  return at >= pages_.data() && at < pages_.data() + pages_.bytes();
}

void Arena::give(void* block) noexcept {
  const std::size_t index = index_at(static_cast<std::size_t>(static_cast<char*>(block) - pages_.data()));
  Range& range = ranges_[index];
  PYLRP_FORBID(pages_.data() + range.at, range.bytes);
  used_ -= range.bytes;
  range.kind = Kind::kFree;
  join(index);
}

// Of one range, from its end.
std::size_t Arena::drop(std::size_t index, std::size_t bytes) noexcept {
  const Range range = ranges_[index];
  bytes = std::min(range.bytes, bytes);
  const std::size_t from = range.at + range.bytes - bytes;
  split(from);
  ranges_[index_at(from)].kind = Kind::kFresh;
  join(index_at(from));
  pages_.drop(from, bytes);
  return bytes;
}

std::size_t Arena::drop(std::size_t bytes) noexcept {
  std::size_t dropped = 0;
  while (dropped < bytes && Pages::in_parts()) {
    std::size_t largest = ranges_.size();
    for (std::size_t i = 0; i < ranges_.size(); ++i) {
      if (ranges_[i].kind == Kind::kFree && (largest == ranges_.size() || ranges_[i].bytes > ranges_[largest].bytes)) {
        largest = i;
      }
    }
    if (largest == ranges_.size()) {
      break;
    }
    dropped += drop(largest, rounded_up(bytes - dropped, kHugePage));
  }
  return dropped;
}

std::size_t Arena::set_top(std::size_t top) noexcept {
  if (!Pages::in_parts()) {
    return 0;
  }
  std::size_t dropped = 0;
  const auto above = [top](const Range& range) { return range.kind == Kind::kFree && range.at + range.bytes > top; };
  for (auto found = ranges_.begin(); (found = std::find_if(found, ranges_.end(), above)) != ranges_.end();) {
    const std::size_t bytes = found->at + found->bytes - std::max(found->at, top);
    dropped += drop(static_cast<std::size_t>(found - ranges_.begin()), bytes);
    found = ranges_.begin();
  }
  top_ = top;
  const std::size_t addresses = rounded_up(std::max(kAddresses, 2 * top), kHugePage);
  if (addresses < pages_.bytes()) {
    PYLRP_ALLOW(pages_.data() + addresses, std::max(addresses, highest_) - addresses);
    split(addresses);
    pages_.cut(addresses);
    while (ranges_.back().at >= pages_.bytes()) {
      ranges_.pop_back();
    }
  }
  return dropped;
}

std::size_t Arena::reached() { return std::exchange(reached_, 0); }

}  // namespace pylrp
