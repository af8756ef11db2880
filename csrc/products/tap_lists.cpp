#include "products/tap_lists.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "kernels/dispatch.hpp"
#include "kernels/signs.hpp"
#include "products/tap_signs.hpp"

namespace pylrp {

TapPixels::TapPixels(const Block& block, Index together)
    : together_(together), rows_((block.count() + together - 1) / together) {
  const std::size_t taps = block.walk().taps.size();
  const Index size = count(block.walk().source), rows = block.count();
  std::vector<Index> places;  // of each tap and row, counted through all samples; -1 outside
  places.reserve(taps * static_cast<std::size_t>(together * rows_));
  Index first = std::numeric_limits<Index>::max(), last = -1;
  for (std::size_t t = 0; t < taps; ++t) {
    block.each_source(0, rows, t, 1, [&](bool inside, Index sample, Index pixel) {
      places.push_back(inside ? sample * size + pixel : -1);
      if (inside) {
        first = std::min(first, places.back());
        last = std::max(last, places.back());
      }
    });
    if (rows % together != 0) {
      places.push_back(-1);
    }
  }
  // The last list that begins with a pixel (0: with none): most are met by several taps.
  std::vector<std::int32_t> known(static_cast<std::size_t>(std::max<Index>(last - first + 1, 0)) + 1, -1);
  std::vector<Index> ends;  // a list's last pixel
  const std::size_t step = static_cast<std::size_t>(together);
  numbers_.reserve(places.size() / step);
  for (std::size_t i = 0; i < places.size(); i += step) {
    std::int32_t& number = known[static_cast<std::size_t>(places[i] < 0 ? 0 : places[i] - first + 1)];
    const Index end = places[i + step - 1];
    if (number < 0 || ends[static_cast<std::size_t>(number)] != end) {
      number = static_cast<std::int32_t>(ends.size());
      ends.push_back(end);
      for (std::size_t j = 0; j < step; ++j) {
        const Index at = places[i + j];
        pixels_.push_back(at < 0 ? Pixel{-1, -1} : Pixel{at / size, at % size});
      }
    }
    numbers_.push_back(number);
  }
}

template <class T>
TapLists<T>::TapLists(const TapPixels& pixels, const Image<T>& image, const T* negative, Index channels,
                      const Operands<T>& operands, Workspace* workspace)
    : pixels_(pixels),
      image_(image),
      negative_(negative),
      operands_(operands),
      channels_(channels),
      together_(pixels.together()),
      steps_of_list_(together_ == 2 && negative == nullptr ? pair_steps<T>() : list_steps<T>()),
      count_(pixels.lists()),
      size_(count_ * std::min(steps_of_list_, channels) + kernels::kSpare),
      values_((negative ? 2 : 1) * together_ * parts() * size_, workspace),
      steps_(parts() * size_, workspace),
      begins_(static_cast<std::size_t>(parts() * (count_ + 1))) {}

template <class T>
Index TapLists<T>::panels() const {
  return by_sign() ? kernels::kSignPanels[together_ - 1] : (together_ == 2 ? pair_panels<T>() : kernels::kListPanels);
}

template <class T>
void TapLists<T>::make(Index part) {
  const Index first = part * steps_of_list_, depth = std::min(steps_of_list_, channels_ - first);
  Buffer<T> own_zeros;
  const T* const nothing = zeros<T>(depth, &own_zeros);
  const auto at = [&](Index pixel, const T* image) {
    const TapPixels::Pixel& p = pixels_.pixels()[static_cast<std::size_t>(pixel)];
    return p.sample < 0 ? nothing : image + p.sample * image_.sample_stride + p.pixel * image_.pixel_stride + first;
  };
  Index* const begins = begins_.data() + part * (count_ + 1);
  Index kept = part * size_;
  for (Index i = 0; i < count_; ++i) {
    begins[i] = kept;
    T* const values = values_.data() + (negative_ ? 2 : 1) * together_ * kept;
    std::uint16_t* const steps = steps_.data() + kept;
    const Index row = together_ * i, last = row + together_ - 1;
    if (negative_ && together_ == 2) {
      const T* const x[] = {at(row, image_.data), at(row, negative_), at(last, image_.data), at(last, negative_)};
      kept += compress_signs(depth, x, values, steps);
    } else {
      const T* const x[] = {at(row, image_.data), negative_ ? at(row, negative_) : at(last, image_.data)};
      kept += operands_.compress(negative_ ? 2 : static_cast<int>(together_), depth, x, values, steps);
    }
  }
  begins[count_] = kept;
}

template <class T>
double TapLists<T>::share() const {
  Index kept = 0;
  for (Index part = 0; part < parts(); ++part) {
    kept += begins_[static_cast<std::size_t>((part + 1) * (count_ + 1) - 1)] - part * size_;
  }
  return static_cast<double>(kept) / static_cast<double>(std::max<Index>(1, count_ * channels_));
}

template <class T>
void TapLists<T>::multiply(Index part, Index begin, Index end, const std::int32_t* list_of, Index panels,
                           const T* const* panel, const std::uint16_t* signs, bool add, T* const* sums) const {
  const Index width = kernels::table<T>().tile_cols;
  T* from[kernels::kListPanels];
  for (Index p = 0; p < panels; ++p) {
    from[p] = sums[p] + begin * together_ * width;
  }
  const kernels::Lists<T> lists{.rows = end - begin,
                                .values = values_.data(),
                                .steps = steps_.data(),
                                .begins = begins_.data() + part * (count_ + 1),
                                .list_of = list_of + begin,
                                .panels = static_cast<int>(panels),
                                .panel = panel,
                                .add = add,
                                .out = from,
                                .out_stride = width};
  if constexpr (std::is_same_v<T, float>) {
    if (by_sign()) {
      kernels::signs()->list_signs({lists, static_cast<int>(together_), signs});
      return;
    }
  }
  together_ == 2 ? operands_.list_pairs(lists) : operands_.list_rows({lists, 0});
}

template <class T>
LeftShares left_shares(const Block& block, const Image<T>& image, Index channels, const Operands<T>& operands) {
  const std::size_t tap = block.walk().taps.size() / 2;
  const Index most = kReductionBlock;
  const Index apart = (rows_from_count_to_count(block.count()) + 1) / 2 * 2;
  const Buffer<T> values(2 * (most + kernels::kSpare));
  const Buffer<std::uint16_t> steps(most + kernels::kSpare);
  Index each = 0, either = 0, entries = 0;
  for (Index row = apart / 2; row < block.count(); row += apart) {
    const T* at[2] = {};
    Index met = 0;
    block.each_source(row, std::min<Index>(2, block.count() - row), tap, 1,
                      [&](bool inside, Index sample, Index pixel) {
                        if (inside) {
                          at[met++] = image.data + sample * image.sample_stride + pixel * image.pixel_stride;
                        }
                      });
    for (Index first = 0; met > 0 && first < channels; first += most) {
      const Index depth = std::min(most, channels - first);
      const T* const x[2] = {at[0] + first, at[met - 1] + first};
      each += operands.compress(1, depth, x, values.data(), steps.data());
      either += operands.compress(2, depth, x, values.data(), steps.data());
    }
    entries += met > 0 ? channels : 0;
  }
  const double all = static_cast<double>(entries);
  return entries == 0 ? LeftShares{1, 1}
                      : LeftShares{static_cast<double>(each) / all, static_cast<double>(either) / all};
}

template <class T>
Index choose_lists(const Block& block, const Image<T>& image, Index panels, Index channels,
                   const Operands<T>& operands) {
  const Index rows = block.count(), taps = static_cast<Index>(block.walk().taps.size());
  if (taps == 0) {  // a phase of the stride that no tap meets
    return 0;
  }
  if (lists_forced()) {
    return forced_left_path() == LeftPath::kPairs ? 2 : 1;
  }
  return rows_of_a_list<T>(left_shares(block, image, channels, operands), rows, panels, taps, channels);
}

template <class T>
TapLeft<T>::TapLeft(const TapWork<T>& work, const Block& block, Index group, Index panels, Workspace* workspace)
    : entries_(static_cast<std::uint64_t>(block.count() * static_cast<Index>(block.walk().taps.size()) * panels *
                                          kernels::table<T>().tile_cols * work.channels)) {
  for (const TapProduct<T>& product : work.products) {
    Image<T> from = product.image;
    const TapProduct<T>* const before = of_.empty() ? nullptr : &work.products[of_.size() - 1];
    if (before && from.data == before->image.data && product.negative == before->negative) {
      of_.push_back(of_.back());
      continue;
    }
    const Index further = from.pixel_stride == 0 ? 0 : group * work.channels;
    from.data += further;
    const T* const negative = product.negative ? product.negative + further : nullptr;
    const Index together = negative ? choose_signs<T>(block, from, work.channels)
                                    : choose_lists<T>(block, from, panels, work.channels, work.operands);
    if (together == 0) {
      of_.push_back(nullptr);
      ++by_tiles_;
      continue;
    }
    std::unique_ptr<TapPixels>& pixels = pixels_[together - 1];
    if (pixels == nullptr) {
      pixels = std::make_unique<TapPixels>(block, together);
    }
    of_.push_back(made_
                      .emplace_back(std::make_unique<TapLists<T>>(*pixels, from, negative, work.channels, work.operands,
                                                                  workspace))
                      .get());
  }
}

template <class T>
Index TapLeft<T>::parts() const {
  Index all = 0;
  for (const auto& lists : made_) {
    all += lists->parts();
  }
  return all;
}

template <class T>
void TapLeft<T>::make(Index i) {
  std::size_t at = 0;
  for (; i >= made_[at]->parts(); ++at) {
    i -= made_[at]->parts();
  }
  made_[at]->make(i);
}

template <class T>
void TapLeft<T>::count_work() const {
  count_left_work({by_tiles_ * entries_, 0, 0});
  for (const auto& lists : made_) {
    count_left_work({0, (lists->by_sign() ? 2 : 1) * entries_,
                     static_cast<std::uint64_t>(lists->share() * static_cast<double>(entries_))});
  }
}

template <class T>
bool tap_zeros_count(Index rows, Index panels, Index taps, Index channels) {
  return lists_forced() ||
         (forced_left_path() == LeftPath::kCounted && pairs_cost<T>(0.2, rows, panels, taps, channels) < kWorthLists);
}

#define PYLRP_INSTANTIATE(T)                                                                       \
  template class TapLists<T>;                                                                      \
  template class TapLeft<T>;                                                                       \
  template LeftShares left_shares<T>(const Block&, const Image<T>&, Index, const Operands<T>&);    \
  template Index choose_lists<T>(const Block&, const Image<T>&, Index, Index, const Operands<T>&); \
  template bool tap_zeros_count<T>(Index, Index, Index, Index);
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
