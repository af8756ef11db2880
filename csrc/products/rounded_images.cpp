#include "products/rounded_images.hpp"

#include <algorithm>

namespace pylrp {

template <class T>
RoundedImages<T>::RoundedImages(const Operands<T>& operands, const TapWork<T>& work, const Threads& threads)
    : products_(work.products) {
  for (std::size_t i = 0; operands.rounded() && i < products_.size(); ++i) {
    const Image<T>& image = work.products[i].image;
    const auto same = [&](const TapProduct<T>& other) {
      return other.image.data == image.data && other.image.sample_stride == image.sample_stride &&
             other.image.pixel_stride == image.pixel_stride;
    };
    const auto made = std::find_if(work.products.begin(), work.products.end(), same) - work.products.begin();
    products_[i].image = static_cast<std::size_t>(made) < i ? products_[static_cast<std::size_t>(made)].image
                                                            : rounded(operands, work, image, threads);
  }
}

template <class T>
Image<T> RoundedImages<T>::rounded(const Operands<T>& operands, const TapWork<T>& work, const Image<T>& image,
                                   const Threads& threads) {
  constexpr Index kPixelsATask = 1024;
  const Index samples = image.sample_stride == 0 ? 1 : work.samples;
  const Index pixels = image.pixel_stride == 0 ? 1 : count(work.walk->source);
  const Index groups = image.pixel_stride == 0 ? 1 : work.groups;  // a constant pixel serves all of them
  const Index size = groups * work.channels;
  memory_.emplace_back(std::max<Index>(1, samples * pixels * size), threads.workspace);
  T* const to = memory_.back().data();
  const Index parts = (pixels + kPixelsATask - 1) / kPixelsATask;
  parallel_for(samples * parts, threads.alone_if(samples * pixels * size < kMinWeightsToPackInParallel),
               [&](Index task) {
                 const Index sample = task / parts, first = task % parts * kPixelsATask;
                 for (Index pixel = first; pixel < std::min(pixels, first + kPixelsATask); ++pixel) {
                   const T* const from = image.data + sample * image.sample_stride + pixel * image.pixel_stride;
                   for (Index group = 0; group < groups; ++group) {
                     operands.round_row(work.steps, from + group * work.steps,
                                        to + (sample * pixels + pixel) * size + group * work.channels);
                   }
                 }
               });
  return {to, image.sample_stride == 0 ? 0 : pixels * size, image.pixel_stride == 0 ? 0 : size};
}

template class RoundedImages<float>;
template class RoundedImages<double>;

}  // namespace pylrp
