#include "engine/backward.hpp"

#include <algorithm>
#include <functional>

#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

template <class T>
void add_to(Matrix<const T> part, Matrix<T> total, const Threads& threads) {
  each_piece(part.rows, part.cols, threads, [&](Index, Index row, Index first, Index count) {
    kernels::Mixed<T> once{};
    once.count = 1;
    once.acc[0] = part.row(row) + first;
    once.mix[0].one = 1;
    kernels::table<T>().accumulate({.rows = 1,
                                    .cols = count,
                                    .mixed = once,
                                    .acc_stride = count,
                                    .a = nullptr,
                                    .a_stride = 0,
                                    .low = nullptr,
                                    .high = nullptr,
                                    .bound_stride = 0,
                                    .add = true,
                                    .out = total.row(row) + first,
                                    .out_stride = count});
  });
}

template <class T>
void copy(Matrix<const T> from, Matrix<T> to, const Threads& threads) {
  each_piece(from.rows, from.cols, threads, [&](Index, Index row, Index first, Index count) {
    std::copy_n(from.row(row) + first, count, to.row(row) + first);
  });
}

// Ends at the first piece with a negative entry.
template <class T>
bool has_no_negative(Matrix<const T> values) {
  for (Index i = 0; i < values.rows; ++i) {
    for (Index first = 0; first < values.cols; first += kPiece) {
      if (kernels::table<T>().scan(std::min(kPiece, values.cols - first), values.row(i) + first) &
          kernels::kHasNegative) {
        return false;
      }
    }
  }
  return true;
}

template <class T>
void close_channels(const ChannelMask& mask, Matrix<T> relevance) {
  const Index channels = mask.samples == 0 ? 0 : static_cast<Index>(mask.channels.size()) / mask.samples;
  for (Index i = 0; i < relevance.rows; ++i) {
    const Index first = i % mask.samples * channels;
    for (Index j = 0; j < relevance.cols; ++j) {
      if (!mask.channels[static_cast<std::size_t>(first + j / mask.step % channels)]) {
        relevance.row(i)[j] = T(0);
      }
    }
  }
}

}  // namespace

template <class T>
Backward<T>::Backward(const Plan<T>& plan, ForwardValues<T>* forward, const RelevanceRequest<T>& request,
                      const Threads& threads)
    : plan_(plan),
      graph_(plan.graph()),
      forward_(*forward),
      request_(request),
      threads_{threads.count, threads.poll, plan.graph().workspace(), threads.bfloat16},
      liveness_(plan, request.start),
      rows_(request.top.rows),
      relevance_(graph_.values()),
      memory_(graph_.values()),
      nonnegative_(graph_.values(), -1),
      sums_(graph_.values()) {}

template <class T>
void Backward<T>::run() {
  const Home home(graph_.workspace());
  make(request_.start);
  copy(request_.top, relevance_[request_.start], threads_);
  std::fill_n(request_.ledger, static_cast<Index>(graph_.nodes().size()) * kLedgerColumns * rows_, 0.0);
  for (std::size_t n = request_.start < graph_.inputs() ? 0 : request_.start - graph_.inputs() + 1; n-- > 0;) {
    if (relevance_[graph_.inputs() + n]) {
      compute_again(n);
      step(n);
    }
  }
  for (std::size_t value = 0; value < graph_.values(); ++value) {  // where nothing arrived
    const Matrix<T> result = request_.results[value];
    if (result && !relevance_[value]) {
      for (Index i = 0; i < rows_; ++i) {
        std::fill_n(result.row(i), result.cols, T(0));
      }
    }
  }
}

// What relevance reads from this node down to the next checkpoint, where the forward pass has not kept it.
template <class T>
void Backward<T>::compute_again(std::size_t n) {
  while (!forward_.cuts.empty() && n <= forward_.cuts.back()) {
    const std::size_t last = forward_.cuts.back() + 1;
    forward_.cuts.pop_back();
    const std::size_t first = forward_.cuts.empty() ? 0 : forward_.cuts.back() + 1;
    if (first <= n) {
      graph_.compute_again(first, last, {request_.start, liveness_.kept, liveness_.entries}, threads_, &forward_);
    }
  }
}

