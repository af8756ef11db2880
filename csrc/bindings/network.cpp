// Plan: a network with its rules, prepared once; forward and explain in one call each.
#include "engine/network.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <string>

#include "bindings/compiled_rule.hpp"
#include "bindings/register.hpp"

namespace pylrp::bindings {
namespace {

Activation activation_of(py::handle item) {
  static const std::map<std::string, ActivationKind> kinds = {
      {"identity", ActivationKind::kIdentity},
      {"relu", ActivationKind::kReLU},
      {"leaky_relu", ActivationKind::kLeakyReLU},
      {"elu", ActivationKind::kELU},
      {"gelu", ActivationKind::kGELU},
      {"gelu_tanh", ActivationKind::kGELUTanh},
      {"silu", ActivationKind::kSiLU},
      {"hard_swish", ActivationKind::kHardSwish},
      {"tanh", ActivationKind::kTanh},
      {"sigmoid", ActivationKind::kSigmoid},
      {"softplus", ActivationKind::kSoftplus},
  };
  const auto [name, parameter] = item.cast<std::pair<std::string, double>>();
  const auto found = kinds.find(name);
  if (found == kinds.end()) {
    throw py::value_error("unknown activation '" + name + "'");
  }
  return {found->second, parameter};
}

class AnyPlan {
 public:
  virtual ~AnyPlan() = default;
  virtual py::object forward(const py::array& x, int threads) const = 0;
  virtual py::tuple explain(const py::array& x, const py::list& targets, bool one, int threads) const = 0;
};

template <class T>
class TypedPlan : public AnyPlan {
 public:
  TypedPlan(const py::list& weights, const py::list& biases, const py::list& activations, const py::list& rules,
            const py::list& bounds, int threads)
      : owned_(py::make_tuple(weights, biases, rules, bounds)),
        plan_(make(weights, biases, activations, rules, bounds, threads)) {}

  py::object forward(const py::array& x, int threads) const override {
    const Matrix<const T> input = checked_input(x);
    Matrix<T> view;
    auto output = new_array<T>(x.ndim() == 1, input.rows, plan_.outputs(), &view);
    const py::gil_scoped_release release;
    require_finite(input);
    plan_.forward(input, view, threads_for(threads));
    return std::move(output);
  }

  // targets: each None, an int64 array (1) or (batch), or an array (batch, classes) of relevance.
  // Returns output, and a list of (classes or None, [R by layer, input first, top last], ledger), one a target.
  py::tuple explain(const py::array& x, const py::list& targets, bool one, int thread_count) const override {
    const Matrix<const T> input = checked_input(x);
    const bool single = x.ndim() == 1;
    const Index batch = input.rows, classes = plan_.outputs();
    const Threads threads = threads_for(thread_count);
    Matrix<T> output;
    auto output_array = new_array<T>(single, batch, classes, &output);
    typename Plan<T>::Pass pass;
    {
      const py::gil_scoped_release release;
      require_finite(input);
      pass = plan_.forward(input, output, threads);
    }
    py::list answers;
    for (const py::handle target : targets) {
      Matrix<T> top;
      auto top_array = new_array<T>(single, batch, classes, &top);
      py::object chosen = start(target, output, one, top);
      std::vector<Matrix<T>> results(plan_.depth());
      py::list layers;
      for (std::size_t l = 0; l < plan_.depth(); ++l) {
        layers.append(new_array<T>(single, batch, plan_.width(l), &results[l]));
      }
      layers.append(std::move(top_array));
      py::array_t<double> ledger({static_cast<Index>(plan_.depth()), Index{kLedgerColumns}, batch});
      double* const ledger_data = ledger.mutable_data();
      bool finite = true;
      {
        const py::gil_scoped_release release;
        plan_.relevance(pass, {top.data, batch, classes, classes}, results, ledger_data, threads);
        finite = !(scan_rows(results[0]) & kernels::kNotFinite);
      }
      if (!finite) {
        throw Error("the relevance overflows: a denominator is nearly zero; use a rule with a larger stabilizer");
      }
      answers.append(py::make_tuple(std::move(chosen), std::move(layers), std::move(ledger)));
    }
    return py::make_tuple(std::move(output_array), std::move(answers));
  }

