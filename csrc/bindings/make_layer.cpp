#include "bindings/make_layer.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <map>

#include "bindings/lock.hpp"
#include "layers/activation.hpp"
#include "layers/add.hpp"
#include "layers/affine.hpp"
#include "layers/concat.hpp"
#include "layers/conv/conv.hpp"
#include "layers/dense/dense_layer.hpp"
#include "layers/lrn.hpp"
#include "layers/normalize.hpp"
#include "layers/pool.hpp"
#include "layers/prelu.hpp"
#include "layers/softmax.hpp"
#include "layers/sparse.hpp"

namespace pylrp::bindings {
namespace {

const std::map<std::string, ActivationKind>& activation_kinds() {
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
      {"clip", ActivationKind::kClip},
      {"hard_sigmoid", ActivationKind::kHardSigmoid},
      {"mish", ActivationKind::kMish},
      {"exp", ActivationKind::kExp},
      {"log", ActivationKind::kLog},
  };
  return kinds;
}

template <class T>
T field(const py::dict& fields, const char* name) {
  if (!fields.contains(name)) {
    throw py::value_error(std::string("a layer's description lacks ") + name);
  }
  return fields[name].cast<T>();
}

template <class T>
std::vector<T> vector_of(const py::dict& fields, const char* name) {
  const Matrix<const T> view = matrix<T>(field<py::object>(fields, name), name);
  return std::vector<T>(view.data, view.data + view.rows * view.cols);
}

template <class T>
using Made = std::unique_ptr<Layer<T>>;

template <class T>
Made<T> make_dense(const py::dict& fields) {
  const Matrix<const T> weight = matrix<T>(field<py::object>(fields, "weight"), "weight");
  return std::make_unique<DenseLayer<T>>(
      DenseWeights<T>{weight, vector_or_null<T>(field<py::object>(fields, "bias"), weight.rows, "bias")});
}

// weight: (out_channels, taps * in_channels / groups), depthwise (taps, channels).
template <class T>
Made<T> make_conv(const py::dict& fields) {
  const auto axes = [&](const char* name) { return field<Axes>(fields, name); };
  ConvWeights<T> conv{};
  conv.shape = {axes("in"),
                axes("out"),
                axes("kernel"),
                axes("stride"),
                axes("dilation"),
                axes("pad"),
                field<Index>(fields, "in_channels"),
                field<Index>(fields, "out_channels"),
                field<Index>(fields, "groups")};
  require_countable(conv.shape);
  conv.transposed = field<bool>(fields, "transposed");
  const Matrix<const T> weight = matrix<T>(field<py::object>(fields, "weight"), "weight");
  const bool depthwise = conv.depthwise();
  const Index rows = depthwise ? conv.shape.taps() : conv.shape.out_channels;
  const Index cols = depthwise ? conv.shape.in_channels : conv.shape.taps() * conv.shape.group_in();
  if (weight.rows != rows || weight.cols != cols || weight.stride != cols) {
    throw py::value_error("a convolution's weights do not fit its shape");
  }
  conv.weight = weight.data;
  conv.bias_by_position = field<bool>(fields, "bias_by_position");
  conv.bias = vector_or_null<T>(field<py::object>(fields, "bias"), conv.bias_size(), "bias");
  return std::make_unique<ConvLayer<T>>(conv);
}

template <class T>
Made<T> make_pool(const py::dict& fields, bool max) {
  std::array<PoolAxis, 3> axes;
  const auto given = field<py::list>(fields, "axes");  // (begin, end, divisor, step, size of the input)
  for (std::size_t a = 0; a < 3; ++a) {
    const auto axis = given[a].cast<py::tuple>();
    axes[a] = {axis[0].cast<std::vector<Index>>(), axis[1].cast<std::vector<Index>>(),
               axis[2].cast<std::vector<Index>>(), axis[3].cast<Index>(), axis[4].cast<Index>()};
  }
  return std::make_unique<PoolLayer<T>>(max, std::move(axes), field<Index>(fields, "channels"));
}

template <class T>
Made<T> make_sparse(const py::dict& fields) {
  const auto index = field<py::array_t<std::int32_t, py::array::c_style>>(fields, "index");  // (outputs, taps)
  const auto weight = field<py::object>(fields, "weight");
  const Index outputs = index.shape(0), taps = index.shape(1), inputs = field<Index>(fields, "inputs");
  Matrix<const T> weights;
  if (!weight.is_none()) {
    weights = matrix<T>(weight, "weight");
    if (weights.rows != outputs || weights.cols != taps || weights.stride != taps) {
      throw py::value_error("weights and index differ in shape");
    }
  } else if (taps != 1) {
    throw py::value_error("without weights an output has one input");
  }
  const auto given = field<py::array_t<double, py::array::c_style | py::array::forcecast>>(fields, "fill");
  if (given.size() != 1 && given.size() != outputs) {
    throw py::value_error("fill has neither one constant nor one for each output");
  }
  std::vector<T> fill(static_cast<std::size_t>(given.size()));
  std::transform(given.data(), given.data() + given.size(), fill.begin(), [](double v) { return static_cast<T>(v); });
  return std::make_unique<SparseLayer<T>>(inputs, outputs, taps, index.data(), weights.data, std::move(fill));
}

// A layer in Python: an object with forward(list of (batch, size) arrays) and relevance(inputs, output, relevance).
template <class T>
class CustomLayer : public Layer<T> {
 public:
  explicit CustomLayer(py::object object) : object_(std::move(object)) {}
  ~CustomLayer() override {
    const Locked locked;
    object_ = py::object();
  }
  Flow flow() const override { return Flow::kUnknown; }
  void require_sizes(const std::vector<Index>&, Index) const override {}  // fill() looks at every array

  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>&,
               const Threads&) const override {
    const Locked locked;
    fill(object_.attr("forward")(arrays(inputs, 0, inputs[0].rows)), output);
  }
  void relevance(const RelevanceJob<T>& job, const Threads&) const override {
    const Locked locked;
    for (Index t = 0; t < job.targets(); ++t) {
      const py::list inputs = arrays(job.inputs, 0, job.batch);
      const auto results = object_.attr("relevance")(inputs, array(job.relevance.slice(t * job.batch, job.batch)))
                               .template cast<py::list>();
      if (results.size() != job.results.size()) {
        throw py::value_error("a custom layer's relevance() returns one array an input");
      }
      for (std::size_t k = 0; k < job.results.size(); ++k) {
        fill(results[k], job.results[k].slice(t * job.batch, job.batch));
      }
    }
  }

