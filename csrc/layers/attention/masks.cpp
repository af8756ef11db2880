#include "layers/attention/masks.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace pylrp {
namespace {

template <class T>
bool closes(T added) {
  return added >= std::numeric_limits<T>::max();
}

template <class T>
Open open_in(const T* row, Index col, Index keys) {
  Open open{0, keys};
  while (open.first < open.last && closes(row[open.first * col])) {
    ++open.first;
  }
  while (open.last > open.first && closes(row[(open.last - 1) * col])) {
    --open.last;
  }
  return open;
}

Open both(const Open& one, const Open& other) {
  const Index first = std::max(one.first, other.first);
  return {first, std::max(first, std::min(one.last, other.last))};
}

template <class T>
bool is_zero(const T* row, Index col, const Open& open) {
  for (Index j = open.first; j < open.last; ++j) {
    if (row[j * col] != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

template <class T>
Masks<T>::Masks(std::vector<AddedToScores<T>> added, Index queries, Index keys)
    : added_(std::move(added)), keys_(keys), open_(static_cast<std::size_t>(queries), Open{0, keys}) {
  for (std::size_t number = 0; number < added_.size(); ++number) {
    only_closes_.push_back(false);
    if (!added_[number].is_input) {
      find_open(number);
    }
    if (only_closes_[number]) {
      std::vector<T>().swap(added_[number].constant);
    }
  }
}

template <class T>
void Masks<T>::find_open(std::size_t number) {
  const AddedToScores<T>& each = added_[number];
  std::vector<Index> starts = each.matrix.at;
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  bool only_closes = starts.size() == 1;
  for (std::size_t i = 0; i < open_.size(); ++i) {
    Open whole{keys_, 0};
    for (const Index start : starts) {
      const T* const row = each.constant.data() + start + static_cast<Index>(i) * each.matrix.row;
      const Open open = open_in(row, each.matrix.col, keys_);
      whole = {std::min(whole.first, open.first), std::max(whole.last, open.last)};
    }
    open_[i] = both(open_[i], whole);
    const T* const row = each.constant.data() + starts[0] + static_cast<Index>(i) * each.matrix.row;
    only_closes = only_closes && is_zero(row, each.matrix.col, open_[i]);
  }
  only_closes_[number] = only_closes;
}

template <class T>
MasksOfHead<T>::MasksOfHead(const Masks<T>& masks, const std::vector<const T*>& inputs, std::size_t head)
    : masks_(masks), open_{0, masks.keys_} {
  for (std::size_t number = 0; number < masks.added_.size(); ++number) {
    const AddedToScores<T>& each = masks.added_[number];
    const HeadMatrix& matrix = each.matrix;
    if (masks.only_closes_[number]) {
      continue;
    }
    const T* const from = (each.is_input ? inputs[matrix.input] : each.constant.data()) + matrix.at[head];
    if (matrix.row == 0 && each.is_input) {  // padding: the same for all queries, mostly nothing but closed places
      const Open open = open_in(from, matrix.col, masks.keys_);
      open_ = both(open_, open);
      if (is_zero(from, matrix.col, open)) {
        continue;
      }
    }
    sources_.push_back({from, matrix.row, matrix.col, each.is_input});
  }
  memory_.resize(sources_.empty() ? 0 : static_cast<std::size_t>(masks.keys_));
}

template <class T>
Open MasksOfHead<T>::open(Index query) const {
  Open open = both(masks_.open_[static_cast<std::size_t>(query)], open_);
  for (const Source& source : sources_) {
    if (source.is_input && source.row != 0) {
      open = both(open, open_in(source.from + query * source.row, source.col, masks_.keys_));
    }
  }
  return open;
}

template <class T>
const T* MasksOfHead<T>::row(Index query, const Open& open) {
  if (sources_.empty()) {
    return nullptr;
  }
  if (sources_.size() == 1 && sources_[0].col == 1) {
    return sources_[0].from + query * sources_[0].row + open.first;
  }
  std::fill(memory_.begin(), memory_.end(), T(0));
  for (const Source& source : sources_) {
    const T* const from = source.from + query * source.row + open.first * source.col;
    for (Index j = 0; j < open.count(); ++j) {
      T& sum = memory_[static_cast<std::size_t>(j)];
      const T added = from[j * source.col];
      sum = closes(sum) || closes(added) ? std::numeric_limits<T>::max() : sum + added;
    }
  }
  return memory_.data();
}

template class Masks<float>;
template class Masks<double>;
template class MasksOfHead<float>;
template class MasksOfHead<double>;

}  // namespace pylrp