 private:
  static Plan<T> make(const py::list& weights, const py::list& biases, const py::list& activations,
                      const py::list& rules, const py::list& bounds, int threads) {
    const std::size_t depth = weights.size();
    if (depth == 0 || biases.size() != depth || activations.size() != depth || rules.size() != depth ||
        bounds.size() != depth) {
      throw py::value_error("weights, biases, activations, rules and bounds differ in length");
    }
    std::vector<Stage<T>> stages(depth);
    std::vector<typename Plan<T>::LayerRule> assigned;
    for (std::size_t l = 0; l < depth; ++l) {
      const Matrix<const T> weight = matrix<T>(weights[l], "weight");
      if (l > 0 && weight.cols != stages[l - 1].dense.weight.rows) {
        throw py::value_error("a weight's columns differ from the layer below");
      }
      stages[l].dense = {weight, vector_or_null<T>(biases[l], weight.rows, "bias")};
      for (const py::handle item : activations[l]) {
        stages[l].activations.push_back(activation_of(item));
      }
      const auto& rule = rules[l].cast<const CompiledRule&>();
      if (rule.any_input.passes() && weight.rows != weight.cols) {
        throw py::value_error("relevance can only pass through a layer of equal widths");
      }
      assigned.push_back({&rule, bounds_of<T>(bounds[l], rule, weight.cols)});
    }
    const py::gil_scoped_release release;
    return Plan<T>(std::move(stages), assigned, threads_for(threads));
  }

  Matrix<const T> checked_input(const py::array& x) const {
    const Matrix<const T> input = matrix<T>(x, "x");
    if (input.cols != plan_.inputs()) {
      throw py::value_error("the input's width does not fit");
    }
    return input;
  }

  static void require_finite(Matrix<const T> input) {
    if (scan_rows(input) & kernels::kNotFinite) {
      throw Error("x is not finite");
    }
  }

  // Writes the relevance at the top; returns the explained classes, or None where the relevance was given.
  static py::object start(py::handle target, Matrix<T> output, bool one, Matrix<T> top) {
    if (!target.is_none() && !py::isinstance<py::array_t<std::int64_t>>(target)) {
      const Matrix<const T> given = matrix<T>(target, "target");
      if (given.rows != top.rows || given.cols != top.cols) {
        throw py::value_error("the target's shape differs from the output's");
      }
      for (Index i = 0; i < top.rows; ++i) {
        std::copy_n(given.row(i), top.cols, top.row(i));
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
        if (classes[i] < 0 || classes[i] >= output.cols) {
          throw py::value_error("a target is not a class of the output");
        }
      }
      std::fill_n(top.row(i), top.cols, T(0));
      top.row(i)[classes[i]] = one ? T(1) : row[classes[i]];
    }
    return std::move(chosen);
  }

  py::tuple owned_;  // keeps the arrays and rules alive that the plan looks at
  Plan<T> plan_;
};

}  // namespace

void register_network(py::module_& m) {
  py::class_<AnyPlan>(m, "Plan")
      .def(py::init([](const py::list& weights, const py::list& biases, const py::list& activations,
                       const py::list& rules, const py::list& bounds, int threads) -> std::unique_ptr<AnyPlan> {
             if (weights.size() > 0 && py::cast<py::array>(weights[0]).dtype().equal(py::dtype::of<double>())) {
               return std::make_unique<TypedPlan<double>>(weights, biases, activations, rules, bounds, threads);
             }
             return std::make_unique<TypedPlan<float>>(weights, biases, activations, rules, bounds, threads);
           }),
           py::arg("weights"), py::arg("biases"), py::arg("activations"), py::arg("rules"), py::arg("bounds"),
           py::arg("threads"))
      .def("forward", &AnyPlan::forward, py::arg("x"), py::arg("threads"))
      .def("explain", &AnyPlan::explain, py::arg("x"), py::arg("targets"), py::arg("one"), py::arg("threads"));
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
