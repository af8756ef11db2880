// The forward pass of 1 x 1 convolutions with few positions and many weights (layers/conv/positions_in_lanes.cpp),
// beside sums of products in double.
#include <cmath>
#include <limits>

#include "conv_run.hpp"
#include "products/lists.hpp"

namespace pylrp {
namespace {

template <class T>
struct Forward {
  Forward(const Geometry& geometry, Index in, Index out, Index batch_, unsigned seed)
      : data(geometry.shape(in, out, 1), false, batch_, 1, seed, false),
        positions(count(data.shape.out)),
        batch(batch_),
        x(batch_, positions * in, 0),
        y(batch_, positions * out) {
    Random random(seed);
    x.fill([&] {
      const double v = random();
      return v == 0 ? 0.5 : v;
    });
  }
  // Whether the path ran.
  bool run(int threads, const Clamp<T>& clamp = {}) {
    const std::uint64_t before = runs_of(ConvPath::kPositionsInLanes);
    data.layer(true).forward({x.read()}, y.view(), clamp, {threads});
    return runs_of(ConvPath::kPositionsInLanes) > before;
  }
  double expected(Index sample, Index position, Index o) {
    const Index in = data.shape.in_channels;
    double sum = static_cast<double>(data.bias.at(0, o));
    for (Index i = 0; i < in; ++i) {
      sum += static_cast<double>(data.weight.at(o, i)) * static_cast<double>(x.at(sample, position * in + i));
    }
    return sum;
  }
  ConvData<T> data;
  Index positions, batch;
  Fenced<T> x, y;
};

template <class T>
void check(const Geometry& geometry, Index in, Index out, Index batch, unsigned seed) {
  Forward<T> forward(geometry, in, out, batch, seed);
  const bool fits = sizeof(T) == 4 && forward.positions * batch <= 224 && in * out >= 1 << 14 && !lists_forced() &&
                    forward.positions * batch >= kernels::table<T>().tile_rows;
  const Clamp<T> clamp{T(-3), T(4)};
  CHECK(forward.run(1, clamp) == (fits && is_built(ConvPath::kPositionsInLanes)));
  std::vector<T> first;
  bool close = true, equal = true;
  for (const int threads : {1, 3}) {
    forward.run(threads, clamp);
    std::size_t at = 0;
    for (Index s = 0; s < batch; ++s) {
      for (Index p = 0; p < forward.positions; ++p) {
        for (Index o = 0; o < out; ++o, ++at) {
          const T y = forward.y.at(s, p * out + o);
          if (threads == 1) {
            first.push_back(y);
            const double wanted = std::min(4.0, std::max(-3.0, forward.expected(s, p, o)));
            close = close && std::abs(static_cast<double>(y) - wanted) < (sizeof(T) == 4 ? 1e-3 : 1e-11);
          }
          equal = equal && y == first[at];
        }
      }
    }
  }
  CHECK(close);
  CHECK(equal);
}

TEST(conv_positions_in_lanes) {
  unsigned n = 0;
  for (const Geometry& geometry : {Geometry{{1, 14, 14}, {1, 1, 1}}, Geometry{{1, 7, 7}, {1, 1, 1}},
                                   Geometry{{1, 4, 4}, {1, 1, 1}}, Geometry{{1, 15, 15}, {1, 1, 1}}}) {
    for (const auto& [in, out] : {std::pair<Index, Index>{80, 480}, {129, 131}, {401, 70}, {40, 33}}) {
      for (const Index batch : {1, 3}) {
        check<float>(geometry, in, out, batch, ++n);
        check<double>(geometry, in, out, batch, ++n);
      }
    }
  }
}

// A position that is not finite is none of its neighbours' business, of an input with zeros lists are made.
TEST(conv_positions_in_lanes_alone) {
  const Geometry geometry{{1, 7, 7}, {1, 1, 1}};
  Forward<float> forward(geometry, 130, 150, 1, 3);
  forward.run(2);
  std::vector<float> before(forward.y.row(0), forward.y.row(0) + forward.y.cols());
  forward.x.at(0, 20 * 130 + 7) = std::numeric_limits<float>::quiet_NaN();
  forward.run(2);
  for (Index j = 0; j < forward.y.cols(); ++j) {
    const float y = forward.y.at(0, j);
    CHECK(j / 150 == 20 ? std::isnan(y) || forward.data.weight.at(j % 150, 7) == 0
                        : y == before[static_cast<std::size_t>(j)]);
  }
  for (Index j = 0; j < forward.x.cols(); j += 2) {
    forward.x.at(0, j) = 0;
  }
  CHECK(!forward.run(1));
}

}  // namespace
}  // namespace pylrp
