// Graph: the layers of a network, and its forward pass. Plan: a graph with its rules; an explanation in one call.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "bindings/graph_values.hpp"
#include "bindings/make_layer.hpp"
#include "bindings/register.hpp"
#include "engine/plan.hpp"

namespace pylrp::bindings {
namespace {

class AnyPlan {
 public:
  virtual ~AnyPlan() = default;
  virtual py::tuple explain(const py::list& inputs, const py::list& targets, bool one, std::size_t start,
                            const std::vector<std::size_t>& outputs, const std::vector<std::size_t>& wanted,
                            const std::vector<std::pair<std::size_t, std::vector<bool>>>& masks, int threads) const = 0;
};

class AnyGraph {
 public:
  virtual ~AnyGraph() = default;
  virtual py::list forward(const py::list& inputs, const std::vector<std::size_t>& wanted, int threads) const = 0;
  virtual std::unique_ptr<AnyPlan> plan(const py::list& rules, const py::list& bounds, int threads) const = 0;
};

template <class T>
class TypedPlan : public AnyPlan {
 public:
  TypedPlan(std::shared_ptr<const GraphWithLayouts<T>> graph, const py::list& rules, const py::list& bounds,
            int threads)
      : owned_(py::make_tuple(rules, bounds)), graph_(std::move(graph)), plan_(make(*graph_, rules, bounds, threads)) {}

  // targets: one, each None (the top class), an int64 array (1) or (batch) of channels, or an array (batch, size of the
  // start) of relevance. Returns (values of `outputs`, chosen channels a target or None, relevance (targets * batch,
  // size) of `wanted`, ledger (nodes, columns, targets * batch)).
  py::tuple explain(const py::list& inputs, const py::list& targets, bool one, std::size_t start,
                    const std::vector<std::size_t>& outputs, const std::vector<std::size_t>& wanted,
                    const std::vector<std::pair<std::size_t, std::vector<bool>>>& masks,
                    int thread_count) const override {
    graph_->check_value(start);
    const Threads threads = graph_->threads_worth(thread_count, inputs, static_cast<Index>(targets.size()));
    std::vector<std::size_t> kept = outputs;
    kept.push_back(start);
    auto run = graph_->begin(inputs, kept, threads, [&](const std::vector<Matrix<const T>>& views) {
      return plan_.forward(views, kept, start, threads);
    });
    const Index batch = run.forward.batch;
    const Index rows = checked_product({batch, static_cast<Index>(targets.size())}, "targets by samples");
    const Layout& layout = graph_->layouts[start];
    const Buffer<T> top(checked_product({rows, layout.size()}, "the relevance at the top"));
    const Matrix<T> top_view{top.data(), rows, layout.size(), layout.size()};
    py::list chosen;
    for (std::size_t t = 0; t < targets.size(); ++t) {
      chosen.append(begin_target(targets[t], run.forward.values[start], layout, one,
                                 top_view.slice(static_cast<Index>(t) * batch, batch)));
    }
    RelevanceRequest<T> request{start, {top.data(), rows, layout.size(), layout.size()}, {}, {}, nullptr};
    request.results.resize(graph_->graph.values());
    std::vector<Buffer<T>> converted(wanted.size());
    py::list relevance;
    std::vector<Matrix<T>> user(wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      graph_->check_value(wanted[i]);
      const Layout& of = graph_->layouts[wanted[i]];
      relevance.append(new_array<T>(false, rows, of.size(), &user[i]));
      Matrix<T>& result = request.results[wanted[i]];
      if (of.same()) {
        result = user[i];
      } else {
        converted[i].reset(checked_product({rows, of.size()}, "a relevance"));
        result = {converted[i].data(), rows, of.size(), of.size()};
      }
    }
    for (const auto& [value, channels] : masks) {
      graph_->check_value(value);
      if (static_cast<Index>(channels.size()) != graph_->layouts[value].channels) {
        throw py::value_error("a mask has one entry a channel");
      }
      request.masks.push_back({value, channels});
    }
    py::array_t<double> ledger({static_cast<Index>(graph_->graph.nodes().size()), Index{kLedgerColumns}, rows});
    request.ledger = ledger.mutable_data();
    bool finite = true;
    {
      const Unlocked unlocked;
      with_team(threads, [&] {
        plan_.relevance(&run.forward, request, threads);
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          finite = finite && !(scan_rows(request.results[wanted[i]]) & kernels::kNotFinite);
          if (converted[i].data() != nullptr) {
            to_user(graph_->layouts[wanted[i]], {converted[i].data(), rows, user[i].cols, user[i].cols}, user[i],
                    threads);
          }
        }
      });
    }
    if (!finite) {
      throw Error("the relevance overflows: a denominator is nearly zero; use a rule with a larger stabilizer");
    }
    return py::make_tuple(graph_->outputs_of(run, outputs, threads), std::move(chosen), std::move(relevance),
                          std::move(ledger));
  }

 private:
  static Plan<T> make(const GraphWithLayouts<T>& graph, const py::list& rules, const py::list& bounds, int threads) {
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
    const Unlocked unlocked;
    return Plan<T>(graph.graph, std::move(assigned), threads_for(threads));
  }

