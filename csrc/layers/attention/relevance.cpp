// Relevance of attention: the probabilities are computed again, block by block of queries.
#include <algorithm>

#include "layers/attention/attention.hpp"
#include "layers/attention/blocks.hpp"
#include "products/blocking.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {

// What the output has taken, c = R / C, or what arrives; the values' sum grows by p^T c.
template <class T>
void AttentionLayer<T>::to_values(const RelevanceJob<T>& job, Index row, const ScoreBlock<T>& block,
                                  SumsOverQueries<T>* sums) const {
  const Index begin = of_.out.at[block.head] + block.first * of_.out.row;
  const bool to_values_only = treatment_of(job.rule) == Treatment::kValueRight;
  const T factor = to_values_only ? T(1) : T(0.5);
  const T* const r = job.relevance.row(row) + begin;
  const T* const c = job.output.row(row % job.batch) + begin;
  Stabilizer<T> exact(nullptr);
  exact.epsilon = T(0);
  std::fill_n(sums->of_row, block.rows, 0.0);
  const auto each = [&](auto body) {
    each_entry(block.rows, of_.value_width, of_.out.row, of_.out.col, [&](Index i, Index j) {
      const Index k = i * of_.value_width + j;
      const T q = body(i, i * of_.out.row + j * of_.out.col);
      sums->relevance.data()[k] = q;
      sums->scaled.data()[k] = q * block.share[i];
    });
  };
  if (job.coefficients && to_values_only) {
    each([&](Index, Index at) { return r[at]; });
  } else {
    each([&](Index i, Index at) {
      const T q = factor * (job.coefficients ? r[at] : exact.share(r[at], c[at], &sums->lost));
      sums->of_row[i] += static_cast<double>(q) * static_cast<double>(c[at]);
      return q;
    });
  }
  sums->values.add({block.powers.data(), block.rows, of_.keys, block.stride},
                   {block.open.first, block.keys_end(of_.keys)},
                   {sums->scaled.data(), block.rows, of_.value_width, of_.value_width});
}

// c_P = c v^T and c_S = p (c_P - sum p c_P); what is added to the scores takes m c_S.
template <class T>
void AttentionLayer<T>::to_scores(const KeysAndValues<T>& group, const ScoreBlock<T>& block, MasksOfHead<T>* masks,
                                  SumsOverQueries<T>* sums) const {
  group.values_back.multiply(sums->relevance.data(), of_.value_width, block.rows, block.panels(), {0, of_.value_width},
                             sums->coefficients.data(), block.stride);
  for (Index i = 0; i < block.rows; ++i) {
    const Open open = block.of_row[i];
    const Index at = i * block.stride + open.first;
    T* const c = sums->coefficients.data() + at;
    double by_scores = 0, by_added = 0;
    if (open.count() > 0) {
      const T* const s = block.scores.data() + at;
      kernels::table<T>().taylor_of_scores({.n = open.count(),
                                            .scores = s,
                                            .added = masks->row(block.first + i, open),
                                            .powers = block.powers.data() + at,
                                            .share = block.share[i],
                                            .all = static_cast<T>(sums->of_row[i]),
                                            .c = c,
                                            .by_scores = &by_scores,
                                            .by_added = &by_added});
      for (Index j = 0; of_.cap != 0 && j < open.count(); ++j) {  // relevance passes the cap unchanged
        c[j] *= s[j] == 0 ? T(0) : s[j] / block.before_cap.data()[at + j];
      }
    }
    block.close_rest(i, sums->coefficients.data() + i * block.stride);
    sums->lost.softmax += sums->of_row[i] - by_scores;
    sums->lost.constant += by_added;
  }
}

