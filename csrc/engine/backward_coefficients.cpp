// A node's step where coefficients go from layer to layer (coefficients.hpp).
#include <algorithm>
#include <functional>

#include "base/pieces.hpp"
#include "engine/again.hpp"
#include "engine/backward.hpp"
#include "engine/coefficients.hpp"

namespace pylrp {
template <class T>
void Backward<T>::make_again(std::size_t n) {
  if (forward_.again.empty()) {
    return;
  }
  for (const std::size_t input : graph_.nodes()[n].inputs) {
    make_value(input);
  }
  make_value(graph_.inputs() + n);
}

template <class T>
void Backward<T>::make_value(std::size_t value) {
  const Again how = forward_.again[value];
  if (how == Again::kNever || forward_.values[value]) {
    return;
  }
  const GraphNode<T>& node = graph_.nodes()[value - graph_.inputs()];
  std::vector<Matrix<const T>> from;
  for (std::size_t k = 0; how == Again::kComputed && k < node.inputs.size(); ++k) {
    make_value(node.inputs[k]);
    from.push_back(forward_.values[node.inputs[k]]);
  }
  if (node.layer->is_view()) {
    forward_.values[value] = from[0];
    forward_.memory[value] = forward_.memory[node.inputs[0]];
    return;
  }
  const Index size = graph_.size(value);
  auto memory = std::make_shared<Buffer<T>>(checked_product({forward_.batch, size}, "a value"), graph_.workspace());
  const Matrix<T> made{memory->data(), forward_.batch, size, size};
  if (how == Again::kComputed) {
    node.layer->forward(from, made, {}, threads_);
    for (const std::size_t input : node.inputs) {
      if (input >= graph_.inputs()) {
        release(input, kNoValue);  // nobody else reads it: a view, where this node gets no relevance
      }
    }
  } else {
    std::size_t summand = value;
    const std::size_t reader = sum_of(graph_, &summand), of = other_summand(graph_, reader, summand);
    make_value(of);
    const Matrix<const T> other = forward_.values[of], sum = forward_.values[graph_.inputs() + reader];
    each_piece(made.rows, size, threads_, [&](Index, Index row, Index first, Index count) {
      const T* const total = sum.row(row) + first;
      std::transform(total, total + count, other.row(row) + first, made.row(row) + first, std::minus<>());
    });
  }
  forward_.values[value] = {made.data, made.rows, made.cols, made.stride};
  forward_.memory[value] = std::move(memory);
}

// Functions, where nothing gets lost, have no row in the ledger.
template <class T>
void Backward<T>::step_by_coefficients(std::size_t n) {
  const GraphNode<T>& node = graph_.nodes()[n];
  make_again(n);
  Step call;
  call.absorbed.resize(static_cast<std::size_t>(rows_));
  const Arrival arrival = liveness_.coefficients[graph_.inputs() + n] ? arrive_as_coefficients(n) : arrive(n);
  if (!liveness_.coefficients[graph_.inputs() + n]) {
    become_coefficients(n, call.absorbed.data());
  }
  std::vector<double> outgoing(static_cast<std::size_t>(rows_));
  if (node.layer->same_coefficients()) {
    hand_on_coefficients(n, &outgoing);
  } else {
    send_coefficients(n, &call);
    collect_coefficients(n, &call, &outgoing);
  }
  if (is_same(n) && arrival.is_masked) {
    std::transform(arrival.incoming.begin(), arrival.incoming.end(), arrival.masked.begin(), outgoing.begin(),
                   std::minus<>());
  }
  if (!is_same(n) || arrival.is_masked) {
    write_page(arrival.incoming, outgoing, arrival.masked, call.absorbed, page(n));
  }
  finish(n);
}

// The same as arrive(), where what arrives is c.
template <class T>
typename Backward<T>::Arrival Backward<T>::arrive_as_coefficients(std::size_t n) {
  const std::size_t value = graph_.inputs() + n;
  const Matrix<const T> values = forward_.values[value];
  Arrival arrival;
  arrival.is_masked = std::any_of(request_.masks.begin(), request_.masks.end(),
                                  [&](const ChannelMask& mask) { return mask.value == value; });
  if (!is_same(n) || arrival.is_masked) {
    arrival.incoming =
        sums_[value].empty() ? row_products(read_only(relevance_[value]), values, threads_) : sums_[value];
  }
  if (arrival.is_masked) {
    own(value);
    close(value);
    sums_[value].clear();
    arrival.masked = arrival.incoming;
    const std::vector<double> stays = row_products(read_only(relevance_[value]), values, threads_);
    std::transform(arrival.masked.begin(), arrival.masked.end(), stays.begin(), arrival.masked.begin(), std::minus<>());
  }
  if (request_.results[value]) {
    to_relevance(read_only(relevance_[value]), values, request_.results[value], threads_);
  }
  return arrival;
}

// R has arrived at a node that takes c.
template <class T>
void Backward<T>::become_coefficients(std::size_t n, kernels::Absorbed* absorbed) {
  const std::size_t value = graph_.inputs() + n;
  const Matrix<const T> relevance = read_only(relevance_[value]);
  if (memory_[value] == nullptr) {  // the caller's
    new_memory(value);
  }
  to_coefficients(relevance, forward_.values[value], relevance_[value], absorbed, threads_);
}

// The input's c is the output's: the same memory, where nothing has arrived yet.
template <class T>
void Backward<T>::hand_on_coefficients(std::size_t n, std::vector<double>* outgoing) {
  const std::size_t value = graph_.inputs() + n;
  const std::vector<std::size_t>& inputs = graph_.nodes()[n].inputs;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    const std::size_t input = inputs[k];
    if (!graph_.nodes()[n].layer->hands_to(k, plan_.rules()[n].rule)) {
      continue;
    }
    const Matrix<const T> c = read_only(relevance_[value]);
    if (!liveness_.coefficients[input]) {
      Buffer<T> extra;
      Matrix<T> part;
      if (relevance_[input]) {
        extra.reset(checked_product({rows_, graph_.size(input)}, "a relevance"), graph_.workspace());
        part = {extra.data(), rows_, graph_.size(input), graph_.size(input)};
      } else {
        make(input);
        part = relevance_[input];
      }
      to_relevance(c, forward_.values[input], part, threads_);
      arrived(n, input, part, extra.data() != nullptr, outgoing);
      continue;
    }
    std::vector<double> sent;
    if (graph_.nodes()[n].layer->is_view()) {
      sent = std::move(sums_[value]);  // the same entries
    } else if (!is_same(n)) {
      sent = row_products(c, forward_.values[input], threads_);
      std::transform(sent.begin(), sent.end(), outgoing->begin(), outgoing->begin(), std::plus<>());
    }
    if (relevance_[input]) {
      own(input);
      add(c, input);
      sent.clear();
    } else {
      relevance_[input] = relevance_[value];
      memory_[input] = memory_[value];
    }
    sums_[input] = std::move(sent);
  }
}

