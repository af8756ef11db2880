// How the product over taps (taps.cpp) is cut into tasks: from sizes alone, so that sums do not depend on threads.
#include <algorithm>

#include "kernels/dispatch.hpp"
#include "products/taps.hpp"

// CMake's PYLRP_CONV_PACK_IN_TASKS.
#ifndef PYLRP_CONV_PACK_IN_TASKS
#define PYLRP_CONV_PACK_IN_TASKS 1
#endif

namespace pylrp {

template <class T>
Index TapWork<T>::panels() const {
  const Index width = kernels::table<T>().tile_cols;
  return (columns + width - 1) / width;
}

template <class T>
Index TapWork<T>::own_blocks() const {
#if PYLRP_CONV_PACK_IN_TASKS
  const Index parts = std::max<Index>(1, panels() * groups);
  const Index blocks = std::max({Index{1}, (kMinOwnTasks + parts - 1) / parts, (rows() + kOwnRows - 1) / kOwnRows});
  return blocks <= kMaxPacks && (blocks == 1 || rows() / blocks >= kMinRowsOfPack) ? blocks : 0;
#else
  return 0;
#endif
}

template <class T>
Index TapWork<T>::blocks() const {
  if (packs_in_tasks()) {
    return own_blocks();
  }
  const Index wanted = std::min((kMinConvTasks + groups - 1) / groups, rows() / kLeastBlockRows);
  return std::max((rows() + kBlockRows - 1) / kBlockRows, wanted);
}

// Lists want several panels side by side.
template <class T>
Index TapWork<T>::own_panels() const {
  Index together = 2 * kernels::kPairPanels;
  while (together > 1 && own_blocks() * groups * ((panels() + together - 1) / together) < kMinListTasks) {
    together /= 2;
  }
  return together;
}

template <class T>
Index TapWork<T>::splits() const {
  if (packs_in_tasks()) {
    return (panels() + own_panels() - 1) / own_panels();
  }
  const Index have = std::max<Index>(1, blocks() * groups);
  return std::clamp<Index>((kMinConvTasks + have - 1) / have, 1, panels());
}

template <class T>
const T* zeros(Index count, Buffer<T>* own) {
  alignas(64) static const T some[kReductionBlock + 64] = {};
  if (count <= kReductionBlock) {
    return some;
  }
  own->reset(count);
  std::fill_n(own->data(), count, T(0));
  return own->data();
}

template struct TapWork<float>;
template struct TapWork<double>;
template const float* zeros<float>(Index, Buffer<float>*);
template const double* zeros<double>(Index, Buffer<double>*);

}  // namespace pylrp
