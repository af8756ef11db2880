// Max and average pooling over windows: ordinary, global, adaptive.
#pragma once

#include <array>
#include <vector>

#include "layers/layer.hpp"
#include "products/geometry.hpp"

namespace pylrp {

// Along one axis: output o looks at begin[o], begin[o] + step, ... below end[o]; an average divides by the product of
// count[o] over the axes.
struct PoolAxis {
  std::vector<Index> begin, end, count;
  Index step = 1;
  Index in = 1;

  Index out() const { return static_cast<Index>(begin.size()); }
};

template <class T>
class PoolLayer : public Layer<T> {
 public:
  PoolLayer(bool max, std::array<PoolAxis, 3> axes, Index channels)
      : max_(max), axes_(std::move(axes)), channels_(channels) {}
  // The maximum passes relevance to the winner, first of ties; an average shares in proportion.
  Flow flow() const override { return max_ ? Flow::kRouted : Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return true; }
  bool relevance_in_place() const override { return is_partition(); }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  bool is_partition() const;  // the windows meet every position once
  // How a row is shared out: channels in pieces, lines of the output in parts.
  struct Split {
    Index pieces, parts;
    Index tasks() const { return pieces * parts; }
  };
  // shared: windows may write the same entries, so that a task has all lines of its channels.
  Split split(bool shared) const;
  template <class Body>
  void each_window(Index rows, const Split& split, const Threads& threads, Body body) const;

  bool max_;
  std::array<PoolAxis, 3> axes_;
  Index channels_;
};

}  // namespace pylrp
