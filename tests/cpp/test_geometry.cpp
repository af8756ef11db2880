// Where the taps of a convolution fall: walks and blocks against the definition.
#include <map>
#include <set>

#include "check.hpp"
#include "conv_data.hpp"
#include "products/taps.hpp"

namespace pylrp {
namespace {

Index pixel_of(const Axes& at, const Axes& size) { return (at[0] * size[1] + at[1]) * size[2] + at[2]; }

Axes row_of(Index n, const Axes& rows) { return {n / (rows[1] * rows[2]), n / rows[2] % rows[1], n % rows[2]}; }

using Meeting = std::array<Index, 3>;  // position of the target, tap, position of the source

// All meetings of a walk, as the rows of a product find them.
template <class Body>
void each_meeting_of(const Walk& walk, Body body) {
  for (Index n = 0; n < walk.count(); ++n) {
    const Axes row = row_of(n, walk.rows);
    for (const KernelTap& tap : walk.taps) {
      Axes source{}, target{};
      bool inside = true;
      for (std::size_t a = 0; a < 3; ++a) {
        source[a] = walk.scale[a] * row[a] + tap.offset[a];
        target[a] = walk.start[a] + walk.step[a] * row[a];
        inside = inside && source[a] >= 0 && source[a] < walk.source[a];
      }
      if (inside) {
        body(Meeting{pixel_of(target, walk.target), tap.kernel, pixel_of(source, walk.source)});
      }
    }
  }
}

bool covers_exactly(const std::vector<Walk>& walks, const Axes& target, const std::map<Meeting, int>& wanted) {
  std::map<Meeting, int> found;
  std::vector<int> visits(static_cast<std::size_t>(count(target)));
  bool right = true;
  for (const Walk& walk : walks) {
    right = right && walk.target == target && walk.count() > 0;
    for (Index n = 0; n < walk.count(); ++n) {
      const Axes row = row_of(n, walk.rows);
      Axes at{};
      for (std::size_t a = 0; a < 3; ++a) {
        at[a] = walk.start[a] + walk.step[a] * row[a];
        right = right && at[a] >= 0 && at[a] < target[a];
      }
      ++visits[static_cast<std::size_t>(pixel_of(at, target))];
    }
    each_meeting_of(walk, [&](const Meeting& meeting) { ++found[meeting]; });
  }
  for (const int n : visits) {
    right = right && n == 1;
  }
  return right && found == wanted;
}

std::string text(const Axes& axes) {
  return std::to_string(axes[0]) + "," + std::to_string(axes[1]) + "," + std::to_string(axes[2]);
}

void check_walks(const Geometry& geometry) {
  const ConvShape shape = geometry.shape();
  check::context = "in " + text(shape.in) + " kernel " + text(shape.kernel) + " stride " + text(shape.stride) +
                   " dilation " + text(shape.dilation) + " pad " + text(shape.pad) + " out " + text(shape.out);
  std::map<Meeting, int> up, down;
  each_meeting(shape, [&](Index out, Index tap, Index in) {
    ++up[{out, tap, in}];
    ++down[{in, tap, out}];
  });
  CHECK(covers_exactly(walks_to_out(shape), shape.out, up));
  CHECK(covers_exactly(walks_to_in(shape), shape.in, down));
}

// Every combination along one axis, whichever of the three it is.
TEST(walks_along_one_axis) {
  std::size_t axis = 0;
  for (Index in = 1; in <= 8; ++in) {
    for (Index kernel = 1; kernel <= 4; ++kernel) {
      for (Index stride = 1; stride <= 3; ++stride) {
        for (Index dilation = 1; dilation <= 3; ++dilation) {
          for (const auto& [before, behind] : {std::pair<Index, Index>{0, 0}, {1, 1}, {0, 2}, {3, 0}, {2, 1}}) {
            Geometry geometry{{1, 1, 1}, {1, 1, 1}};
            geometry.in[axis] = in;
            geometry.kernel[axis] = kernel;
            geometry.stride[axis] = stride;
            geometry.dilation[axis] = dilation;
            geometry.before[axis] = before;
            geometry.behind[axis] = behind;
            if (geometry.fits()) {
              check_walks(geometry);
            }
            axis = (axis + 1) % 3;
          }
        }
      }
    }
  }
}

TEST(walks_along_up_to_three_axes) {
  Random random(1);
  for (int n = 0; n < 300; ++n) {
    check_walks(random_geometry(random));
  }
}

// Blocks that begin and end anywhere, within samples and across them.
template <class T>
void check_blocks(const Walk& walk, Random& random) {
  constexpr Index kSamples = 3, kStride = 5;
  const Index pixels = count(walk.source), all = kSamples * walk.count();
  std::vector<T> pixel_values(static_cast<std::size_t>(kSamples * (pixels * kStride + 7))), zeros(1);
  const Image<T> images[] = {{pixel_values.data(), pixels * kStride + 7, kStride}, {pixel_values.data(), 0, 0}};
  for (int n = 0; n < 4; ++n) {
    const Index begin = static_cast<Index>(random(0, static_cast<double>(all)));
    const Index end = n == 0 ? all : begin + 1 + static_cast<Index>(random(0, static_cast<double>(all - begin)));
    const Block block(walk, n == 0 ? 0 : begin, end);
    const Index first_row = block.begin();
    CHECK(block.begin() == (n == 0 ? 0 : begin) && block.count() == end - block.begin());
    CHECK(block.first_sample() == block.begin() / walk.count());
    // Runs: each row once, in order, at its pixel of the target.
    Index next = 0;
    bool right = true;
    for (const Run& run : block.runs()) {
      right = right && run.first == next && run.count > 0;
      for (Index i = 0; i < run.count; ++i, ++next) {
        const Axes row = row_of((first_row + next) % walk.count(), walk.rows);
        Axes target{};
        for (std::size_t a = 0; a < 3; ++a) {
          target[a] = walk.start[a] + walk.step[a] * row[a];
        }
        right = right && run.sample == (first_row + next) / walk.count() &&
                run.pixel + i * run.step == pixel_of(target, walk.target);
      }
    }
    CHECK(right && next == block.count());
    // Sources: some rows, some taps.
    const Index row = static_cast<Index>(random(0, static_cast<double>(block.count())));
    const Index rows = 1 + static_cast<Index>(random(0, static_cast<double>(block.count() - row)));
    const std::size_t taps = walk.taps.size(), tap = n % 2 == 0 ? 0 : taps / 2;
    std::vector<const T*> found((taps - tap) * static_cast<std::size_t>(rows) + 1);
    for (const Image<T>& image : images) {
      block.sources(image, row, rows, tap, taps - tap, zeros.data(), found.data());
      bool same = true;
      for (std::size_t t = tap; t < taps; ++t) {
        for (Index i = 0; i < rows; ++i) {
          const Index at = first_row + row + i;
          const Axes position = row_of(at % walk.count(), walk.rows);
          Axes source{};
          bool inside = true;
          for (std::size_t a = 0; a < 3; ++a) {
            source[a] = walk.scale[a] * position[a] + walk.taps[t].offset[a];
            inside = inside && source[a] >= 0 && source[a] < walk.source[a];
          }
          const T* const wanted = inside ? image.data + at / walk.count() * image.sample_stride +
                                               pixel_of(source, walk.source) * image.pixel_stride
                                         : zeros.data();
          same = same && found[(t - tap) * static_cast<std::size_t>(rows) + static_cast<std::size_t>(i)] == wanted;
        }
      }
      CHECK(same && found.back() == nullptr);
    }
  }
}
TEST(blocks_find_their_rows_and_sources) {
  Random random(2);
  for (int n = 0; n < 200; ++n) {
    const Geometry geometry = random_geometry(random);
    check::context = "geometry " + std::to_string(n);
    for (const auto walks : {walks_to_out, walks_to_in}) {
      for (const Walk& walk : walks(geometry.shape())) {
        check_blocks<float>(walk, random);
      }
    }
  }
}

// Rows of samples in pairs, by counting: position by position both samples of a pair, then what is left over.
TEST(blocks_of_pairs_of_samples) {
  Random random(11);
  for (int n = 0; n < 120; ++n) {
    const Geometry geometry = random_geometry(random);
    const ConvShape shape = geometry.shape();
    for (const Walk& walk : n % 2 == 0 ? walks_to_out(shape) : walks_to_in(shape)) {
      const SamplePairs pairs{1 + n % 3, 1 + n % 8};
      std::vector<std::pair<Index, Index>> expected;  // sample and row of its walk
      std::vector<bool> taken(static_cast<std::size_t>(pairs.samples));
      for (Index first = 0; first + pairs.apart < pairs.samples; ++first) {
        const Index second = first + pairs.apart, last = first - first % pairs.apart + 2 * pairs.apart;
        if (taken[static_cast<std::size_t>(first)] || last > pairs.samples) {
          continue;
        }
        taken[static_cast<std::size_t>(first)] = taken[static_cast<std::size_t>(second)] = true;
        for (Index row = 0; row < walk.count(); ++row) {
          expected.insert(expected.end(), {{first, row}, {second, row}});
        }
      }
      for (Index sample = 0; sample < pairs.samples; ++sample) {
        for (Index row = 0; !taken[static_cast<std::size_t>(sample)] && row < walk.count(); ++row) {
          expected.emplace_back(sample, row);
        }
      }
      const Index all = pairs.samples * walk.count();
      const Index begin = static_cast<Index>(random(0, static_cast<double>(all)));
      const Index end = std::min(all, begin + 1 + static_cast<Index>(random(0, static_cast<double>(all - begin))));
      const Block block(walk, begin, end, pairs);
      std::vector<int> met(static_cast<std::size_t>(end - begin));
      bool right = block.count() == end - begin && static_cast<Index>(expected.size()) == all;
      for (const Run& run : block.runs()) {
        for (Index i = 0; i < run.count; ++i) {
          const Index at = run.first + i * run.every;
          ++met[static_cast<std::size_t>(at)];
          const auto& [sample, row] = expected[static_cast<std::size_t>(begin + at)];
          const Axes place = row_of(row, walk.rows);
          Axes target{};
          for (std::size_t a = 0; a < 3; ++a) {
            target[a] = walk.start[a] + walk.step[a] * place[a];
          }
          right = right && run.sample == sample && run.pixel + i * run.step == pixel_of(target, walk.target);
        }
      }
      CHECK(right && std::all_of(met.begin(), met.end(), [](int times) { return times == 1; }));
      for (std::size_t t = 0; t < walk.taps.size(); ++t) {
        Index at = begin;
        bool same = true;
        block.each_source(0, block.count(), t, 1, [&](bool inside, Index sample, Index pixel) {
          const auto& [wanted, row] = expected[static_cast<std::size_t>(at++)];
          const Axes place = row_of(row, walk.rows);
          Axes source{};
          bool is_inside = true;
          for (std::size_t a = 0; a < 3; ++a) {
            source[a] = walk.scale[a] * place[a] + walk.taps[t].offset[a];
            is_inside = is_inside && source[a] >= 0 && source[a] < walk.source[a];
          }
          same = same && inside == is_inside && sample == wanted && (!inside || pixel == pixel_of(source, walk.source));
        });
        CHECK(same);
      }
    }
  }
}

}  // namespace
}  // namespace pylrp