// Half of the scores' relevance to the queries; the keys' sum grows by c^T q.
template <class T>
void AttentionLayer<T>::to_queries(const RelevanceJob<T>& job, Index row, const KeysAndValues<T>& group,
                                   const ScoreBlock<T>& block, SumsOverQueries<T>* sums) const {
  const Range keys{block.open.first, block.keys_end(of_.keys)};
  sums->keys.add({sums->coefficients.data(), block.rows, of_.keys, block.stride}, keys,
                 {block.queries.data(), block.rows, of_.width, of_.width});
  const Index stride = padded_to_panels<T>(of_.width), at = of_.q.at[block.head] + block.first * of_.q.row;
  group.keys_back.multiply(sums->coefficients.data(), block.stride, block.rows, group.keys_back.all(), keys,
                           sums->to_queries.data(), stride);
  const T* const queries = job.inputs[of_.q.input].row(row % job.batch) + at;
  hand_on(job.coefficients ? nullptr : queries, Matrix<const T>{sums->to_queries.data(), block.rows, of_.width, stride},
          of_.q.row, of_.q.col, static_cast<T>(of_.scale / 2), job.results[of_.q.input].row(row) + at);
}

template <class T>
void AttentionLayer<T>::relevance_of_group(const RelevanceJob<T>& job, Index row, std::size_t number,
                                           kernels::Absorbed* lost) const {
  const std::vector<std::size_t>& heads = groups_[number];
  const Treatment treatment = treatment_of(job.rule);
  const bool taylor = treatment == Treatment::kTaylor;
  const std::vector<const T*> inputs = rows_of(job.inputs, row % job.batch);
  const T* const key = inputs[of_.k.input] + of_.k.at[heads[0]];
  const T* const value = inputs[of_.v.input] + of_.v.at[heads[0]];
  const KeysAndValues<T> group(of_, key, value, false, taylor);
  ScoreBlock<T> block(of_);
  SumsOverQueries<T> sums(of_, taylor);
  for (const std::size_t head : heads) {
    block.head = head;
    MasksOfHead<T> masks(masks_, inputs, head);
    for (block.first = 0; block.first < of_.queries; block.first += kQueriesAtOnce) {
      block.rows = std::min(kQueriesAtOnce, of_.queries - block.first);
      score(group, inputs[of_.q.input] + of_.q.at[head], &block, &masks);
      to_values(job, row, block, &sums);
      if (taylor) {
        to_scores(group, block, &masks, &sums);
        to_queries(job, row, group, block, &sums);
      }
      for (Index i = 0; treatment == Treatment::kStop && i < block.rows; ++i) {
        sums.lost.softmax += sums.of_row[i];
      }
    }
  }
  const auto hand_on_sums = [&](const HeadMatrix& to, const T* from, const ColumnSums<T>& of, T factor) {
    T* const result = job.results[to.input].row(row) + to.at[heads[0]];
    of.each_panel([&](Index first, const Matrix<const T>& part) {
      hand_on(job.coefficients ? nullptr : from + first * to.col, part, to.row, to.col, factor,
              result + first * to.col);
    });
  };
  hand_on_sums(of_.v, value, sums.values, T(1));
  if (taylor) {
    hand_on_sums(of_.k, key, sums.keys, T(0.5));
  }
  *lost = sums.lost;
}

template <class T>
void AttentionLayer<T>::clear_results(const RelevanceJob<T>& job) const {
  const bool taylor = treatment_of(job.rule) == Treatment::kTaylor;
  for (std::size_t input = 0; input < job.results.size(); ++input) {
    const Matrix<T>& result = job.results[input];
    for (Index i = 0; result && !(taylor && of_.covered[input]) && i < result.rows; ++i) {
      std::fill_n(result.row(i), result.cols, T(0));
    }
  }
}

// A task takes all heads that share keys and values, so that no sum crosses tasks.
template <class T>
void AttentionLayer<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  clear_results(job);
  const Index groups = static_cast<Index>(groups_.size());
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.relevance.rows * groups));
  const bool little = job.relevance.rows * products() < kMinProductsForThreadsConv;
  parallel_for(job.relevance.rows * groups, threads.alone_if(little), [&](Index task) {
    relevance_of_group(job, task / groups, static_cast<std::size_t>(task % groups),
                       &lost[static_cast<std::size_t>(task)]);
  });
  add_absorbed(lost, groups, job.absorbed);
}

template class AttentionLayer<float>;
template class AttentionLayer<double>;

}  // namespace pylrp
