#include "engine/graph.hpp"

#include <algorithm>
#include <map>

#include "base/error.hpp"
#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp {
namespace {

template <class T>
Matrix<const T> read_only(Matrix<T> m) {
  return {m.data, m.rows, m.cols, m.stride};
}

template <class T>
void add_to(Matrix<const T> part, Matrix<T> total, const Threads& threads) {
  each_piece(part.rows, part.cols, threads, [&](Index, Index row, Index first, Index count) {
    const T* const from = part.row(row) + first;
    T* const to = total.row(row) + first;
    for (Index j = 0; j < count; ++j) {
      to[j] += from[j];
    }
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
bool is_nonnegative(Matrix<const T> values) {
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

}  // namespace

template <class T>
Graph<T>::Graph(std::vector<Index> inputs, std::vector<GraphNode<T>> nodes)
    : inputs_(std::move(inputs)),
      nodes_(std::move(nodes)),
      readers_(inputs_.size() + nodes_.size()),
      nonnegative_(inputs_.size() + nodes_.size()) {
  for (const Index size : inputs_) {
    checked_product({size, Index{sizeof(T)}}, "an input");
  }
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    std::vector<Index> sizes;
    for (const std::size_t value : nodes_[n].inputs) {
      sizes.push_back(size(value));
    }
    try {
      checked_product({nodes_[n].size, Index{sizeof(T)}}, "a value");
      nodes_[n].layer->require_sizes(sizes, nodes_[n].size);
    } catch (const Error& error) {
      throw NodeError(n, error.what());
    }
    bool all = true;
    for (const std::size_t value : nodes_[n].inputs) {
      readers_[value].push_back(n);
      all = all && nonnegative_[value];
    }
    const Layer<T>& layer = *nodes_[n].layer;
    work_ = std::min(kMostEntries, work_ + layer.products() + 16 * nodes_[n].size);
    nonnegative_[inputs_.size() + n] = layer.makes_nonnegative() || (all && layer.keeps_nonnegative());
  }
}

template <class T>
Index Graph<T>::size(std::size_t value) const {
  return value < inputs() ? inputs_[value] : nodes_[value - inputs()].size;
}

template <class T>
Plan<T>::Plan(const Graph<T>& graph, std::vector<NodeRule> rules, const Threads& threads)
    : graph_(graph), rules_(std::move(rules)), prepared_(graph.nodes().size()) {
  for (std::size_t n = 0; n < rules_.size(); ++n) {
    if (rules_[n].rule != nullptr && !passes(n)) {
      prepared_[n] = graph_.nodes()[n].layer->prepare(*rules_[n].rule, rules_[n].bounds, threads);
    }
  }
}

template <class T>
bool Plan<T>::passes(std::size_t node) const {
  return rules_[node].rule != nullptr && rules_[node].rule->passes();
}

// What a start makes of nodes and values.
template <class T>
struct Plan<T>::Roles {
  std::vector<bool> on_way;           // values that relevance reaches
  std::vector<bool> kept;             // values that relevance() reads
  std::vector<bool> vanishes;         // no relevance where the value is 0
  std::vector<bool> output_positive;  // of nodes: the output is > 0 wherever there is relevance
  std::vector<std::size_t> output;    // of nodes: the value that stands for the output, or kNoValue
};

template <class T>
typename Plan<T>::Roles Plan<T>::roles(std::size_t start) const {
  const std::size_t inputs = graph_.inputs(), nodes = graph_.nodes().size();
  Roles roles;
  for (std::vector<bool>* bits : {&roles.on_way, &roles.kept, &roles.vanishes}) {
    bits->assign(graph_.values(), false);
  }
  roles.output_positive.assign(nodes, false);
  roles.output.assign(nodes, kNoValue);
  if (start == kNoValue) {
    return roles;
  }
  roles.on_way[start] = true;
  for (std::size_t n = start < inputs ? 0 : start - inputs + 1; n-- > 0;) {
    if (roles.on_way[inputs + n]) {
      for (const std::size_t value : graph_.nodes()[n].inputs) {
        roles.on_way[value] = true;
      }
    }
  }
  // From the top down, since a value's readers come behind it.
  for (std::size_t value = graph_.values(); value-- > 0;) {
    if (!roles.on_way[value]) {
      continue;
    }
    bool vanishes = value != start;
    for (const std::size_t n : graph_.readers(value)) {
      if (!roles.on_way[inputs + n]) {
        continue;
      }
      const Layer<T>& layer = *graph_.nodes()[n].layer;
      const Flow flow = layer.flow_under(rules_[n].rule);
      if (flow == Flow::kRule) {
        vanishes = vanishes && rules_[n].rule->any().vanishes_with_input();
      } else if (flow == Flow::kThrough) {
        vanishes = vanishes && !passes(n) && roles.vanishes[inputs + n];
      } else if (flow == Flow::kSame) {
        vanishes = vanishes && layer.keeps_zero() && roles.vanishes[inputs + n];
      } else {
        vanishes = vanishes && flow == Flow::kOwn && !passes(n);
      }
      const bool reads = flow != Flow::kSame && !passes(n) && layer.reads_inputs(rules_[n].rule);
      roles.kept[value] = roles.kept[value] || reads;
    }
    roles.vanishes[value] = vanishes;
  }
  for (std::size_t n = 0; n < nodes; ++n) {
    const Layer<T>& layer = *graph_.nodes()[n].layer;
    const std::size_t value = inputs + n;
    if (!roles.on_way[value] || layer.flow() != Flow::kRule || passes(n)) {
      continue;
    }
    std::size_t stands_for = value;
    const auto& readers = graph_.readers(value);
    if (value != start && readers.size() == 1 && roles.vanishes[inputs + readers[0]]) {
      Clamp<T> clamp;
      if (graph_.nodes()[readers[0]].layer->is_clamp(&clamp) && clamp.low == 0) {
        roles.output_positive[n] = true;
        if (!(clamp.high < std::numeric_limits<T>::infinity())) {
          stands_for = inputs + readers[0];  // behind a ReLU z is still there wherever it is asked for
        }
      }
    }
    if (layer.reads_output(rules_[n].rule, stands_for != value)) {
      roles.output[n] = stands_for;
      roles.kept[stands_for] = true;
    }
  }
  return roles;
}

template <class T>
typename Plan<T>::Pass Plan<T>::forward(const std::vector<Matrix<const T>>& inputs,
                                        const std::vector<std::size_t>& wanted, std::size_t start,
                                        const Threads& all) const {
  const Threads threads{all.count, all.poll, graph_.workspace()};
  const std::size_t count = graph_.inputs();
  Pass pass;
  pass.batch = inputs[0].rows;
  pass.values.resize(graph_.values());
  pass.memory.resize(graph_.values());
  std::copy(inputs.begin(), inputs.end(), pass.values.begin());
  std::vector<bool> kept = roles(start).kept;
  std::vector<std::size_t> unread(graph_.values());
  for (std::size_t value = 0; value < graph_.values(); ++value) {
    unread[value] = graph_.readers(value).size();
  }
  std::vector<bool> needed(graph_.values());  // the others are not computed
  pass.wanted.resize(graph_.values());
  for (const std::size_t value : wanted) {
    kept[value] = needed[value] = pass.wanted[value] = true;
  }
  if (start != kNoValue) {
    needed[start] = true;
  }
  for (std::size_t n = graph_.nodes().size(); n-- > 0;) {
    if (needed[count + n]) {
      for (const std::size_t value : graph_.nodes()[n].inputs) {
        needed[value] = true;
      }
    }
  }
  std::vector<bool> done(graph_.nodes().size());  // as the clamp of the layer before
  for (std::size_t n = 0; n < graph_.nodes().size(); ++n) {
    const GraphNode<T>& node = graph_.nodes()[n];
    const std::size_t value = count + n;
    if (!needed[value] || done[n]) {
      continue;
    }
    std::vector<Matrix<const T>> from;
    for (const std::size_t input : node.inputs) {
      from.push_back(pass.values[input]);
    }
    const std::size_t first = node.inputs[0];
    const bool last_use = first >= count && unread[first] == 1 && !kept[first];
    Matrix<T> to{nullptr, pass.batch, node.size, node.size};
    if (node.layer->in_place() && last_use) {
      pass.memory[value] = std::move(pass.memory[first]);
    } else {
      pass.memory[value].reset(checked_product({pass.batch, node.size}, "a value"), graph_.workspace());
    }
    to.data = pass.memory[value].data();
    Clamp<T> clamp;
    const auto& readers = graph_.readers(value);
    const bool clamped = node.layer->clamps() && !kept[value] && readers.size() == 1 && needed[count + readers[0]] &&
                         graph_.nodes()[readers[0]].layer->is_clamp(&clamp);
    node.layer->forward(from, to, clamped ? clamp : Clamp<T>{}, threads);
    if (clamped) {
      pass.memory[count + readers[0]] = std::move(pass.memory[value]);
      pass.values[count + readers[0]] = read_only(to);
      done[readers[0]] = true;
    } else {
      pass.values[value] = read_only(to);
    }
    for (const std::size_t input : node.inputs) {
      if (--unread[input] == 0 && !kept[input]) {
        pass.values[input] = {};
        pass.memory[input] = Buffer<T>();
      }
    }
  }
  return pass;
}

template <class T>
void Plan<T>::relevance(Pass* pass, const Request& request, const Threads& all) const {
  const Threads threads{all.count, all.poll, graph_.workspace()};
  const std::size_t inputs = graph_.inputs(), nodes = graph_.nodes().size();
  const Roles roles = this->roles(request.start);
  const Index rows = request.top.rows;
  std::vector<Matrix<T>> relevance(graph_.values());  // no data: none has arrived
  std::vector<Buffer<T>> memory(graph_.values());
  std::vector<int> nonnegative(graph_.values(), -1);       // not looked at yet
  std::vector<std::vector<double>> sums(graph_.values());  // of the relevance, where it has just been added up
  const auto make = [&](std::size_t value) {
    Matrix<T> made = request.results[value];
    if (!made) {
      memory[value].reset(checked_product({rows, graph_.size(value)}, "a relevance"), graph_.workspace());
      made = {memory[value].data(), rows, graph_.size(value), graph_.size(value)};
    }
    relevance[value] = made;
  };
  std::vector<std::size_t> last_use(graph_.values(), kNoValue);  // nodes run backwards here
  for (std::size_t n = nodes; n-- > 0;) {
    if (!roles.on_way[inputs + n]) {
      continue;
    }
    for (const std::size_t input : graph_.nodes()[n].inputs) {
      last_use[input] = n;
    }
    if (roles.output[n] != kNoValue) {
      last_use[roles.output[n]] = n;
    }
  }
  const auto release = [&](std::size_t value, std::size_t n) {
    if (value != kNoValue && last_use[value] == n && !pass->wanted[value]) {
      pass->values[value] = {};
      pass->memory[value] = Buffer<T>();
    }
  };
  // Half as much memory is touched where relevance takes the place of the activation that it is the last to need.
  const auto may_replace = [&](std::size_t value, std::size_t n) {
    const std::vector<std::size_t>& inputs_of = graph_.nodes()[n].inputs;
    return rows == pass->batch && pass->memory[value].data() != nullptr && last_use[value] == n &&
           !pass->wanted[value] && !request.results[value] &&
           std::count(inputs_of.begin(), inputs_of.end(), value) == 1;
  };
  make(request.start);
  copy(request.top, relevance[request.start], threads);
  std::fill_n(request.ledger, static_cast<Index>(nodes) * kLedgerColumns * rows, 0.0);
  for (std::size_t n = request.start < inputs ? 0 : request.start - inputs + 1; n-- > 0;) {
    const GraphNode<T>& node = graph_.nodes()[n];
    const std::size_t value = inputs + n;
    if (!relevance[value]) {
      continue;
    }
    const bool same = node.layer->flow_under(rules_[n].rule) == Flow::kSame;
    std::vector<double> incoming, outgoing(static_cast<std::size_t>(rows)), masked;
    const bool is_masked =
        std::any_of(request.masks.begin(), request.masks.end(), [&](const Mask& mask) { return mask.value == value; });
    const bool accounts = !same || is_masked;
    if (accounts) {
      incoming = sums[value].empty() ? row_sums(read_only(relevance[value]), threads) : sums[value];
    }
    for (const Mask& mask : request.masks) {
      if (mask.value == value) {
        const Index channels = static_cast<Index>(mask.channels.size());
        for (Index i = 0; i < rows; ++i) {
          for (Index j = 0; j < relevance[value].cols; ++j) {
            if (!mask.channels[static_cast<std::size_t>(j % channels)]) {
              relevance[value].row(i)[j] = T(0);
            }
          }
        }
        const std::vector<double> stays = row_sums(read_only(relevance[value]), threads);
        masked = incoming;
        for (std::size_t i = 0; i < stays.size(); ++i) {
          masked[i] -= stays[i];
        }
      }
    }
    double* const page = request.ledger + static_cast<Index>(n) * kLedgerColumns * rows;
    if (same && is_masked) {
      std::vector<double> stays = incoming;
      std::transform(stays.begin(), stays.end(), masked.begin(), stays.begin(), std::minus<>());
      write_page(incoming, stays, masked, std::vector<kernels::Absorbed>(static_cast<std::size_t>(rows)), page);
    }
    if (same && !relevance[node.inputs[0]] && !request.results[node.inputs[0]] && !request.results[value]) {
      relevance[node.inputs[0]] = relevance[value];
      memory[node.inputs[0]] = std::move(memory[value]);
      if (!is_masked) {
        sums[node.inputs[0]] = std::move(sums[value]);
      }
      relevance[value] = {};
      continue;
    }
    RelevanceJob<T> job;
    std::vector<Buffer<T>> extra(node.inputs.size());
    job.relevance = read_only(relevance[value]);
    if (memory[value].data() != nullptr) {
      job.spare = relevance[value];
    }
    job.batch = pass->batch;
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      const std::size_t input = node.inputs[k];
      job.inputs.push_back(pass->values[input]);
      if (relevance[input]) {  // another reader was here, or this one reads it twice
        extra[k].reset(checked_product({rows, graph_.size(input)}, "a relevance"), graph_.workspace());
        job.results.push_back({extra[k].data(), rows, graph_.size(input), graph_.size(input)});
      } else {
        if (!passes(n) && node.layer->relevance_in_place() && may_replace(input, n)) {
          memory[input] = std::move(pass->memory[input]);
          relevance[input] = {memory[input].data(), rows, graph_.size(input), graph_.size(input)};
        } else {
          make(input);
        }
        job.results.push_back(relevance[input]);
      }
    }
    std::vector<kernels::Absorbed> absorbed(static_cast<std::size_t>(rows));
    if (same || passes(n)) {
      copy(job.relevance, job.results[0], threads);
    } else {
      job.rule = rules_[n].rule;
      job.bounds = rules_[n].bounds;
      job.prepared = prepared_[n].get();
      job.output_positive = roles.output_positive[n];
      job.output = roles.output[n] == kNoValue ? Matrix<const T>{} : pass->values[roles.output[n]];
      job.absorbed = absorbed.data();
      if (node.layer->flow() == Flow::kRule && job.inputs[0]) {
        int& known = nonnegative[node.inputs[0]];
        if (known < 0) {
          known = graph_.nonnegative(node.inputs[0]) || is_nonnegative(job.inputs[0]) ? 1 : 0;
        }
        job.input_nonnegative = known == 1;
      }
      node.layer->relevance(job, threads);
    }
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      if (!same) {
        std::vector<double> sent = row_sums(read_only(job.results[k]), threads);
        std::transform(sent.begin(), sent.end(), outgoing.begin(), outgoing.begin(), std::plus<>());
        sums[node.inputs[k]] = std::move(sent);
      }
      if (extra[k].data() != nullptr) {
        add_to(read_only(job.results[k]), relevance[node.inputs[k]], threads);
        sums[node.inputs[k]].clear();
      }
    }
    if (!same) {
      write_page(incoming, outgoing, masked, absorbed, page);
    }
    memory[value] = Buffer<T>();
    for (const std::size_t input : node.inputs) {
      release(input, n);
    }
    release(roles.output[n], n);
  }
  for (std::size_t value = 0; value < graph_.values(); ++value) {  // where nothing arrived
    const Matrix<T> result = request.results[value];
    if (result && !relevance[value]) {
      for (Index i = 0; i < rows; ++i) {
        std::fill_n(result.row(i), result.cols, T(0));
      }
    }
  }
}

template class Graph<float>;
template class Graph<double>;
template class Plan<float>;
template class Plan<double>;

}  // namespace pylrp
