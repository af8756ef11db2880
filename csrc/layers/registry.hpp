// The kinds of layers by name. Each layer's file ends with a function register_NAME() that names its kinds and their
// makers; CMakeLists.txt has the list of files, from which registry.cpp calls these functions.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "layers/fields.hpp"
#include "layers/layer.hpp"

namespace pylrp {

// Makes a layer of a kind from its description. Throws Error where that describes none.
template <class T>
using LayerMaker = std::unique_ptr<Layer<T>> (*)(const std::string& kind, const Fields<T>& fields);

class LayerKinds {
 public:
  void add(const std::string& kind, LayerMaker<float> f32, LayerMaker<double> f64) { makers_[kind] = {f32, f64}; }
  template <class T>
  std::unique_ptr<Layer<T>> make(const std::string& kind, const Fields<T>& fields) const;

 private:
  std::map<std::string, std::pair<LayerMaker<float>, LayerMaker<double>>> makers_;
};

// All that were compiled in.
const LayerKinds& layer_kinds();

}  // namespace pylrp
