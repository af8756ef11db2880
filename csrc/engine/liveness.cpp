#include "engine/liveness.hpp"

#include <algorithm>
#include <utility>

#include "engine/coefficients.hpp"

namespace pylrp {

template <class T>
Liveness<T>::Liveness(const Plan<T>& plan, std::size_t start)
    : reached(plan.graph().values()),
      kept(plan.graph().values()),
      vanishes(plan.graph().values()),
      output_positive(plan.graph().nodes().size()),
      entries(plan.graph().nodes().size()),
      output(plan.graph().nodes().size(), kNoValue),
      by_coefficients(plan.graph().nodes().size()),
      coefficients(plan.graph().values()),
      last_reader(plan.graph().values(), kNoValue),
      plan_(plan),
      graph_(plan.graph()) {
  if (start != kNoValue) {
    find_reached(start);
    find_forms(start);
    find_kept_inputs(start);
    find_kept_outputs(start);
    find_last_readers();
    find_entries();
  }
}

template <class T>
void Liveness<T>::find_reached(std::size_t start) {
  const std::size_t inputs = graph_.inputs();
  reached[start] = true;
  for (std::size_t n = start < inputs ? 0 : start - inputs + 1; n-- > 0;) {
    if (reached[inputs + n]) {
      const GraphNode<T>& node = graph_.nodes()[n];
      for (std::size_t k = 0; k < node.inputs.size(); ++k) {
        if (node.layer->hands_to(k, plan_.rules()[n].rule)) {
          reached[node.inputs[k]] = true;
        }
      }
    }
  }
}

template <class T>
void Liveness<T>::find_forms(std::size_t start) {
  CoefficientForm form = coefficient_form(graph_, plan_.rules(), reached, start);
  by_coefficients = std::move(form.nodes);
  coefficients = std::move(form.values);
}

template <class T>
void Liveness<T>::find_kept_inputs(std::size_t start) {
  // From the top down, since a value's readers come behind it. A layer may read what it hands no relevance to.
  for (std::size_t value = graph_.values(); value-- > 0;) {
    for (const std::size_t n : graph_.readers(value)) {
      const Layer<T>& layer = *graph_.nodes()[n].layer;
      const NodeRule<T>& rule = plan_.rules()[n];
      const bool reads =
          layer.flow_under(rule.rule) != Flow::kIdentity && !rule.is_identity() && layer.reads_inputs(rule.rule);
      if (reached[graph_.inputs() + n] && (reads || by_coefficients[n])) {  // the ledger reads them there
        kept[value] = true;
      }
    }
    vanishes[value] = reached[value] && value != start && vanishes_by_readers(value);
  }
}

template <class T>
bool Liveness<T>::vanishes_by_readers(std::size_t value) const {
  for (const std::size_t n : graph_.readers(value)) {
    const std::size_t made = graph_.inputs() + n;
    if (!reached[made]) {
      continue;
    }
    const Layer<T>& layer = *graph_.nodes()[n].layer;
    const NodeRule<T>& rule = plan_.rules()[n];
    if (by_coefficients[n] && !coefficients[value]) {  // R = a c
      continue;
    }
    bool vanish = false;
    switch (layer.flow_under(rule.rule)) {
      case Flow::kRule:
        vanish = rule.rule->any().vanishes_with_input();
        break;
      case Flow::kRouted:
        vanish = !rule.is_identity() && vanishes[made];
        break;
      case Flow::kIdentity:
        vanish = layer.keeps_zero() && vanishes[made];
        break;
      case Flow::kProportional:
        vanish = !rule.is_identity();
        break;
      case Flow::kUnknown:
        break;
    }
    if (!vanish) {
      return false;
    }
  }
  return true;
}

template <class T>
void Liveness<T>::find_kept_outputs(std::size_t start) {
  for (std::size_t n = 0; n < graph_.nodes().size(); ++n) {
    const Layer<T>& layer = *graph_.nodes()[n].layer;
    const std::size_t value = graph_.inputs() + n;
    if (by_coefficients[n]) {
      output[n] = value;
      kept[value] = true;
      continue;
    }
    if (!reached[value] || plan_.rules()[n].is_identity() ||
        (layer.flow() != Flow::kRule && !layer.reads_output(plan_.rules()[n].rule, false))) {
      continue;
    }
    std::size_t stands_for = value;
    const auto& readers = graph_.readers(value);
    if (value != start && readers.size() == 1 && vanishes[graph_.inputs() + readers[0]]) {
      Clamp<T> clamp;
      if (graph_.nodes()[readers[0]].layer->is_clamp(&clamp) && clamp.low == 0) {
        output_positive[n] = true;
        if (!(clamp.high < std::numeric_limits<T>::infinity())) {
          // relu(z) == z wherever relevance is not zero, so the ReLU's output serves for z.
          stands_for = graph_.inputs() + readers[0];
        }
      }
    }
    const CompiledRule* const rule = plan_.rules()[n].rule;
    if (layer.reads_output(rule, stands_for != value) ||
        (!graph_.nonnegative(graph_.nodes()[n].inputs[0]) && layer.reads_output_of_signed(rule, stands_for != value))) {
      output[n] = stands_for;
      kept[stands_for] = true;
    }
  }
}

template <class T>
void Liveness<T>::find_last_readers() {
  for (std::size_t n = graph_.nodes().size(); n-- > 0;) {
    if (!reached[graph_.inputs() + n]) {
      continue;
    }
    for (const std::size_t input : graph_.nodes()[n].inputs) {
      last_reader[input] = n;
    }
    if (output[n] != kNoValue) {
      last_reader[output[n]] = n;
    }
  }
}

template <class T>
void Liveness<T>::find_entries() {
  for (std::size_t n = 0; n < graph_.nodes().size(); ++n) {
    const NodeRule<T>& rule = plan_.rules()[n];
    if (reached[graph_.inputs() + n] && !rule.is_identity()) {
      entries[n] = graph_.nodes()[n].layer->kept_entries(rule.rule);
    }
  }
}

template <class T>
bool Liveness<T>::may_replace(const ForwardValues<T>& forward, const RelevanceRequest<T>& request, std::size_t value,
                              std::size_t node) const {
  const std::vector<std::size_t>& inputs = graph_.nodes()[node].inputs;
  return request.top.rows == forward.batch && forward.alone(value) && last_reader[value] == node &&
         !forward.wanted[value] && !request.results[value] && std::count(inputs.begin(), inputs.end(), value) == 1;
}

template struct Liveness<float>;
template struct Liveness<double>;

}  // namespace pylrp
