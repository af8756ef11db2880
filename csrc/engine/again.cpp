#include "engine/again.hpp"

#include <algorithm>

namespace pylrp {
namespace {

constexpr double kMostWork = 0.25;  // of the products of a forward pass, done twice

// A value and the views of it are one block of memory, named by the value that is no view.
template <class T>
class Choice {
 public:
  Choice(const Plan<T>& plan, const Liveness<T>& liveness, const std::vector<bool>& fixed, Index batch,
         Index most_bytes)
      : graph_(plan.graph()),
        liveness_(liveness),
        again_(graph_.values(), Again::kNever),
        block_(graph_.values()),
        kept_(graph_.values()),
        may_go_(graph_.values(), true) {
    for (std::size_t value = 0; value < graph_.values(); ++value) {
      const bool view = value >= graph_.inputs() && node(value).layer->is_view();
      block_[value] = view ? block_[node(value).inputs[0]] : value;
      const std::size_t block = block_[value];
      over_ += liveness.kept[value] && !kept_[block] && block >= graph_.inputs() ? graph_.size(block) : 0;
      kept_[block] = kept_[block] || liveness.kept[value];
      may_go_[block] = may_go_[block] && !fixed[value] && (!liveness.kept[value] || only_by_coefficients(value));
    }
    over_ -= most_bytes / (batch * Index{sizeof(T)});
  }

  std::vector<Again> made() {
    // From below: what is made again above takes its place while all else is still there.
    for (std::size_t value = graph_.inputs(); value < graph_.values() && over_ > 0; ++value) {
      const GraphNode<T>& made_by = node(value);
      if (may_go(value) && made_by.layer->products() == 0 && made_by.inputs.size() == 1 &&
          !made_by.layer->same_coefficients() && are_there(value, false)) {
        drop(value, Again::kComputed);
      }
    }
    for (std::size_t value = graph_.inputs(); value < graph_.values() && over_ > 0; ++value) {
      if (may_go(value) && node(value).layer->products() > 0 && is_difference(value)) {
        drop(value, Again::kSubtracted);
      }
    }
    drop_products();
    for (std::size_t value = graph_.inputs(); value < graph_.values(); ++value) {
      const std::size_t block = block_[value];
      const bool unread = !liveness_.kept[value] && (kept_[block] || block < graph_.inputs());
      if (block != value && (again_[block] != Again::kNever || unread)) {
        again_[value] = Again::kComputed;
      }
    }
    return std::move(again_);
  }

