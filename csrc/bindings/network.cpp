// Graph: the layers of a network, and its forward pass. Plan: a graph with its rules; an explanation in one call.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <variant>

#include "bindings/graph_values.hpp"
#include "bindings/make_layer.hpp"
#include "bindings/register.hpp"
#include "bindings/top.hpp"
#include "engine/plan.hpp"

namespace pylrp::bindings {
namespace {

template <class T>
using SharedGraph = std::shared_ptr<const GraphWithLayouts<T>>;

// layouts: of each value, inputs first, the user's axes, which of them each stored axis is, and which has the channels;
// nodes: (kind, fields, inputs).
template <class T>
GraphNode<T> make_node(std::size_t number, const py::tuple& fields, const Layout& layout) {
  try {
    return {make_layer<T>(fields[0].cast<std::string>(), fields[1].cast<py::dict>()),
            fields[2].cast<std::vector<std::size_t>>(), layout.size()};
  } catch (const py::error_already_set&) {  // Python's own: Ctrl-C, too
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw NodeError(number, error.what());
  }
}

template <class T>
SharedGraph<T> make_graph(const py::list& layouts, const py::list& nodes) {
  std::vector<Layout> of;
  for (const py::handle item : layouts) {
    const auto [shape, order, channel] = item.cast<std::tuple<std::vector<Index>, std::vector<Index>, Index>>();
    of.emplace_back(shape, order, channel);
  }
  if (of.size() <= nodes.size()) {
    throw py::value_error("a graph needs an input and a layout for each value");
  }
  const std::size_t inputs = of.size() - nodes.size();
  std::vector<Index> sizes;
  for (std::size_t i = 0; i < inputs; ++i) {
    sizes.push_back(of[i].size());
  }
  std::vector<GraphNode<T>> made;
  for (const py::handle item : nodes) {
    GraphNode<T> node = make_node<T>(made.size(), item.cast<py::tuple>(), of[inputs + made.size()]);
    if (node.inputs.empty() || std::any_of(node.inputs.begin(), node.inputs.end(),
                                           [&](std::size_t value) { return value >= inputs + made.size(); })) {
      throw py::value_error("a node reads what comes later");
    }
    made.push_back(std::move(node));
  }
  return std::make_shared<const GraphWithLayouts<T>>(
      GraphWithLayouts<T>{Graph<T>(std::move(sizes), std::move(made)), std::move(of)});
}

// A graph's rules and bounds, one a node.
template <class T>
std::vector<NodeRule<T>> assign_rules(const GraphWithLayouts<T>& graph, const py::list& rules, const py::list& bounds) {
  const std::size_t nodes = graph.graph.nodes().size();
  if (rules.size() != nodes || bounds.size() != nodes) {
    throw py::value_error("there is one rule and one pair of bounds a node");
  }
  std::vector<NodeRule<T>> assigned(nodes);
  for (std::size_t n = 0; n < nodes; ++n) {
    const GraphNode<T>& node = graph.graph.nodes()[n];
    if (rules[n].is_none()) {
      if (node.layer->flow() == Flow::kRule) {
        throw py::value_error("a layer with weights needs a rule");
      }
      continue;
    }
    const auto& rule = rules[n].cast<const CompiledRule&>();
    const Index size = graph.graph.size(node.inputs[0]);
    if (rule.rule().treatment != Treatment::kNone && node.layer->flow() == Flow::kRule) {
      throw py::value_error("a layer with weights has no formula of its own");
    }
    if (rule.passes() && (node.inputs.size() != 1 || size != node.size)) {
      throw py::value_error("relevance can only pass through a layer of equal widths");
    }
    assigned[n] = {&rule, bounds_of<T>(bounds[n], rule, size)};
  }
  return assigned;
}

// Arrays for the relevance of some values in the user's layout, and buffers in the core's where that differs.
template <class T>
class Results {
 public:
  Results(const GraphWithLayouts<T>& graph, const std::vector<std::size_t>& wanted, Index rows)
      : graph_(graph),
        wanted_(wanted),
        user_(wanted.size()),
        converted_(wanted.size()),
        results_(graph.graph.values()) {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      graph.check_value(wanted[i]);
      const Layout& layout = graph.layouts[wanted[i]];
      arrays_.append(new_array<T>(false, rows, layout.size(), &user_[i]));
      if (results_[wanted[i]]) {
        continue;  // it was asked for twice
      }
      results_[wanted[i]] = user_[i];
      if (!layout.same()) {
        converted_[i].reset(checked_product({rows, layout.size()}, "a relevance"), graph.graph.workspace());
        results_[wanted[i]].data = converted_[i].data();
      }
    }
  }
  const std::vector<Matrix<T>>& by_value() const { return results_; }
  py::list arrays() { return std::move(arrays_); }

