#include "bindings/make_layer.hpp"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/lock.hpp"
#include "layers/registry.hpp"

namespace pylrp::bindings {
namespace {

// A dict of Python as a layer's description.
template <class T>
class DictFields : public Fields<T> {
 public:
  using Path = typename Fields<T>::Path;

  explicit DictFields(const py::dict& fields) : fields_(fields) {}
  Index integer(const char* name, Path at) const override { return field(name, at).template cast<Index>(); }
  std::vector<Index> integers(const char* name, Path at) const override {
    return field(name, at).template cast<std::vector<Index>>();
  }
  double real(const char* name) const override { return field(name).template cast<double>(); }
  std::vector<double> reals(const char* name) const override {
    const auto given = field(name).template cast<py::array_t<double, py::array::c_style | py::array::forcecast>>();
    return {given.data(), given.data() + given.size()};
  }
  bool flag(const char* name) const override { return field(name).template cast<bool>(); }
  std::string text(const char* name, Path at) const override { return field(name, at).template cast<std::string>(); }
  bool has(const char* name) const override { return fields_.contains(name) && !fields_[name].is_none(); }
  Matrix<const T> matrix(const char* name) const override { return bindings::matrix<T>(field(name), name); }
  const T* vector_or_null(const char* name, Index size) const override {
    return bindings::vector_or_null<T>(field(name), size, name);
  }
  Matrix<const std::int32_t> table(const char* name) const override {
    const auto array = field(name).template cast<py::array_t<std::int32_t, py::array::c_style>>();
    if (array.ndim() != 2) {
      throw py::value_error(std::string(name) + " is not a table");
    }
    tables_.append(array);  // it may be a copy
    return {array.data(), array.shape(0), array.shape(1), array.shape(1)};
  }

 private:
  py::object field(const char* name, Path at = {}) const {
    if (!fields_.contains(name)) {
      throw py::value_error(std::string("a layer's description lacks ") + name);
    }
    py::object found = fields_[name];
    for (const std::size_t i : at) {
      found = py::object(found[py::int_(i)]);
    }
    return found;
  }

  py::dict fields_;
  mutable py::list tables_;
};

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
  if (kind == "custom") {
    return std::make_unique<CustomLayer<T>>(fields["object"]);
  }
  return layer_kinds().make<T>(kind, DictFields<T>(fields));
}

template std::unique_ptr<Layer<float>> make_layer<float>(const std::string&, const py::dict&);
template std::unique_ptr<Layer<double>> make_layer<double>(const std::string&, const py::dict&);

}  // namespace pylrp::bindings