template <class T>
void Backward<T>::step(std::size_t n) {
  if (liveness_.by_coefficients[n]) {
    step_by_coefficients(n);
    return;
  }
  const Arrival arrival = arrive(n);
  if (is_same(n) && arrival.is_masked) {
    std::vector<double> stays = arrival.incoming;
    std::transform(stays.begin(), stays.end(), arrival.masked.begin(), stays.begin(), std::minus<>());
    write_page(arrival.incoming, stays, arrival.masked, std::vector<kernels::Absorbed>(static_cast<std::size_t>(rows_)),
               page(n));
  }
  if (is_same(n) && hand_on(n, arrival.is_masked)) {
    release(graph_.nodes()[n].inputs[0], n);
    return;
  }
  Step call = prepare(n);
  call_layer(n, &call);
  const std::vector<double> outgoing = collect(n, call);
  if (!is_same(n)) {
    write_page(arrival.incoming, outgoing, arrival.masked, call.absorbed, page(n));
  }
  finish(n);
}

// Frees what only this node has read.
template <class T>
void Backward<T>::finish(std::size_t n) {
  memory_[graph_.inputs() + n] = nullptr;
  forward_.kept[n] = {};
  forward_.kept_memory[n] = Buffer<T>();
  for (const std::size_t input : graph_.nodes()[n].inputs) {
    release(input, n);
  }
  release(liveness_.output[n], n);
}

template <class T>
typename Backward<T>::Arrival Backward<T>::arrive(std::size_t n) {
  const std::size_t value = graph_.inputs() + n;
  Arrival arrival;
  arrival.is_masked = std::any_of(request_.masks.begin(), request_.masks.end(),
                                  [&](const ChannelMask& mask) { return mask.value == value; });
  if (!is_same(n) || arrival.is_masked) {
    arrival.incoming = sums_[value].empty() ? row_sums(read_only(relevance_[value]), threads_) : sums_[value];
  }
  if (arrival.is_masked) {
    close(value);
    const std::vector<double> stays = row_sums(read_only(relevance_[value]), threads_);
    arrival.masked = arrival.incoming;
    std::transform(arrival.masked.begin(), arrival.masked.end(), stays.begin(), arrival.masked.begin(), std::minus<>());
  }
  return arrival;
}

template <class T>
void Backward<T>::close(std::size_t value) {
  for (const ChannelMask& mask : request_.masks) {
    if (mask.value == value) {
      close_channels(mask, relevance_[value]);
    }
  }
}

template <class T>
bool Backward<T>::hand_on(std::size_t n, bool is_masked) {
  const std::size_t value = graph_.inputs() + n, input = graph_.nodes()[n].inputs[0];
  if (relevance_[input]) {  // another reader was here
    add_to(read_only(relevance_[value]), relevance_[input], threads_);
    sums_[input].clear();
    memory_[value] = nullptr;
    return true;
  }
  if (request_.results[input] || request_.results[value]) {
    return false;
  }
  relevance_[input] = relevance_[value];
  memory_[input] = std::move(memory_[value]);
  if (!is_masked) {
    sums_[input] = std::move(sums_[value]);
  }
  relevance_[value] = {};
  return true;
}

template <class T>
typename Backward<T>::Step Backward<T>::prepare(std::size_t n) {
  const GraphNode<T>& node = graph_.nodes()[n];
  const std::size_t value = graph_.inputs() + n;
  const bool in_place = !plan_.rules()[n].is_identity() && node.layer->relevance_in_place();
  Step step;
  step.extra.resize(node.inputs.size());
  step.absorbed.resize(static_cast<std::size_t>(rows_));
  step.job.relevance = read_only(relevance_[value]);
  if (memory_[value] != nullptr) {
    step.job.spare = relevance_[value];
  }
  step.job.batch = forward_.batch;
  for (std::size_t k = 0; k < node.inputs.size(); ++k) {
    const std::size_t input = node.inputs[k];
    step.job.inputs.push_back(forward_.values[input]);
    if (!node.layer->hands_to(k, plan_.rules()[n].rule)) {
      step.job.results.push_back({});
      continue;
    }
    if (relevance_[input]) {  // another reader was here, or this one reads it twice
      step.extra[k].reset(checked_product({rows_, graph_.size(input)}, "a relevance"), graph_.workspace());
      step.job.results.push_back({step.extra[k].data(), rows_, graph_.size(input), graph_.size(input)});
      continue;
    }
    if (in_place && liveness_.may_replace(forward_, request_, input, n)) {
      memory_[input] = std::move(forward_.memory[input]);
      relevance_[input] = {memory_[input]->data(), rows_, graph_.size(input), graph_.size(input)};
    } else {
      make(input);
    }
    step.job.results.push_back(relevance_[input]);
  }
  return step;
}

