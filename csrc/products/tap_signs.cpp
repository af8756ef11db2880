#include "products/tap_signs.hpp"

#include <algorithm>

#include "kernels/signs.hpp"
#include "products/lists.hpp"
#include "products/tap_lists.hpp"

namespace pylrp {
namespace {

using Product = TapProduct<float>;

// What an entry of a list costs in a panel, of rows and of pairs, in units of what one costs a tile. Measured alone
// with a quarter and half of the entries left (Zen 4): rows 0.52 and 1.02, pairs 0.41 and 0.80.
constexpr double kRow = 2.07, kPair = 1.6;
// To make an entry of a list, zero or not, of two rows; to begin and end a list, for each kListPanels panels.
constexpr double kCompress = 1.0, kList = 8;

bool are_parts(kernels::Read first, kernels::Read second) {
  return first == kernels::Read::kPositive && second == kernels::Read::kNegative;
}

bool fit(const Product& first, const Product& second) {
  return (are_parts(first.map.read, second.map.read) || are_parts(second.map.read, first.map.read)) &&
         first.output == second.output && first.image.pixel_stride != 0 &&
         first.image.pixel_stride == second.image.pixel_stride &&
         first.image.sample_stride == second.image.sample_stride;
}

// What one of a row costs, by itself or in a pair.
double entry(const LeftShares& shares) {
  return shares.each == 0 ? kRow : std::min(kRow, kPair * shares.either / shares.each);
}

// Of the entries of some rows, which are not zero in one of the two images.
double share_of_both(const Block& block, const Product& first, const Product& second, Index channels) {
  const Index most = kReductionBlock;
  const Buffer<float> values(2 * (most + kernels::kSpare));
  const Buffer<std::uint16_t> steps(most + kernels::kSpare);
  Index kept = 0, entries = 0;
  block.each_source(0, block.count(), block.walk().taps.size() / 2, 1, [&](bool inside, Index sample, Index pixel) {
    const Index at = sample * first.image.sample_stride + pixel * first.image.pixel_stride;
    for (Index from = 0; inside && from < channels; from += most) {
      kept += kernels::table<float>().compress_pair(std::min(most, channels - from), first.image.data + at + from,
                                                    second.image.data + at + from, values.data(), steps.data());
    }
    entries += inside ? channels : 0;
  });
  return entries == 0 ? 1 : static_cast<double>(kept) / static_cast<double>(entries);
}

// Looked up in some rows.
bool wins(const TapWork<float>& work, const Product& first, const Product& second) {
  constexpr Index kPlaces = 6, kRowsThere = 4;
  const Index rows = work.rows(), taps = static_cast<Index>(work.walk->taps.size()), panels = work.panels();
  if (rows == 0 || taps == 0 || 2 * work.columns <= kernels::table<float>().tile_cols) {
    return false;
  }
  if (lists_forced()) {
    return true;
  }
  const Index together = std::min(rows, kBlockRows), steps = std::min(work.channels, list_steps<float>());
  const double all = static_cast<double>(panels * taps);
  const double groups = static_cast<double>((panels + kernels::kListPanels - 1) / kernels::kListPanels * taps);
  double joined = 0, apart = 0;
  for (Index i = 0; i < kPlaces; ++i) {
    const Index begin = rows * (2 * i + 1) / (2 * kPlaces);
    const Block block(*work.walk, begin, std::min(begin + kRowsThere, rows));
    const LeftShares of[] = {left_shares(block, first.image, work.channels),
                             left_shares(block, second.image, work.channels)};
    for (const LeftShares& shares : of) {
      apart += std::min({1.0, pairs_cost<float>(shares.either, together, panels, taps, work.channels),
                         lists_cost<float>(shares.each, together, panels, taps, steps)});
    }
    joined += (kCompress + groups * kList / static_cast<double>(steps)) / all +
              share_of_both(block, first, second, work.channels) * entry(of[0]);
  }
  return joined < apart;
}

}  // namespace

template <>
void join_signs(TapWork<float>* work) {
  if (kernels::signs() == nullptr || work->operands.words() || forced_left_path() == LeftPath::kTiles) {
    return;
  }
  std::vector<Product> joined;
  for (const Product& product : work->products) {
    if (!joined.empty() && joined.back().negative == nullptr && fit(joined.back(), product) &&
        wins(*work, joined.back(), product)) {
      Product& both = joined.back();
      both.negative = product.image.data;
      if (product.map.read == kernels::Read::kPositive) {
        std::swap(both.image.data, both.negative);
      }
      both.map.read = kernels::Read::kPlain;
      continue;
    }
    joined.push_back(product);
  }
  work->products = std::move(joined);
}
template <>
void join_signs(TapWork<double>*) {}

template <>
void read_signs(Index steps, Index panels, const float* const* panel, std::uint16_t* signs) {
  kernels::signs()->read(steps, static_cast<int>(panels), panel, signs);
}
template <>
void read_signs(Index, Index, const double* const*, std::uint16_t*) {}

template <class T>
Index choose_signs(const Block& block, const Image<T>& image, Index channels) {
  if (lists_forced()) {
    return forced_left_path() == LeftPath::kPairs ? 2 : 1;
  }
  const LeftShares shares = left_shares(block, image, channels);
  return kPair * shares.either < kRow * shares.each ? 2 : 1;
}

template <>
Index compress_signs(Index k, const float* const* x, float* values, std::uint16_t* steps) {
  return kernels::signs()->compress_pair(k, x, values, steps);
}
template <>
Index compress_signs(Index, const double* const*, double*, std::uint16_t*) {
  return 0;
}

template <class T>
bool has_signs(const TapWork<T>& work) {
  return std::any_of(work.products.begin(), work.products.end(),
                     [](const TapProduct<T>& product) { return product.negative != nullptr; });
}
template Index choose_signs<float>(const Block&, const Image<float>&, Index);
template Index choose_signs<double>(const Block&, const Image<double>&, Index);
template bool has_signs<float>(const TapWork<float>&);
template bool has_signs<double>(const TapWork<double>&);

}  // namespace pylrp
