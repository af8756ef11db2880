// The one exception the core throws. Python's bindings turn it into ValueError (or KeyboardInterrupt).
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace pylrp {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A node of a graph, by its number, can't be as it is described.
struct NodeError : Error {
  NodeError(std::size_t number, const std::string& reason) : Error(reason), node(number) {}
  std::size_t node;
};

// A long call was stopped (Ctrl-C); the caller who polled keeps the reason.
struct Interrupted : Error {
  Interrupted() : Error("interrupted") {}
};

}  // namespace pylrp