template <class T>
void Backward<T>::send_coefficients(std::size_t n, Step* step) {
  const GraphNode<T>& node = graph_.nodes()[n];
  const std::size_t value = graph_.inputs() + n;
  RelevanceJob<T>& job = step->job;
  step->extra.resize(node.inputs.size());
  job.coefficients = true;
  job.relevance = read_only(relevance_[value]);
  if (memory_[value].use_count() == 1) {
    job.spare = relevance_[value];
  }
  job.batch = forward_.batch;
  // Entry by entry: c of the input lies over that of the output.
  const bool in_place = node.inputs.size() == 1 && node.layer->in_place() && memory_[value].use_count() == 1;
  for (std::size_t k = 0; k < node.inputs.size(); ++k) {
    const std::size_t input = node.inputs[k];
    job.inputs.push_back(forward_.values[input]);
    if (!node.layer->hands_to(k, plan_.rules()[n].rule)) {
      job.results.push_back({});
    } else if (relevance_[input]) {
      step->extra[k].reset(checked_product({rows_, graph_.size(input)}, "a relevance"), graph_.workspace());
      job.results.push_back({step->extra[k].data(), rows_, graph_.size(input), graph_.size(input)});
    } else {
      if (in_place && liveness_.coefficients[input]) {
        relevance_[input] = relevance_[value];
        memory_[input] = memory_[value];
      } else {
        make(input);
      }
      job.results.push_back(relevance_[input]);
    }
  }
  job.rule = plan_.rules()[n].rule;
  job.prepared = plan_.prepared(n);
  job.output = forward_.values[value];
  const Matrix<T> kept = forward_.kept[n];
  job.kept = read_only(kept);
  job.absorbed = step->absorbed.data();
  node.layer->relevance(job, threads_);
}

template <class T>
void Backward<T>::collect_coefficients(std::size_t n, Step* step, std::vector<double>* outgoing) {
  const std::vector<std::size_t>& inputs = graph_.nodes()[n].inputs;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    const std::size_t input = inputs[k];
    const Matrix<T> part = step->job.results[k];
    if (!part) {
      continue;
    }
    if (!liveness_.coefficients[input]) {
      to_relevance(read_only(part), forward_.values[input], part, threads_);
      arrived(n, input, part, step->extra[k].data() != nullptr, outgoing);
      continue;
    }
    sums_[input].clear();
    if (!is_same(n)) {
      std::vector<double> sent = row_products(read_only(part), forward_.values[input], threads_);
      std::transform(sent.begin(), sent.end(), outgoing->begin(), outgoing->begin(), std::plus<>());
      if (step->extra[k].data() == nullptr) {
        sums_[input] = std::move(sent);
      }
    }
    if (step->extra[k].data() == nullptr) {
      continue;
    }
    if (memory_[input].use_count() == 1) {
      add(read_only(part), input);
    } else {  // what is there belongs to another value, too
      const Matrix<const T> there = read_only(relevance_[input]);
      const std::shared_ptr<Buffer<T>> keep = std::move(memory_[input]);
      memory_[input] = std::make_shared<Buffer<T>>(std::move(step->extra[k]));
      relevance_[input] = part;
      add(there, input);
    }
  }
}

// Its memory is no other value's from here on.
template <class T>
void Backward<T>::own(std::size_t value) {
  if (memory_[value].use_count() == 1) {
    return;
  }
  const Matrix<const T> from = read_only(relevance_[value]);
  const std::shared_ptr<Buffer<T>> keep = memory_[value];
  new_memory(value);
  for (Index i = 0; i < rows_; ++i) {
    std::copy_n(from.row(i), from.cols, relevance_[value].row(i));
  }
}

template class Backward<float>;
template class Backward<double>;

}  // namespace pylrp