template <class T>
void Backward<T>::call_layer(std::size_t n, Step* step) {
  const GraphNode<T>& node = graph_.nodes()[n];
  const NodeRule<T>& rule = plan_.rules()[n];
  RelevanceJob<T>& job = step->job;
  if (is_same(n) || rule.is_identity()) {
    copy(job.relevance, job.results[0], threads_);
    return;
  }
  job.rule = rule.rule;
  job.bounds = rule.bounds;
  job.prepared = plan_.prepared(n);
  job.output_positive = liveness_.output_positive[n];
  job.output = liveness_.output[n] == kNoValue ? Matrix<const T>{} : forward_.values[liveness_.output[n]];
  const Matrix<T> kept = forward_.kept[n];
  job.kept = read_only(kept);
  job.absorbed = step->absorbed.data();
  if (node.layer->flow() == Flow::kRule && job.inputs[0]) {
    job.input_nonnegative = is_nonnegative(node.inputs[0], job.inputs[0]);
  }
  node.layer->relevance(job, threads_);
}

template <class T>
std::vector<double> Backward<T>::collect(std::size_t n, const Step& step) {
  const GraphNode<T>& node = graph_.nodes()[n];
  std::vector<double> outgoing(static_cast<std::size_t>(rows_));
  for (std::size_t k = 0; k < node.inputs.size(); ++k) {
    const std::size_t input = node.inputs[k];
    if (!step.job.results[k]) {
      continue;
    }
    arrived(n, input, step.job.results[k], step.extra[k].data() != nullptr, &outgoing);
  }
  return outgoing;
}

template <class T>
void Backward<T>::arrived(std::size_t n, std::size_t input, Matrix<T> part, bool is_extra,
                          std::vector<double>* outgoing) {
  if (!is_same(n)) {
    std::vector<double> sent = row_sums(read_only(part), threads_);
    std::transform(sent.begin(), sent.end(), outgoing->begin(), outgoing->begin(), std::plus<>());
    sums_[input] = std::move(sent);
  }
  if (is_extra) {
    add(read_only(part), input);
    sums_[input].clear();
  }
}

template <class T>
void Backward<T>::add(Matrix<const T> part, std::size_t value) {
  add_to(part, relevance_[value], threads_);
}

template <class T>
void Backward<T>::make(std::size_t value) {
  relevance_[value] = request_.results[value];
  if (!relevance_[value] || liveness_.coefficients[value]) {  // the caller wants R
    new_memory(value);
  }
}

template <class T>
void Backward<T>::new_memory(std::size_t value) {
  memory_[value] =
      std::make_shared<Buffer<T>>(checked_product({rows_, graph_.size(value)}, "a relevance"), graph_.workspace());
  relevance_[value] = {memory_[value]->data(), rows_, graph_.size(value), graph_.size(value)};
}

template <class T>
void Backward<T>::release(std::size_t value, std::size_t n) {
  if (value != kNoValue && liveness_.last_reader[value] == n && !forward_.wanted[value]) {
    forward_.values[value] = {};
    forward_.memory[value] = nullptr;
  }
}

template <class T>
bool Backward<T>::is_nonnegative(std::size_t value, Matrix<const T> values) {
  if (nonnegative_[value] < 0) {
    nonnegative_[value] = graph_.nonnegative(value) || has_no_negative(values) ? 1 : 0;
  }
  return nonnegative_[value] == 1;
}

template <class T>
double* Backward<T>::page(std::size_t node) const {
  return request_.ledger + static_cast<Index>(node) * kLedgerColumns * rows_;
}

template class Backward<float>;
template class Backward<double>;

}  // namespace pylrp
