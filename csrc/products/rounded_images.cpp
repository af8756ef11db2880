#include "products/rounded_images.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace pylrp {
namespace {

// Channels change places within so many words: pieces of the reduction are packed apart.
constexpr Index kWordsInOrder = 128;
constexpr Index kPixelsToCount = 128;
constexpr double kWorthOrder = 0.97;  // of the words that are left without. Not measured alone.

// Words that are left of each two channels, if they are zero independently.
double words_left(const std::vector<double>& shares, const std::int32_t* order, Index places) {
  double left = 0;
  for (Index p = 0; p < places; ++p) {
    const auto zero = [&](Index i) { return 1 - shares[static_cast<std::size_t>(order ? order[i] : i)]; };
    left += 1 - zero(2 * p) * zero(2 * p + 1);
  }
  return left;
}

// The halves of a row's words, words(places), in another order.
void reorder(const float* row, const std::int32_t* order, Index places, float* words) {
  const char* const halves = reinterpret_cast<const char*>(row);
  const auto half = [&](std::int32_t i) {
    std::uint16_t bits;
    std::memcpy(&bits, halves + 2 * static_cast<Index>(i), sizeof bits);
    return std::uint32_t{bits};
  };
  for (Index p = 0; p < places; ++p) {
    const std::uint32_t word = half(order[2 * p]) | half(order[2 * p + 1]) << 16;
    std::memcpy(words + p, &word, sizeof word);
  }
}

}  // namespace

template <class T>
RoundedImages<T>::RoundedImages(const Operands<T>& operands, const std::vector<TapProduct<T>>& products,
                                const ImageSizes& sizes, bool in_order, const Threads& threads)
    : operands_(operands), sizes_(sizes), products_(products) {
  for (std::size_t i = 0; operands.rounded() && i < products_.size(); ++i) {
    const Image<T>& image = products[i].image;
    const auto same = [&](const TapProduct<T>& other) {
      return other.image.data == image.data && other.image.sample_stride == image.sample_stride &&
             other.image.pixel_stride == image.pixel_stride;
    };
    const auto made = static_cast<std::size_t>(std::find_if(products.begin(), products.end(), same) - products.begin());
    if (made < i) {
      products_[i].image = products_[made].image;
      products_[i].order = products_[made].order;
    } else {
      round(&products_[i], in_order && image.pixel_stride != 0, threads);
    }
  }
}

template <class T>
bool RoundedImages<T>::order_of(const Image<T>& image, std::int32_t* order) const {
  const Index all = sizes_.samples * sizes_.pixels, counted = std::min(all, kPixelsToCount);
  std::vector<Index> counts(static_cast<std::size_t>(sizes_.steps));
  for (Index i = 0; i < counted; ++i) {
    const Index at = (2 * i + 1) * all / (2 * counted);
    const T* const x = image.data + at / sizes_.pixels * image.sample_stride + at % sizes_.pixels * image.pixel_stride;
    for (Index c = 0; c < sizes_.steps; ++c) {
      counts[static_cast<std::size_t>(c)] += x[c] != 0 ? 1 : 0;
    }
  }
  std::vector<double> shares(static_cast<std::size_t>(2 * sizes_.places));  // with the half that no channel has
  std::transform(counts.begin(), counts.end(), shares.begin(),
                 [&](Index n) { return static_cast<double>(n) / static_cast<double>(std::max<Index>(1, counted)); });
  std::vector<std::int32_t> found(shares.size());
  std::iota(found.begin(), found.end(), 0);
  for (Index first = 0; first < sizes_.places; first += kWordsInOrder) {
    std::stable_sort(found.begin() + 2 * first, found.begin() + 2 * std::min(first + kWordsInOrder, sizes_.places),
                     [&](std::int32_t a, std::int32_t b) {
                       return shares[static_cast<std::size_t>(a)] < shares[static_cast<std::size_t>(b)];
                     });
  }
  if (words_left(shares, found.data(), sizes_.places) > kWorthOrder * words_left(shares, nullptr, sizes_.places)) {
    return false;
  }
  std::copy(found.begin(), found.end(), order);
  return true;
}

template <class T>
void RoundedImages<T>::round(TapProduct<T>* product, bool in_order, const Threads& threads) {
  constexpr Index kPixelsATask = 1024;
  const Image<T> image = product->image;
  const Index samples = image.sample_stride == 0 ? 1 : sizes_.samples;
  const Index pixels = image.pixel_stride == 0 ? 1 : sizes_.pixels;
  const Index groups = image.pixel_stride == 0 ? 1 : sizes_.groups;  // a constant pixel serves all of them
  const Index size = groups * sizes_.places;
  if (operands_.words() && in_order && samples == sizes_.samples) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(2 * size));
    bool any = false;
    for (Index group = 0; group < groups; ++group) {
      std::int32_t* const of = order.data() + 2 * group * sizes_.places;
      std::iota(of, of + 2 * sizes_.places, 0);
      any = order_of({image.data + group * sizes_.steps, image.sample_stride, image.pixel_stride}, of) || any;
    }
    if (any) {
      product->order = orders_.emplace_back(std::move(order)).data();
    }
  }
  const std::int32_t* const order = product->order;
  memory_.emplace_back(std::max<Index>(1, samples * pixels * size), threads.workspace);
  T* const to = memory_.back().data();
  const Index parts = (pixels + kPixelsATask - 1) / kPixelsATask;
  parallel_for(samples * parts, threads.alone_if(samples * pixels * size < kMinWeightsToPackInParallel),
               [&](Index task) {
                 const Index sample = task / parts, first = task % parts * kPixelsATask;
                 const Buffer<T> row(order != nullptr ? sizes_.places : 0);
                 for (Index pixel = first; pixel < std::min(pixels, first + kPixelsATask); ++pixel) {
                   const T* const from = image.data + sample * image.sample_stride + pixel * image.pixel_stride;
                   for (Index group = 0; group < groups; ++group) {
                     T* const at = to + (sample * pixels + pixel) * size + group * sizes_.places;
                     operands_.round_row(sizes_.steps, from + group * sizes_.steps, order != nullptr ? row.data() : at);
                     if constexpr (std::is_same_v<T, float>) {
                       if (order != nullptr) {
                         reorder(row.data(), order + 2 * group * sizes_.places, sizes_.places, at);
                       }
                     }
                   }
                 }
               });
  product->image = {to, image.sample_stride == 0 ? 0 : pixels * size, image.pixel_stride == 0 ? 0 : size};
}

template class RoundedImages<float>;
template class RoundedImages<double>;

}  // namespace pylrp