 private:
  const GraphNode<T>& node(std::size_t value) const { return graph_.nodes()[value - graph_.inputs()]; }
  // Its reader makes it again. What made it is one of those, or gets no relevance: queries, where values take all.
  bool only_by_coefficients(std::size_t value) const {
    const auto& readers = graph_.readers(value);
    const auto by = [&](std::size_t n) {
      return liveness_.by_coefficients[n] || !liveness_.reached[graph_.inputs() + n];
    };
    return value >= graph_.inputs() && by(value - graph_.inputs()) && std::all_of(readers.begin(), readers.end(), by);
  }
  bool may_go(std::size_t value) const {
    return block_[value] == value && kept_[value] && may_go_[value] && again_[value] == Again::kNever;
  }
  // What a value is computed from: kept, or, if that is allowed, made again.
  bool are_there(std::size_t value, bool again_too) const {
    const auto& inputs = node(value).inputs;
    return std::all_of(inputs.begin(), inputs.end(), [&](std::size_t input) {
      const std::size_t block = block_[input];
      return block < graph_.inputs() ||
             (kept_[block] && (again_too || again_[block] == Again::kNever) && is_still_there(input, value));
    });
  }
  // When the reader of a value whose own maker gets no relevance makes it again: has the last one to read this input
  // not come yet?
  bool is_still_there(std::size_t input, std::size_t value) const {
    if (liveness_.reached[value]) {
      return true;
    }
    while (!liveness_.kept[input] && block_[input] != input) {
      input = node(input).inputs[0];
    }
    std::size_t first = 0;
    for (const std::size_t n : graph_.readers(value)) {
      first = liveness_.reached[graph_.inputs() + n] ? std::max(first, n) : first;
    }
    return liveness_.last_reader[input] <= first;  // kNoValue is larger
  }
  // Of a sum of two, which is kept, and the other summand.
  bool is_difference(std::size_t value) const {
    std::size_t summand = value;
    const std::size_t reader = sum_of(graph_, &summand);
    if (reader == kNoValue) {
      return false;
    }
    const std::size_t total = graph_.inputs() + reader, other = block_[other_summand(graph_, reader, summand)];
    return block_[total] == total && kept_[total] && again_[total] == Again::kNever && other != value &&
           (other < graph_.inputs() || (kept_[other] && again_[other] != Again::kSubtracted));
  }
  void drop(std::size_t value, Again how) {
    again_[value] = how;
    over_ -= graph_.size(value);
  }
  void drop_products() {
    std::vector<std::size_t> values;
    double work = 0;
    const auto work_of = [&](std::size_t value) { return static_cast<double>(node(value).layer->products()); };
    for (std::size_t value = graph_.inputs(); value < graph_.values(); ++value) {
      work += work_of(value);
      if (may_go(value) && work_of(value) > 0) {
        values.push_back(value);
      }
    }
    work *= kMostWork;
    std::stable_sort(values.begin(), values.end(), [&](std::size_t a, std::size_t b) {
      return work_of(a) * static_cast<double>(graph_.size(b)) < work_of(b) * static_cast<double>(graph_.size(a));
    });
    for (std::size_t i = 0; i < values.size() && over_ > 0 && work > work_of(values[i]); ++i) {
      if (are_there(values[i], true)) {
        drop(values[i], Again::kComputed);
        work -= work_of(values[i]);
      }
    }
  }

  const Graph<T>& graph_;
  const Liveness<T>& liveness_;
  std::vector<Again> again_;
  std::vector<std::size_t> block_;   // of values
  std::vector<bool> kept_, may_go_;  // of blocks
  Index over_ = 0;                   // entries of a sample that are too many
};

}  // namespace

template <class T>
std::size_t sum_of(const Graph<T>& graph, std::size_t* value) {
  while (graph.readers(*value).size() == 1) {
    const std::size_t reader = graph.readers(*value)[0];
    const GraphNode<T>& node = graph.nodes()[reader];
    if (!node.layer->is_view()) {
      const bool sum = node.layer->same_coefficients() && node.inputs.size() == 2 && node.inputs[0] != node.inputs[1];
      return sum ? reader : kNoValue;
    }
    *value = graph.inputs() + reader;
  }
  return kNoValue;
}

template <class T>
std::size_t other_summand(const Graph<T>& graph, std::size_t sum, std::size_t summand) {
  const std::vector<std::size_t>& inputs = graph.nodes()[sum].inputs;
  return inputs[inputs[0] == summand ? 1 : 0];
}

template <class T>
std::vector<Again> values_made_again(const Plan<T>& plan, const Liveness<T>& liveness,
                                     const std::vector<std::size_t>& wanted, std::size_t start, Index batch,
                                     Index most_bytes) {
  std::vector<bool> fixed(plan.graph().values());
  fixed[start] = true;
  for (const std::size_t value : wanted) {
    fixed[value] = true;
  }
  return Choice<T>(plan, liveness, fixed, std::max<Index>(batch, 1), most_bytes).made();
}

#define PYLRP_INSTANTIATE(T)                                                           \
  template std::size_t sum_of<T>(const Graph<T>&, std::size_t*);                       \
  template std::size_t other_summand<T>(const Graph<T>&, std::size_t, std::size_t);    \
                                                                                       \
  template std::vector<Again> values_made_again<T>(const Plan<T>&, const Liveness<T>&, \
                                                   const std::vector<std::size_t>&, std::size_t, Index, Index);
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