  // Brings what was computed into the user's layout. False where a number is not finite.
  bool finish(const Threads& threads) const {
    bool finite = true;
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      const Matrix<T>& result = results_[wanted_[i]];
      finite = finite && !(scan_rows(result) & kernels::kNotFinite);
      if (user_[i].data != result.data) {
        to_user(graph_.layouts[wanted_[i]], {result.data, result.rows, result.cols, result.stride}, user_[i], threads);
      }
    }
    return finite;
  }

 private:
  const GraphWithLayouts<T>& graph_;
  const std::vector<std::size_t>& wanted_;
  py::list arrays_;
  std::vector<Matrix<T>> user_;
  std::vector<Buffer<T>> converted_;
  std::vector<Matrix<T>> results_;
};

// By value, what stays: (1 or batch, channels or entries of the value).
using Masks = std::vector<std::pair<std::size_t, py::array_t<bool, py::array::c_style>>>;

template <class T>
std::vector<ChannelMask> checked_masks(const GraphWithLayouts<T>& graph, const Masks& masks, Index batch) {
  std::vector<ChannelMask> checked;
  for (const auto& [value, stays] : masks) {
    graph.check_value(value);
    const Layout& layout = graph.layouts[value];
    if (stays.ndim() != 2 || (stays.shape(0) != 1 && stays.shape(0) != batch) ||
        (stays.shape(1) != layout.channels && stays.shape(1) != layout.size())) {
      throw py::value_error("a mask has one entry a channel, or one an entry of the value");
    }
    const Index entries = stays.shape(1);
    const Matrix<const bool> given{stays.data(), stays.shape(0), entries, entries};
    const std::unique_ptr<bool[]> turned(new bool[static_cast<std::size_t>(stays.size())]);
    if (entries == layout.channels || layout.same()) {
      std::copy_n(stays.data(), stays.size(), turned.get());
    } else {
      to_core(layout, given, {turned.get(), given.rows, entries, entries}, Threads{});
    }
    checked.push_back({value, std::vector<bool>(turned.get(), turned.get() + stays.size()), stays.shape(0),
                       entries == layout.size() ? 1 : layout.channel_step});
  }
  return checked;
}

// Replaces the zeros of a value that a forward pass has left, so that relevance shows what it would be there.
template <class T>
void replace_zeros(const GraphWithLayouts<T>& graph, std::size_t value, double by, ForwardValues<T>* forward) {
  if (value < graph.graph.inputs() || value >= graph.graph.values()) {
    throw py::value_error("zeros of a node's value are replaced, not of an input");
  }
  const Matrix<const T> values = forward->values[value];
  auto memory =
      std::make_shared<Buffer<T>>(checked_product({values.rows, values.cols}, "a value"), graph.graph.workspace());
  for (Index i = 0; i < values.rows; ++i) {  // a copy: it may be a view of another value, or of the caller's array
    T* const row = memory->data() + i * values.cols;
    std::replace_copy(values.row(i), values.row(i) + values.cols, row, T(0), static_cast<T>(by));
  }
  forward->values[value] = {memory->data(), values.rows, values.cols, values.cols};
  forward->memory[value] = std::move(memory);
}

