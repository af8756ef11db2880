// A layer of the core from Python's description: its kind and a dict.
#pragma once

#include <memory>
#include <string>

#include "bindings/array.hpp"
#include "layers/layer.hpp"

namespace pylrp::bindings {

// Arrays are used in place: the caller keeps them alive.
template <class T>
std::unique_ptr<Layer<T>> make_layer(const std::string& kind, const py::dict& fields);

}  // namespace pylrp::bindings