  // The absolute value of a channel's sum over all positions, by which relevance is divided that starts at one; 1 where
  // it is zero, then there is no relevance to divide.
  static T size_of_sum(const T* channel, const Layout& layout) {
    double sum = 0;
    for (Index p = 0; p < layout.positions; ++p) {
      sum += static_cast<double>(channel[p * layout.channels]);
    }
    return sum == 0 ? T(1) : static_cast<T>(std::abs(sum));
  }

  // Writes the relevance at the start; returns the explained channels, or None where the relevance was given.
  static py::object begin_target(py::handle target, Matrix<const T> output, const Layout& layout, bool one,
                                 Matrix<T> top) {
    if (!target.is_none() && !py::isinstance<py::array_t<std::int64_t>>(target)) {
      const Matrix<const T> given = matrix<T>(target, "target");
      if (given.rows != top.rows || given.cols != top.cols) {
        throw py::value_error("the target's shape differs from the output's");
      }
      if (layout.same()) {
        for (Index i = 0; i < top.rows; ++i) {
          std::copy_n(given.row(i), top.cols, top.row(i));
        }
      } else {
        to_core(layout, given, top, Threads{});
      }
      return py::none();
    }
    py::array_t<std::int64_t> chosen(top.rows);
    std::int64_t* const classes = chosen.mutable_data();
    for (Index i = 0; i < top.rows; ++i) {
      const T* row = output.row(i);
      if (target.is_none()) {
        classes[i] = std::max_element(row, row + output.cols) - row;
      } else {
        const auto array = py::reinterpret_borrow<py::array_t<std::int64_t>>(target);
        classes[i] = array.at(array.size() == 1 ? 0 : i);
      }
      if (classes[i] < 0 || classes[i] >= layout.channels) {
        throw py::value_error("a target is not a class of the output");
      }
      std::fill_n(top.row(i), top.cols, T(0));
      const T divisor = one ? size_of_sum(row + classes[i], layout) : T(1);
      for (Index p = 0; p < layout.positions; ++p) {
        const Index at = p * layout.channels + classes[i];
        top.row(i)[at] = row[at] / divisor;
      }
    }
    return std::move(chosen);
  }

  py::tuple owned_;  // keeps the rules and bounds alive that the plan looks at
  std::shared_ptr<const GraphWithLayouts<T>> graph_;
  Plan<T> plan_;
};

template <class T>
class TypedGraph : public AnyGraph {
 public:
  // layouts: (channels, positions, channels last) of each value, inputs first; nodes: (kind, fields, inputs).
  TypedGraph(const py::list& layouts, const py::list& nodes) : owned_(nodes) {
    std::vector<Layout> of;
    for (const py::handle item : layouts) {
      const auto [channels, positions, last] = item.cast<std::tuple<Index, Index, bool>>();
      of.push_back({channels, positions, last});
      require_fit(channels > 0, "the channels of a value");
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
      GraphNode<T> node = make_node(made.size(), item.cast<py::tuple>(), of[inputs + made.size()]);
      if (node.inputs.empty() || std::any_of(node.inputs.begin(), node.inputs.end(),
                                             [&](std::size_t value) { return value >= inputs + made.size(); })) {
        throw py::value_error("a node reads what comes later");
      }
      made.push_back(std::move(node));
    }
    graph_ = std::make_shared<GraphWithLayouts<T>>(
        GraphWithLayouts<T>{Graph<T>(std::move(sizes), std::move(made)), std::move(of)});
  }
  py::list forward(const py::list& inputs, const std::vector<std::size_t>& wanted, int thread_count) const override {
    const Threads threads = graph_->threads_worth(thread_count, inputs, 1);
    const auto run = graph_->begin(inputs, wanted, threads, [&](const std::vector<Matrix<const T>>& views) {
      return graph_->graph.forward(views, wanted, threads);
    });
    return graph_->outputs_of(run, wanted, threads);
  }
  std::unique_ptr<AnyPlan> plan(const py::list& rules, const py::list& bounds, int threads) const override {
    return std::make_unique<TypedPlan<T>>(graph_, rules, bounds, threads);
  }

 private:
  static GraphNode<T> make_node(std::size_t number, const py::tuple& fields, const Layout& layout) {
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

  py::list owned_;  // keeps the arrays alive that the layers look at
  std::shared_ptr<const GraphWithLayouts<T>> graph_;
};

}  // namespace

void register_network(py::module_& m) {
  py::class_<AnyPlan>(m, "Plan").def("explain", &AnyPlan::explain, py::arg("inputs"), py::arg("targets"),
                                     py::arg("one"), py::arg("start"), py::arg("outputs"), py::arg("wanted"),
                                     py::arg("masks"), py::arg("threads"));
  py::class_<AnyGraph>(m, "Graph")
      .def(py::init([](const std::string& dtype, const py::list& layouts,
                       const py::list& nodes) -> std::unique_ptr<AnyGraph> {
             if (dtype == "float64") {
               return std::make_unique<TypedGraph<double>>(layouts, nodes);
             }
             if (dtype == "float32") {
               return std::make_unique<TypedGraph<float>>(layouts, nodes);
             }
             throw py::value_error("dtype must be float32 or float64");
           }),
           py::arg("dtype"), py::arg("layouts"), py::arg("nodes"))
      .def("forward", &AnyGraph::forward, py::arg("inputs"), py::arg("wanted"), py::arg("threads"))
      .def("plan", &AnyGraph::plan, py::arg("rules"), py::arg("bounds"), py::arg("threads"), py::keep_alive<0, 1>());
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
