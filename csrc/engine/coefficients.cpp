#include "engine/coefficients.hpp"

#include <algorithm>
#include <numeric>

#include "base/pieces.hpp"
#include "kernels/dispatch.hpp"
#include "rules/kernel_args.hpp"
#include "rules/stabilizer.hpp"

namespace pylrp {
namespace {

// Sets of nodes that grow together.
class Parts {
 public:
  explicit Parts(std::size_t nodes) : parent_(nodes) { std::iota(parent_.begin(), parent_.end(), std::size_t{0}); }
  std::size_t of(std::size_t node) {
    while (parent_[node] != node) {
      node = parent_[node] = parent_[parent_[node]];
    }
    return node;
  }
  void join(std::size_t a, std::size_t b) { parent_[of(a)] = of(b); }

 private:
  std::vector<std::size_t> parent_;
};

// Nodes that relevance comes from to a value.
template <class T>
std::vector<std::size_t> sources(const Graph<T>& graph, const std::vector<NodeRule<T>>& rules,
                                 const std::vector<bool>& reached, std::size_t value) {
  std::vector<std::size_t> found;
  for (const std::size_t n : graph.readers(value)) {
    const std::vector<std::size_t>& inputs = graph.nodes()[n].inputs;
    for (std::size_t k = 0; reached[graph.inputs() + n] && k < inputs.size(); ++k) {
      if (inputs[k] == value && graph.nodes()[n].layer->hands_to(k, rules[n].rule)) {
        found.push_back(n);
        break;
      }
    }
  }
  return found;
}

}  // namespace

template <class T>
CoefficientForm coefficient_form(const Graph<T>& graph, const std::vector<NodeRule<T>>& rules,
                                 const std::vector<bool>& reached, std::size_t start) {
  const std::size_t count = graph.nodes().size();
  CoefficientForm form{std::vector<bool>(count), std::vector<bool>(graph.values())};
  Parts parts(count);
  for (std::size_t n = count; n-- > 0;) {  // readers come first
    const std::size_t value = graph.inputs() + n;
    const Layer<T>& layer = *graph.nodes()[n].layer;
    if (!reached[value] || layer.coefficients(rules[n].rule) == Coefficients::kNever) {
      continue;
    }
    const std::vector<std::size_t> from = sources(graph, rules, reached, value);
    const bool linked =
        value != start && std::all_of(from.begin(), from.end(), [&](std::size_t reader) { return form.nodes[reader]; });
    // Functions and movements hand R on as it is, also where their value is 0.
    const Flow flow = layer.flow_under(rules[n].rule);
    form.nodes[n] = linked || (flow != Flow::kIdentity && flow != Flow::kRouted);
    form.values[value] = linked;
    for (std::size_t i = 0; linked && i < from.size(); ++i) {
      parts.join(n, from[i]);
    }
  }
  std::vector<bool> serves(count), several(count);
  for (std::size_t n = 0; n < count; ++n) {
    if (form.nodes[n]) {
      const std::size_t part = parts.of(n);
      serves[part] = serves[part] || graph.nodes()[n].layer->coefficients(rules[n].rule) == Coefficients::kServes;
      several[part] = several[part] || part != n;
    }
  }
  for (std::size_t n = 0; n < count; ++n) {
    const std::size_t part = parts.of(n);
    form.nodes[n] = form.nodes[n] && serves[part] && several[part];
    form.values[graph.inputs() + n] = form.values[graph.inputs() + n] && form.nodes[n];
  }
  return form;
}

template <class T>
std::vector<double> row_products(Matrix<const T> coefficients, Matrix<const T> values, const Threads& threads) {
  const Index pieces = pieces_of(coefficients.cols);
  std::vector<double> parts(static_cast<std::size_t>(coefficients.rows * pieces));
  each_piece(coefficients.rows, coefficients.cols, threads, [&](Index task, Index row, Index first, Index count) {
    parts[static_cast<std::size_t>(task)] =
        kernels::table<T>().dot(count, coefficients.row(row) + first, values.row(row % values.rows) + first);
  });
  std::vector<double> sums(static_cast<std::size_t>(coefficients.rows));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    sums[i / static_cast<std::size_t>(pieces)] += parts[i];
  }
  return sums;
}

template <class T>
void to_relevance(Matrix<const T> coefficients, Matrix<const T> values, Matrix<T> relevance, const Threads& threads) {
  each_piece(coefficients.rows, coefficients.cols, threads, [&](Index, Index row, Index first, Index count) {
    const T* const c = coefficients.row(row) + first;
    std::transform(c, c + count, values.row(row % values.rows) + first, relevance.row(row) + first,
                   [](T each, T a) { return a * each; });
  });
}

template <class T>
void to_coefficients(Matrix<const T> relevance, Matrix<const T> values, Matrix<T> coefficients,
                     kernels::Absorbed* absorbed, const Threads& threads) {
  Stabilizer<T> exact(nullptr);
  exact.epsilon = T(0);
  const Index pieces = pieces_of(relevance.cols);
  std::vector<kernels::Absorbed> lost(static_cast<std::size_t>(relevance.rows * pieces));
  each_piece(relevance.rows, relevance.cols, threads, [&](Index task, Index row, Index first, Index count) {
    const T* const r = relevance.row(row) + first;
    std::transform(r, r + count, values.row(row % values.rows) + first, coefficients.row(row) + first,
                   [&](T each, T a) { return exact.share(each, a, &lost[static_cast<std::size_t>(task)]); });
  });
  add_absorbed(lost, pieces, absorbed);
}

#define PYLRP_INSTANTIATE(T)                                                                      \
  template CoefficientForm coefficient_form<T>(const Graph<T>&, const std::vector<NodeRule<T>>&,  \
                                               const std::vector<bool>&, std::size_t);            \
  template std::vector<double> row_products<T>(Matrix<const T>, Matrix<const T>, const Threads&); \
  template void to_relevance<T>(Matrix<const T>, Matrix<const T>, Matrix<T>, const Threads&);     \
  template void to_coefficients<T>(Matrix<const T>, Matrix<const T>, Matrix<T>, kernels::Absorbed*, const Threads&);
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