struct Question {
  const py::list& targets;
  bool one;
  std::size_t start;
  const std::vector<std::size_t>& outputs;
  const std::vector<std::size_t>& wanted;
  const Masks& masks;
  const std::optional<std::pair<std::size_t, double>>& zeros;
  bool checkpoint;
};

// A plan keeps what it looks at alive: the graph, and in `owned` the rules and bounds.
template <class T>
struct PlanOfGraph {
  PlanOfGraph(SharedGraph<T> of, const py::list& rules, const py::list& bounds, const Threads& threads)
      : owned(py::make_tuple(rules, bounds)),
        graph(std::move(of)),
        plan(make(*graph, rules, bounds, threads)),
        bfloat16(threads.bfloat16) {}

  py::tuple explain(const py::list& inputs, const Question& asked, int thread_count) const {
    graph->check_value(asked.start);
    Threads threads = graph->threads_worth(thread_count, inputs, static_cast<Index>(asked.targets.size()));
    threads.bfloat16 = bfloat16;
    std::vector<std::size_t> kept = asked.outputs;
    kept.push_back(asked.start);
    auto run = graph->begin(inputs, kept, threads, [&](const std::vector<Matrix<const T>>& views) {
      return plan.forward(views, kept, asked.start, threads, asked.checkpoint);
    });
    const Index rows =
        checked_product({run.forward.batch, static_cast<Index>(asked.targets.size())}, "targets by samples");
    if (asked.zeros) {
      replace_zeros(*graph, asked.zeros->first, asked.zeros->second, &run.forward);
    }
    const Layout& layout = graph->layouts[asked.start];
    Top<T> top(asked.targets, run.forward.values[asked.start], layout, asked.one);
    Results<T> results(*graph, asked.wanted, rows);
    py::array_t<double> ledger({static_cast<Index>(graph->graph.nodes().size()), Index{kLedgerColumns}, rows});
    const RelevanceRequest<T> request{asked.start,
                                      {top.values.data(), rows, layout.size(), layout.size()},
                                      results.by_value(),
                                      checked_masks(*graph, asked.masks, run.forward.batch),
                                      ledger.mutable_data()};
    bool finite = false;
    {
      const Unlocked unlocked;
      with_team(threads, [&] {
        plan.relevance(&run.forward, request, threads);
        finite = results.finish(threads);
      });
    }
    if (!finite) {
      throw Error("the relevance overflows: a denominator is nearly zero; use a rule with a larger stabilizer");
    }
    const Index entries = Index{kLedgerColumns} * rows;
    finite = !(scan_rows(Matrix<const double>{ledger.data(), ledger.shape(0), entries, entries}) & kernels::kNotFinite);
    py::list outputs = graph->outputs_of(run, asked.outputs, threads, &finite);
    return py::make_tuple(std::move(outputs), std::move(top.chosen), results.arrays(), std::move(ledger), finite);
  }

  py::tuple owned;
  SharedGraph<T> graph;
  Plan<T> plan;
  bool bfloat16;  // what its constants were prepared for, and its calls compute in

 private:
  static Plan<T> make(const GraphWithLayouts<T>& graph, const py::list& rules, const py::list& bounds,
                      const Threads& threads) {
    std::vector<NodeRule<T>> assigned = assign_rules(graph, rules, bounds);
    const Unlocked unlocked;
    return Plan<T>(graph.graph, std::move(assigned), threads);
  }
};

// What Python sees: one class for both precisions.
class AnyPlan {
 public:
  template <class T>
  explicit AnyPlan(std::unique_ptr<const PlanOfGraph<T>> plan) : plan_(std::move(plan)) {}

