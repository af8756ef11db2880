#include "layers/attention/attention.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "layers/attention/blocks.hpp"
#include "products/blocking.hpp"

namespace pylrp {
namespace {

Index reach(const HeadMatrix& matrix, Index rows, Index cols) {
  return *std::max_element(matrix.at.begin(), matrix.at.end()) + checked_product({rows - 1, matrix.row}, "a head") +
         checked_product({cols - 1, matrix.col}, "a head");
}

// Heads, by the keys that they share.
std::vector<std::vector<std::size_t>> grouped(const HeadMatrix& keys, const HeadMatrix& values) {
  std::vector<std::vector<std::size_t>> groups;
  std::map<Index, std::size_t> by_keys;
  for (std::size_t head = 0; head < keys.at.size(); ++head) {
    const auto [found, is_new] = by_keys.insert({keys.at[head], groups.size()});
    if (is_new) {
      groups.emplace_back();
    }
    groups[found->second].push_back(head);
    require_fit(values.at[groups[found->second][0]] == values.at[head], "the heads that share keys");
  }
  return groups;
}

// Throws Error where an offset or a step is no place in memory.
void require_places(const Heads& of, const std::vector<const HeadMatrix*>& matrices) {
  const std::size_t heads = of.q.at.size();
  bool fit = heads > 0 && std::min({of.queries, of.keys, of.width, of.value_width}) > 0;
  for (const HeadMatrix* matrix : matrices) {
    fit = fit && matrix->at.size() == heads && std::min(matrix->row, matrix->col) >= 0 &&
          std::max(matrix->row, matrix->col) <= kMostEntries;
    for (const Index at : matrix->at) {
      fit = fit && at >= 0 && at <= kMostEntries;
    }
  }
  require_fit(fit, "the heads of an attention");
  checked_product({static_cast<Index>(heads), std::max(of.queries, of.keys), std::max(of.width, of.value_width)},
                  "the heads of an attention");
  checked_product({of.queries, of.keys}, "the scores of an attention");
}

}  // namespace

template <class T>
AttentionLayer<T>::AttentionLayer(Heads heads, std::vector<AddedToScores<T>> added) : of_(std::move(heads)) {
  std::vector<const HeadMatrix*> matrices{&of_.q, &of_.k, &of_.v, &of_.out};
  for (const AddedToScores<T>& each : added) {
    matrices.push_back(&each.matrix);
  }
  require_places(of_, matrices);
  for (const AddedToScores<T>& each : added) {
    const Index size = static_cast<Index>(each.constant.size());
    require_fit(each.is_input || reach(each.matrix, of_.queries, of_.keys) < size, "what is added to scores");
  }
  groups_ = grouped(of_.k, of_.v);
  masks_ = Masks<T>(std::move(added), of_.queries, of_.keys);
}

template <class T>
void AttentionLayer<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  const auto within = [&](const HeadMatrix& matrix, Index rows, Index cols) {
    return matrix.input < inputs.size() && reach(matrix, rows, cols) < inputs[matrix.input];
  };
  const Index heads = static_cast<Index>(of_.q.at.size());
  bool fit = within(of_.q, of_.queries, of_.width) && within(of_.k, of_.keys, of_.width) &&
             within(of_.v, of_.keys, of_.value_width) && reach(of_.out, of_.queries, of_.value_width) < output &&
             of_.covered.size() == inputs.size() && heads * of_.queries * of_.value_width == output;
  for (const AddedToScores<T>& each : masks_.added()) {
    fit = fit && (!each.is_input || within(each.matrix, of_.queries, of_.keys));
  }
  require_fit(fit, "an attention and its inputs");
}

template <class T>
Index AttentionLayer<T>::products() const {
  return bounded_product({static_cast<Index>(of_.q.at.size()), of_.queries, of_.keys, of_.width + of_.value_width});
}

template <class T>
bool AttentionLayer<T>::hands_to(std::size_t input, const CompiledRule* rule) const {
  const bool to_scores = treatment_of(rule) == Treatment::kTaylor;
  return input == of_.v.input || (to_scores && (input == of_.q.input || input == of_.k.input));
}

