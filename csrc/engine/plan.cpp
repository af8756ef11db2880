#include "engine/plan.hpp"

#include <algorithm>
#include <utility>

#include "engine/again.hpp"
#include "engine/backward.hpp"
#include "engine/checkpoints.hpp"
#include "engine/liveness.hpp"

namespace pylrp {

template <class T>
Plan<T>::Plan(const Graph<T>& graph, std::vector<NodeRule<T>> rules, const Threads& threads)
    : graph_(graph), rules_(std::move(rules)), prepared_(graph.nodes().size()) {
  for (std::size_t n = 0; n < rules_.size(); ++n) {
    if (rules_[n].rule != nullptr && !rules_[n].is_identity()) {
      prepared_[n] = graph_.nodes()[n].layer->prepare(*rules_[n].rule, rules_[n].bounds, threads);
    }
  }
}

template <class T>
ForwardValues<T> Plan<T>::forward(const std::vector<Matrix<const T>>& inputs, const std::vector<std::size_t>& wanted,
                                  std::size_t start, const Threads& threads, bool checkpoint, Index most_bytes) const {
  Liveness<T> liveness(*this, start);
  std::vector<std::size_t> cuts;
  if (checkpoint && start != kNoValue) {
    cuts = checkpoints(graph_, start);
  }
  if (!cuts.empty()) {  // what is below the last one is computed again
    std::fill_n(liveness.kept.begin() + static_cast<std::ptrdiff_t>(graph_.inputs()), cuts.back(), false);
    std::fill_n(liveness.entries.begin(), cuts.back() + 1, Index{0});
    for (const std::size_t n : cuts) {
      liveness.kept[graph_.inputs() + n] = true;
    }
  }
  std::vector<Again> again;
  if (cuts.empty() && start != kNoValue) {
    again = values_made_again(*this, liveness, wanted, start, inputs[0].rows, most_bytes);
    for (std::size_t value = 0; value < again.size(); ++value) {
      liveness.kept[value] = liveness.kept[value] && again[value] == Again::kNever;
    }
    for (std::size_t value = graph_.inputs(); value < again.size(); ++value) {
      const GraphNode<T>& node = graph_.nodes()[value - graph_.inputs()];
      if (again[value] == Again::kComputed && node.layer->is_view() && again[node.inputs[0]] == Again::kNever) {
        liveness.kept[node.inputs[0]] = true;  // what a view of it keeps in memory anyway
      }
    }
  }
  ForwardValues<T> made =
      graph_.forward(inputs, wanted, threads, {start, std::move(liveness.kept), std::move(liveness.entries)});
  made.again = std::move(again);
  made.cuts = std::move(cuts);
  return made;
}

template <class T>
void Plan<T>::relevance(ForwardValues<T>* forward, const RelevanceRequest<T>& request, const Threads& threads) const {
  Backward<T>(*this, forward, request, threads).run();
}

template class Plan<float>;
template class Plan<double>;

}  // namespace pylrp