 private:
  static py::array_t<T> array(Matrix<const T> m) {
    py::array_t<T> copy({m.rows, m.cols});
    for (Index i = 0; i < m.rows; ++i) {
      std::copy_n(m.row(i), m.cols, copy.mutable_data() + i * m.cols);
    }
    return copy;
  }
  static py::list arrays(const std::vector<Matrix<const T>>& views, Index first, Index rows) {
    py::list list;
    for (const Matrix<const T>& view : views) {
      list.append(array(view.slice(first, rows)));
    }
    return list;
  }
  static void fill(py::handle from, Matrix<T> to) {
    const Matrix<const T> view = matrix<T>(from, "a custom layer's array");
    if (view.rows != to.rows || view.cols != to.cols) {
      throw py::value_error("a custom layer's array does not fit");
    }
    for (Index i = 0; i < to.rows; ++i) {
      std::copy_n(view.row(i), view.cols, to.row(i));
    }
  }
  py::object object_;
};

}  // namespace

template <class T>
std::unique_ptr<Layer<T>> make_layer(const std::string& kind, const py::dict& fields) {
  const auto activation = activation_kinds().find(kind);
  if (activation != activation_kinds().end()) {
    return std::make_unique<ActivationLayer<T>>(
        Activation{activation->second, field<double>(fields, "a"), field<double>(fields, "b")});
  }
  using Maker = std::function<Made<T>(const py::dict&)>;
  static const std::map<std::string, Maker> makers = {
      {"dense", make_dense<T>},
      {"conv", make_conv<T>},
      {"maxpool", [](const py::dict& f) { return make_pool<T>(f, true); }},
      {"avgpool", [](const py::dict& f) { return make_pool<T>(f, false); }},
      {"sparse", make_sparse<T>},
      {"add", [](const py::dict&) { return std::make_unique<AddLayer<T>>(); }},
      {"concat",
       [](const py::dict& f) {
         return std::make_unique<ConcatLayer<T>>(field<Index>(f, "outer"), field<std::vector<Index>>(f, "blocks"));
       }},
      {"affine",
       [](const py::dict& f) {
         return std::make_unique<AffineLayer<T>>(vector_of<T>(f, "scale"), vector_of<T>(f, "shift"));
       }},
      {"prelu", [](const py::dict& f) { return std::make_unique<PReLULayer<T>>(vector_of<T>(f, "slope")); }},
      {"lrn",
       [](const py::dict& f) {
         return std::make_unique<LocalResponseNormLayer<T>>(field<Index>(f, "channels"), field<Index>(f, "size"),
                                                            field<double>(f, "alpha"), field<double>(f, "beta"),
                                                            field<double>(f, "bias"));
       }},
      {"softmax",
       [](const py::dict& f) {
         return std::make_unique<SoftmaxLayer<T>>(field<Index>(f, "channels"), field<bool>(f, "logarithm"));
       }},
      {"normalize",
       [](const py::dict& f) {
         return std::make_unique<NormalizeLayer<T>>(field<Index>(f, "channels"), field<int>(f, "norm"));
       }},
      {"custom", [](const py::dict& f) { return std::make_unique<CustomLayer<T>>(field<py::object>(f, "object")); }},
  };
  const auto maker = makers.find(kind);
  if (maker == makers.end()) {
    throw py::value_error("the core has no layer of kind '" + kind + "'");
  }
  return maker->second(fields);
}

template std::unique_ptr<Layer<float>> make_layer<float>(const std::string&, const py::dict&);
template std::unique_ptr<Layer<double>> make_layer<double>(const std::string&, const py::dict&);

}  // namespace pylrp::bindings
