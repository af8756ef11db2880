#include "products/tap_lists.hpp"

#include <algorithm>
#include <limits>

#include "kernels/dispatch.hpp"

namespace pylrp {

TapPixels::TapPixels(const Block& block) : rows_(static_cast<std::size_t>(block.count())) {
  const std::size_t taps = block.walk().taps.size();
  const Index size = count(block.walk().source);
  std::vector<Index> places(taps * rows_);  // counted through all samples; -1 outside
  Index first = std::numeric_limits<Index>::max(), last = -1;
  auto place = places.begin();
  block.each_source(0, block.count(), 0, taps, [&](bool inside, Index sample, Index pixel) {
    *place = inside ? sample * size + pixel : -1;
    if (inside) {
      first = std::min(first, *place);
      last = std::max(last, *place);
    }
    ++place;
  });
  std::vector<std::int32_t> number(static_cast<std::size_t>(std::max<Index>(last - first + 1, 0)), -1);
  for (const Index at : places) {
    if (at >= 0) {
      number[static_cast<std::size_t>(at - first)] = 0;
    }
  }
  for (std::size_t i = 0; i < number.size(); ++i) {  // in the order in which they lie in memory
    if (number[i] == 0) {
      number[i] = static_cast<std::int32_t>(pixels_.size());
      const Index at = first + static_cast<Index>(i);
      pixels_.push_back({at / size, at % size});
    }
  }
  numbers_.resize(places.size());
  std::transform(places.begin(), places.end(), numbers_.begin(), [&](Index at) {
    return at < 0 ? static_cast<std::int32_t>(pixels_.size()) : number[static_cast<std::size_t>(at - first)];
  });
}

template <class T>
TapLists<T>::TapLists(const TapPixels& pixels, const Image<T>& image, Index channels)
    : count_(static_cast<Index>(pixels.pixels().size()) + 1) {
  const Index most = list_steps<T>(), parts = list_parts(channels, most), stride = list_stride<T>(most);
  values_.reset(parts * count_ * stride);
  steps_.reset(parts * count_ * stride);
  counts_.reset(parts * count_);
  Index list = 0;
  for (Index first = 0; first < channels; first += most) {
    for (const TapPixels::Pixel& at : pixels.pixels()) {
      const T* const x = image.data + at.sample * image.sample_stride + at.pixel * image.pixel_stride + first;
      const Index found = kernels::table<T>().compress(std::min(most, channels - first), x, 0, 0,
                                                       values_.data() + list * stride, steps_.data() + list * stride);
      counts_.data()[list++] = static_cast<std::int32_t>(found);
      kept_ += found;
    }
    counts_.data()[list++] = 0;  // the empty one
  }
}

template <class T>
Lists<T> TapLists<T>::part(Index part) const {
  const Index stride = list_stride<T>(list_steps<T>()), first = part * count_;
  return {values_.data() + first * stride, steps_.data() + first * stride, counts_.data() + first, stride};
}

template <class T>
double share_of_rows(const Block& block, const Image<T>& image, Index channels) {
  const std::size_t tap = block.walk().taps.size() / 2;
  const Index apart = rows_from_count_to_count(block.count());
  Index kept = 0, entries = 0;
  for (Index row = apart / 2; row < block.count(); row += apart) {
    block.each_source(row, 1, tap, 1, [&](bool inside, Index sample, Index pixel) {
      if (inside) {
        const T* const x = image.data + sample * image.sample_stride + pixel * image.pixel_stride;
        kept += kernels::table<T>().nonzeros(channels, x, 0);
        entries += channels;
      }
    });
  }
  return entries == 0 ? 1 : static_cast<double>(kept) / static_cast<double>(entries);
}

template class TapLists<float>;
template class TapLists<double>;
template double share_of_rows<float>(const Block&, const Image<float>&, Index);
template double share_of_rows<double>(const Block&, const Image<double>&, Index);

}  // namespace pylrp