  // targets: one, each None (the top class), an int64 array (1) or (batch) of channels (-2: the top one, -1: none), an
  // array (batch, size of the start) of relevance, or a tuple (entries, weights), see entries.hpp. Returns (values of
  // `outputs`, chosen channels a target or None, relevance (targets * batch, size) of `wanted`, ledger (nodes, columns,
  // targets * batch), whether all of these are finite). zeros: of one of the outputs' values, and the number to take
  // for them. checkpoint: keep little of the forward pass, and compute it again.
  py::tuple explain(const py::list& inputs, const py::list& targets, bool one, std::size_t start,
                    const std::vector<std::size_t>& outputs, const std::vector<std::size_t>& wanted, const Masks& masks,
                    int threads, const std::optional<std::pair<std::size_t, double>>& zeros, bool checkpoint) const {
    const Question asked{targets, one, start, outputs, wanted, masks, zeros, checkpoint};
    return std::visit([&](const auto& plan) { return plan->explain(inputs, asked, threads); }, plan_);
  }

 private:
  std::variant<std::unique_ptr<const PlanOfGraph<float>>, std::unique_ptr<const PlanOfGraph<double>>> plan_;
};

class AnyGraph {
 public:
  AnyGraph(const std::string& dtype, const py::list& layouts, const py::list& nodes) : owned_(nodes) {
    if (dtype == "float64") {
      graph_ = make_graph<double>(layouts, nodes);
    } else if (dtype == "float32") {
      graph_ = make_graph<float>(layouts, nodes);
    } else {
      throw py::value_error("dtype must be float32 or float64");
    }
  }
  py::list forward(const py::list& inputs, const std::vector<std::size_t>& wanted, int thread_count,
                   bool bfloat16) const {
    return std::visit(
        [&](const auto& graph) {
          Threads threads = graph->threads_worth(thread_count, inputs, 1);
          threads.bfloat16 = bfloat16;
          const auto run = graph->begin(
              inputs, wanted, threads, [&](const auto& views) { return graph->graph.forward(views, wanted, threads); });
          return graph->outputs_of(run, wanted, threads);
        },
        graph_);
  }
  // bfloat16: dense layers and convolutions may round the operands of their products to it, those of float32.
  AnyPlan plan(const py::list& rules, const py::list& bounds, int thread_count, bool bfloat16) const {
    Threads threads = threads_for(thread_count);
    threads.bfloat16 = bfloat16;
    return std::visit([&](const auto& graph) { return plan_of(graph, rules, bounds, threads); }, graph_);
  }

 private:
  template <class T>
  static AnyPlan plan_of(const SharedGraph<T>& graph, const py::list& rules, const py::list& bounds,
                         const Threads& threads) {
    return AnyPlan(std::make_unique<const PlanOfGraph<T>>(graph, rules, bounds, threads));
  }

  py::list owned_;  // keeps the arrays alive that the layers look at
  std::variant<SharedGraph<float>, SharedGraph<double>> graph_;
};

}  // namespace

void register_network(py::module_& m) {
  py::class_<AnyPlan>(m, "Plan").def("explain", &AnyPlan::explain, py::arg("inputs"), py::arg("targets"),
                                     py::arg("one"), py::arg("start"), py::arg("outputs"), py::arg("wanted"),
                                     py::arg("masks"), py::arg("threads"), py::arg("zeros") = py::none(),
                                     py::arg("checkpoint") = false);
  py::class_<AnyGraph>(m, "Graph")
      .def(py::init<const std::string&, const py::list&, const py::list&>(), py::arg("dtype"), py::arg("layouts"),
           py::arg("nodes"))
      .def("forward", &AnyGraph::forward, py::arg("inputs"), py::arg("wanted"), py::arg("threads"),
           py::arg("bfloat16") = false)
      .def("plan", &AnyGraph::plan, py::arg("rules"), py::arg("bounds"), py::arg("threads"),
           py::arg("bfloat16") = false, py::keep_alive<0, 1>());
  // The poll leaves Python's own exception (KeyboardInterrupt) behind; hand that on.
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) {
        std::rethrow_exception(p);
      }
    } catch (const Interrupted&) {
      if (!PyErr_Occurred()) {
        PyErr_SetNone(PyExc_KeyboardInterrupt);
      }
    }
  });
}

}  // namespace pylrp::bindings
