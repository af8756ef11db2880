#include "layers/registry.hpp"

#include "base/error.hpp"

namespace pylrp {

// layer_kinds.inc, which CMake writes, has LAYER(name) for each name in its list.
#define LAYER(name) void register_##name(LayerKinds* kinds);
#include "layer_kinds.inc"
#undef LAYER

const LayerKinds& layer_kinds() {
  static const LayerKinds all = [] {
    LayerKinds kinds;
#define LAYER(name) register_##name(&kinds);
#include "layer_kinds.inc"
#undef LAYER
    return kinds;
  }();
  return all;
}

template <class T>
std::unique_ptr<Layer<T>> LayerKinds::make(const std::string& kind, const Fields<T>& fields) const {
  const auto found = makers_.find(kind);
  if (found == makers_.end()) {
    throw Error("the core has no layer of kind '" + kind + "'");
  }
  return std::get<LayerMaker<T>>(found->second)(kind, fields);
}

template std::unique_ptr<Layer<float>> LayerKinds::make(const std::string&, const Fields<float>&) const;
template std::unique_ptr<Layer<double>> LayerKinds::make(const std::string&, const Fields<double>&) const;

}  // namespace pylrp
