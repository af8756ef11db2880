// Between the user's order of a sample's axes and the order in which the core stores them.
#pragma once

#include "base/permutation.hpp"

namespace pylrp::bindings {

struct Layout {
  Permutation axes;        // from the user's order to the core's
  Index channels = 1;      // along the axis that classes and masks are about
  Index channel_step = 1;  // how far apart they lie in the core

  // order: which of the user's axes each stored axis is; channel: the user's axis of the channels.
  Layout(const std::vector<Index>& shape, const std::vector<Index>& order, Index channel) : axes(shape, order) {
    require_fit(channel >= 0 && channel < static_cast<Index>(shape.size()), "the channels of a value");
    channels = shape[static_cast<std::size_t>(channel)];
    for (std::size_t i = order.size(); order[i - 1] != channel; --i) {
      channel_step *= shape[static_cast<std::size_t>(order[i - 1])];
    }
  }
  Index size() const { return axes.size(); }
  bool same() const { return axes.same(); }
  // Where an entry of the user's layout lies.
  Index in_core(Index entry) const { return axes.place_of(entry); }

  // body(place) for each entry of a channel, in the core.
  template <class Body>
  void each_of_channel(Index channel, Body body) const {
    for (Index first = channel * channel_step; first < size(); first += channels * channel_step) {
      for (Index at = first; at < first + channel_step; ++at) {
        body(at);
      }
    }
  }
};

template <class T>
void to_core(const Layout& layout, Matrix<const T> user, Matrix<T> core, const Threads& threads) {
  layout.axes.copy(user, core, threads);
}
template <class T>
void to_user(const Layout& layout, Matrix<const T> core, Matrix<T> user, const Threads& threads) {
  layout.axes.copy_back(core, user, threads);
}

}  // namespace pylrp::bindings