// queries: the head's. Fills the block but for what says which it is.
template <class T>
void AttentionLayer<T>::score(const KeysAndValues<T>& group, const T* queries, ScoreBlock<T>* block,
                              MasksOfHead<T>* masks) const {
  const kernels::Table<T>& kernel = kernels::table<T>();
  gather(queries + block->first * of_.q.row, block->rows, of_.width, of_.q.row, of_.q.col, static_cast<T>(of_.scale),
         block->queries.data());
  Range all{of_.keys, 0};
  for (Index i = 0; i < block->rows; ++i) {
    const Open open = block->of_row[i] = masks->open(block->first + i);
    all = open.count() > 0 ? Range{std::min(all.first, open.first), std::max(all.last, open.last)} : all;
  }
  const Index width = panel_width<T>();
  block->open = all.first < all.last ? Range{all.first / width * width, padded_to_panels<T>(all.last)} : Range{0, 0};
  group.keys.multiply(block->queries.data(), of_.width, block->rows, block->panels(), {0, of_.width},
                      block->scores.data(), block->stride);
  for (Index i = 0; i < block->rows; ++i) {
    const Open open = block->of_row[i];
    T* const s = block->scores.data() + i * block->stride + open.first;
    T* const row = block->powers.data() + i * block->stride;
    if (of_.cap != 0) {
      const T cap = static_cast<T>(of_.cap);
      std::copy_n(s, open.count(), block->before_cap.data() + i * block->stride + open.first);
      std::transform(s, s + open.count(), s, [&](T x) { return x / cap; });
      kernel.function(kernels::Function::kTanh, open.count(), s, s);
      std::transform(s, s + open.count(), s, [&](T x) { return x * cap; });
    }
    T sum = 0;
    if (open.count() > 0) {
      const T* const added = masks->row(block->first + i, open);
      const T most = kernel.masked_scores(open.count(), s, added, row + open.first);
      sum = kernel.powers(open.count(), most, row + open.first);
    }
    block->close_rest(i, row);
    block->share[i] = sum == 0 ? T(0) : 1 / sum;
  }
}

template <class T>
void AttentionLayer<T>::forward_of_group(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, Index sample,
                                         std::size_t number) const {
  const std::vector<std::size_t>& heads = groups_[number];
  const std::vector<const T*> rows = rows_of(inputs, sample);
  const T* const key = rows[of_.k.input] + of_.k.at[heads[0]];
  const T* const value = rows[of_.v.input] + of_.v.at[heads[0]];
  const KeysAndValues<T> group(of_, key, value, true, false);
  ScoreBlock<T> block(of_);
  const Index stride = padded_to_panels<T>(of_.value_width);
  const Buffer<T> made(kQueriesAtOnce * stride);
  for (const std::size_t head : heads) {
    MasksOfHead<T> masks(masks_, rows, head);
    for (block.first = 0; block.first < of_.queries; block.first += kQueriesAtOnce) {
      block.rows = std::min(kQueriesAtOnce, of_.queries - block.first);
      score(group, rows[of_.q.input] + of_.q.at[head], &block, &masks);
      group.values.multiply(block.powers.data(), block.stride, block.rows, group.values.all(),
                            {block.open.first, block.keys_end(of_.keys)}, made.data(), stride);
      T* const out = output.row(sample) + of_.out.at[head] + block.first * of_.out.row;
      each_entry(block.rows, of_.value_width, of_.out.row, of_.out.col, [&](Index i, Index j) {
        out[i * of_.out.row + j * of_.out.col] = block.share[i] * made.data()[i * stride + j];
      });
    }
  }
}

template <class T>
void AttentionLayer<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                                const Threads& threads) const {
  const Index groups = static_cast<Index>(groups_.size());
  parallel_for(
      output.rows * groups, threads.alone_if(output.rows * products() < kMinProductsForThreadsConv),
      [&](Index task) { forward_of_group(inputs, output, task / groups, static_cast<std::size_t>(task % groups)); });
}

template class AttentionLayer<float>;
template class AttentionLayer<double>;

}  // namespace pylrp
