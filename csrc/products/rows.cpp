// Rows of a walk: where they lie in the target image, and where their taps find their source.
#include <algorithm>

#include "products/taps.hpp"

namespace pylrp {

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

Rows::Rows(const Walk& walk, Index begin, Index end, const SamplePairs& pairs)
    : walk_(walk), begin_(begin), count_(end - begin) {
  // A run ends with its sample, and, where the target is walked in steps, with its line.
  const Index line = walk.dense() ? walk.count() : walk.rows[2];
  const auto pixel_of = [&](const Place& place) {
    Axes target{};
    for (std::size_t a = 0; a < 3; ++a) {
      target[a] = walk.start[a] + walk.step[a] * place.row[a];
    }
    return (target[0] * walk.target[1] + target[1]) * walk.target[2] + target[2];
  };
  const Index paired = 2 * pairs.count() * walk.count();
  for (Index r = begin; r < end;) {
    if (r >= paired) {
      const Place place(walk, r);
      const Index last = std::min(end, (r / line + 1) * line);
      runs_.push_back({r - begin, last - r, place.sample, pixel_of(place), walk.step[2]});
      r = last;
      continue;
    }
    const Index last = std::min({end, paired, 2 * (r / 2 / line + 1) * line});
    for (Index first = r; first < std::min(r + 2, last); ++first) {
      const Place place(walk, first / 2);
      runs_.push_back({first - begin, (last - first + 1) / 2, pairs.sample(place.sample, first % 2), pixel_of(place),
                       walk.step[2], 2});
    }
    r = last;
  }
}

Block::Block(const Walk& walk, Index begin, Index end, const SamplePairs& pairs) : Rows(walk, begin, end, pairs) {
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
  const Index paired = 2 * pairs.count() * walk.count();
  Index row = begin;
  Place place(walk, row < paired ? row / 2 : row);
  for (At& at : at_) {
    at.sample = row < paired ? pairs.sample(place.sample, row % 2) : place.sample;
    at.inside = true;
    for (std::size_t a = 0; a < 3; ++a) {
      at.position[a] = walk.scale[a] * place.row[a];
      at.inside = at.inside && at.position[a] + least[a] >= 0 && at.position[a] + most[a] < walk.source[a];
    }
    at.pixel = (at.position[0] * walk.source[1] + at.position[1]) * walk.source[2] + at.position[2];
    if (++row == paired) {
      place = Place(walk, row);
    } else if (row > paired || row % 2 == 0) {
      place.next(walk);
    }
  }
}

}  // namespace pylrp
