#include "layers/attention/segmented.hpp"

#include <utility>

#include "products/blocking.hpp"
#include "rules/kernel_args.hpp"

namespace pylrp {
namespace {

// The rows of a segment as one sample.
template <class T>
Matrix<T> as_sample(const Matrix<T>& all, Index first, Index count) {
  return all ? Matrix<T>{all.row(first), 1, (count - 1) * all.stride + all.cols, count * all.stride} : all;
}

}  // namespace

template <class T>
SegmentedAttention<T>::SegmentedAttention(Heads one_token, std::size_t segments, AddedBySegment added)
    : heads_(std::move(one_token)), segments_(segments), added_(added), of_one_(heads_, {}) {
  require_fit(heads_.queries == 1 && heads_.keys == 1 && added_.head_step >= 0, "a token of an attention");
}

template <class T>
void SegmentedAttention<T>::require_sizes(const std::vector<Index>& inputs, Index output) const {
  of_one_.require_sizes(inputs, output);
  const Index last_head = (static_cast<Index>(heads_.q.at.size()) - 1) * added_.head_step;
  require_fit(segments_ < inputs.size() && inputs[segments_] == 2 &&
                  (added_.input < 0 || (static_cast<std::size_t>(added_.input) < inputs.size() &&
                                        last_head < inputs[static_cast<std::size_t>(added_.input)])),
              "the samples of an attention");
}

// A layer for each length: where heads lie in a token is known, tokens are rows.
template <class T>
typename SegmentedAttention<T>::ByLength SegmentedAttention<T>::layers_of(const std::vector<Matrix<const T>>& inputs,
                                                                          Index out_step,
                                                                          const std::vector<Segment>& segments) const {
  ByLength layers;
  for (const Segment& segment : segments) {
    std::unique_ptr<AttentionLayer<T>>& layer = layers[segment.count];
    if (layer != nullptr) {
      continue;
    }
    Heads heads = heads_;
    heads.queries = heads.keys = segment.count;
    for (HeadMatrix* matrix : {&heads.q, &heads.k, &heads.v}) {
      matrix->row = inputs[matrix->input].stride;
    }
    heads.out.row = out_step;
    std::vector<AddedToScores<T>> added;
    if (added_.input >= 0) {
      const Matrix<const T>& from = inputs[static_cast<std::size_t>(added_.input)];
      AddedToScores<T> each;
      each.matrix.input = static_cast<std::size_t>(added_.input);
      each.matrix.row = added_.by_query ? from.stride : 0;
      each.matrix.col = added_.by_query ? 1 : from.stride;
      for (std::size_t head = 0; head < heads.q.at.size(); ++head) {
        each.matrix.at.push_back(static_cast<Index>(head) * added_.head_step);
      }
      require_fit(!added_.by_query || each.matrix.at.back() + segment.count <= from.cols, "what is added to scores");
      added.push_back(std::move(each));
    }
    layer = std::make_unique<AttentionLayer<T>>(std::move(heads), std::move(added));
  }
  return layers;
}

template <class T>
bool SegmentedAttention<T>::little(const std::vector<Segment>& segments, Index targets) const {
  Index pairs = 0;
  for (const Segment& segment : segments) {
    pairs += segment.count * segment.count;
  }
  return static_cast<double>(targets * pairs) * static_cast<double>(of_one_.products()) <
         static_cast<double>(kMinProductsForThreadsConv);
}

template <class T>
void SegmentedAttention<T>::forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
                                    const Threads& threads) const {
  const std::vector<Segment> segments = segments_of(inputs[segments_]);
  const ByLength layers = layers_of(inputs, output.stride, segments);
  const Index groups = of_one_.groups();
  parallel_for(static_cast<Index>(segments.size()) * groups, threads.alone_if(little(segments, 1)), [&](Index task) {
    const Segment& of = segments[static_cast<std::size_t>(task / groups)];
    std::vector<Matrix<const T>> own;
    for (const Matrix<const T>& input : inputs) {
      own.push_back(as_sample(input, of.first, of.count));
    }
    layers.at(of.count)->forward_of_group(own, as_sample(output, of.first, of.count), 0,
                                          static_cast<std::size_t>(task % groups));
  });
}

template <class T>
void SegmentedAttention<T>::relevance(const RelevanceJob<T>& job, const Threads& threads) const {
  const std::vector<Segment> segments = segments_of(job.inputs[segments_]);
  const ByLength layers = layers_of(job.inputs, job.relevance.stride, segments);
  for (std::size_t input = 0; input < job.results.size(); ++input) {
    const Matrix<T>& result = job.results[input];
    require_fit(!result || result.stride == job.inputs[input].stride, "the relevance of tokens");
  }
  require_fit(job.output.stride == job.relevance.stride, "the relevance of tokens");
  of_one_.clear_results(job);
  const Index groups = of_one_.groups(), count = static_cast<Index>(segments.size());
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(job.targets() * count * groups));
  parallel_for(job.targets() * count * groups, threads.alone_if(little(segments, job.targets())), [&](Index task) {
    const Segment& of = segments[static_cast<std::size_t>(task / groups % count)];
    const Index row = task / groups / count * job.batch + of.first;
    RelevanceJob<T> own;
    own.rule = job.rule;
    own.batch = 1;
    own.coefficients = job.coefficients;
    own.output = as_sample(job.output, of.first, of.count);
    own.relevance = as_sample(job.relevance, row, of.count);
    for (std::size_t input = 0; input < job.inputs.size(); ++input) {
      own.inputs.push_back(as_sample(job.inputs[input], of.first, of.count));
      own.results.push_back(as_sample(job.results[input], row, of.count));
    }
    layers.at(of.count)->relevance_of_group(own, 0, static_cast<std::size_t>(task % groups),
                                            &lost[static_cast<std::size_t>(task)]);
  });
  for (std::size_t task = 0; task < lost.size(); ++task) {
    const Index of = static_cast<Index>(task) / groups;
    add_absorbed(lost[task],
                 &job.absorbed[of / count * job.batch + segments[static_cast<std::size_t>(of % count)].first]);
  }
}

template class SegmentedAttention<float>;
template class SegmentedAttention<double>;

}  // namespace pylrp
