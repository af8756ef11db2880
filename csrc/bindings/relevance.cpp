// Rule and relevance(): Python's lists of arrays to a chain of dense layers and back.
#include <pybind11/stl.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "bindings/array.hpp"
#include "bindings/compiled_rule.hpp"
#include "bindings/lock.hpp"
#include "bindings/register.hpp"
#include "engine/chain.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp::bindings {
namespace {

template <class E, std::size_t N>
E choice(const std::string& name, const char* const (&names)[N], const char* what) {
  for (std::size_t i = 0; i < N; ++i) {
    if (name == names[i]) {
      return static_cast<E>(i);
    }
  }
  throw py::value_error("unknown " + std::string(what) + " '" + name + "'");
}

// "square", "one" or (p, n).
WeightMap weight_map(py::handle map) {
  if (py::isinstance<py::str>(map)) {
    static constexpr const char* kNames[] = {"signs", "square", "one"};
    return {choice<MapKind>(map.cast<std::string>(), kNames, "weight map")};
  }
  const auto [p, n] = map.cast<std::pair<double, double>>();
  return {MapKind::kSigns, p, n};
}

// None, "square" or (p, n).
BiasMap bias_map(py::handle map) {
  if (map.is_none()) {
    return {};
  }
  if (py::isinstance<py::str>(map)) {
    static constexpr const char* kNames[] = {"none", "signs", "square"};
    return {choice<BiasKind>(map.cast<std::string>(), kNames, "bias map")};
  }
  const auto [p, n] = map.cast<std::pair<double, double>>();
  return {BiasKind::kSigns, p, n};
}

// Groups: (terms, bias, coefficient, mask, guard, epsilon); terms: (part, map, sign).
// treatment: the name of a layer's own formula, or "none"; then there are no groups.
CompiledRule compile_rule(const py::sequence& groups, const std::string& treatment) {
  static constexpr const char* kTreatments[] = {"none",       "taylor",      "stop",   "detach", "detach_all", "half",
                                                "value_left", "value_right", "signal", "spread", "gradient"};
  static constexpr const char* kPartNames[] = {"input", "positive", "negative", "one", "low", "high"};
  static_assert(std::size(kPartNames) == kRuleParts);
  static constexpr const char* kMasks[] = {"all", "positive", "negative"};
  static constexpr const char* kGuards[] = {"signed", "where_zero"};
  Rule rule;
  rule.treatment = choice<Treatment>(treatment, kTreatments, "treatment");
  for (const py::handle item : groups) {
    const auto fields = item.cast<py::tuple>();
    Group group;
    for (const py::handle term_item : fields[0]) {
      const auto term = term_item.cast<py::tuple>();
      group.terms.push_back(
          {choice<Part>(term[0].cast<std::string>(), kPartNames, "part"), weight_map(term[1]), term[2].cast<double>()});
    }
    group.bias = bias_map(fields[1]);
    group.coefficient = fields[2].cast<double>();
    group.mask = choice<Mask>(fields[3].cast<std::string>(), kMasks, "mask");
    group.guard = choice<Guard>(fields[4].cast<std::string>(), kGuards, "guard");
    group.epsilon = fields[5].cast<double>();
    rule.groups.push_back(std::move(group));
  }
  return CompiledRule(std::move(rule));
}

// Index of the first entry that is NaN or infinite; rows scanned by the kernel, then searched.
template <class T>
std::optional<py::tuple> first_not_finite(Matrix<const T> view, bool vector) {
  for (Index i = 0; i < view.rows; ++i) {
    if (kernels::table<T>().scan(view.cols, view.row(i)) & kernels::kNotFinite) {
      const T* row = view.row(i);
      const Index j = std::find_if(row, row + view.cols, [](T v) { return !(v - v == 0); }) - row;
      return vector ? py::tuple(py::make_tuple(j)) : py::tuple(py::make_tuple(i, j));
    }
  }
  return std::nullopt;
}

template <class T>
struct Call {
  std::vector<ChainLayer<T>> layers;
  Matrix<const T> top;
  Threads threads;

  Call(const py::sequence& weights, const py::sequence& biases, const py::sequence& inputs, const py::sequence& rules,
       const py::sequence& bounds, const py::array& out, int thread_count, bool bfloat16)
      : top(matrix<T>(out, "out")), threads(threads_for(thread_count)) {
    threads.bfloat16 = bfloat16;
    const std::size_t depth = weights.size();
    if (biases.size() != depth || inputs.size() != depth || rules.size() != depth || bounds.size() != depth) {
      throw py::value_error("weights, biases, acts, rules and bounds differ in length");
    }
    layers.resize(depth);
    Index width = top.cols;
    checked_product({top.rows, width}, "the relevance at the top");
    for (std::size_t l = depth; l-- > 0;) {
      ChainLayer<T>& layer = layers[l];
      if (bfloat16 && py::isinstance<py::array_t<std::uint16_t>>(weights[l])) {
        const Matrix<const std::uint16_t> bits = matrix<std::uint16_t>(weights[l], "weight");
        layer.dense.half = {reinterpret_cast<const kernels::Bfloat16*>(bits.data), bits.rows, bits.cols, bits.stride};
        layer.dense.weight = {nullptr, bits.rows, bits.cols, bits.cols};
      } else {
        layer.dense.weight = matrix<T>(weights[l], "weight");
      }
      if (layer.dense.weight.rows != width) {
        throw py::value_error("a weight's rows differ from the relevance above it");
      }
      layer.dense.bias = vector_or_null<T>(biases[l], width, "bias");
      width = layer.dense.weight.cols;
      checked_product({layer.dense.weight.rows, width}, "a weight");
      checked_product({top.rows, width}, "a layer's relevance");
      layer.rule = &rules[l].template cast<const CompiledRule&>();
      if (layer.rule->any().passes() && layer.dense.weight.rows != width) {
        throw py::value_error("relevance can only pass through a layer of equal widths");
      }
      layer.bounds = bounds_of<T>(bounds[l], *layer.rule, width);
      if (!inputs[l].is_none()) {
        layer.input = matrix<T>(inputs[l], "acts");
        if (layer.input.rows != top.rows || layer.input.cols != width) {
          throw py::value_error("an activation's shape does not fit");
        }
      } else if (layer.rule->any().reads_input()) {
        throw py::value_error("a rule that reads the input has none");
      }
    }
  }

  // Raises on NaN and infinity; notes which inputs have no negative entry.
  void scan_inputs(const Threads& some) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const int flags = scan_rows(layers[l].input, some);
      if (flags & kernels::kNotFinite) {
        throw Error("acts[" + std::to_string(l) + "] is not finite");
      }
      layers[l].nonnegative = !(flags & kernels::kHasNegative);
    }
    if (scan_rows(top, some) & kernels::kNotFinite) {
      throw Error("out is not finite");
    }
  }

  py::tuple run(bool vector, bool want_layers, bool want_ledger) {
    const std::size_t depth = layers.size();
    std::vector<py::array_t<T>> results(depth);
    Index widest = 0;
    for (std::size_t l = 0; l < depth; ++l) {
      const Index width = layers[l].dense.weight.cols;
      if (l == 0 || want_layers) {
        results[l] = new_array<T>(vector, top.rows, width, &layers[l].result);
      } else {
        widest = std::max(widest, width);
      }
    }
    Buffer<T> hidden(2 * checked_product({top.rows, widest}, "a layer's relevance"));  // two layers are alive at a time
    for (std::size_t l = 1; l < depth && !want_layers; ++l) {
      const Index width = layers[l].dense.weight.cols;
      layers[l].result = {hidden.data() + static_cast<Index>(l % 2) * top.rows * widest, top.rows, width, width};
    }
    py::object ledger = py::none();
    double* ledger_data = nullptr;
    if (want_ledger) {
      py::array_t<double> pages({static_cast<Index>(depth), Index{kLedgerColumns}, top.rows});
      ledger_data = pages.mutable_data();
      ledger = std::move(pages);
    }
    bool finite = true;
    {
      // From here to the end of the block only raw memory that the caller's references keep alive is touched.
      const Unlocked unlocked;
      double products = 0;
      for (const ChainLayer<T>& layer : layers) {
        products += static_cast<double>(bounded_product({top.rows, layer.dense.weight.rows, layer.dense.weight.cols}));
      }
      const Threads some = threads.alone_if(products < kWorthTeam);
      with_team(some, [&] {
        scan_inputs(some);
        relevance_through_chain(layers, top, ledger_data, some);
        for (std::size_t l = 0; l < depth && finite; l += want_layers ? 1 : depth) {
          const Matrix<T>& result = layers[l].result;
          finite = !(scan_rows<T>({result.data, result.rows, result.cols, result.stride}, some) & kernels::kNotFinite);
        }
      });
    }
    if (!finite) {
      throw Error("the relevance is not finite");
    }
    py::object answer;
    if (want_layers) {
      py::list all;
      for (auto& result : results) {
        all.append(std::move(result));
      }
      answer = std::move(all);
    } else {
      answer = std::move(results[0]);
    }
    return py::make_tuple(std::move(answer), std::move(ledger));
  }
};

// bfloat16: products may round their operands to it; weights may be given so then, their bits as uint16.
py::tuple relevance(const py::sequence& weights, const py::sequence& biases, const py::sequence& inputs,
                    const py::sequence& rules, const py::sequence& bounds, const py::array& out, int threads,
                    bool layers, bool ledger, bool bfloat16) {
  const auto go = [&](auto tag) {
    using T = decltype(tag);
    return Call<T>(weights, biases, inputs, rules, bounds, out, threads, bfloat16).run(out.ndim() == 1, layers, ledger);
  };
  return out.dtype().equal(py::dtype::of<double>()) ? go(double{}) : go(float{});
}

py::object first_not_finite_any(const py::array& array) {
  std::optional<py::tuple> at;
  if (array.dtype().equal(py::dtype::of<double>())) {
    at = first_not_finite(matrix<double>(array, "array"), array.ndim() == 1);
  } else {
    at = first_not_finite(matrix<float>(array, "array"), array.ndim() == 1);
  }
  return at ? py::object(*at) : py::none();
}

}  // namespace

void register_relevance(py::module_& m) {
  py::class_<CompiledRule>(m, "Rule").def(py::init(&compile_rule), py::arg("groups"), py::arg("treatment") = "none");
  m.def("relevance", &relevance, py::arg("weights"), py::arg("biases"), py::arg("acts"), py::arg("rules"),
        py::arg("bounds"), py::arg("out"), py::arg("threads"), py::arg("layers"), py::arg("ledger"),
        py::arg("bfloat16") = false);
  m.def("first_not_finite", &first_not_finite_any, py::arg("array"));
}

}  // namespace pylrp::bindings
