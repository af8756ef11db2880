// The one exception the core throws. Python's bindings turn it into ValueError (or KeyboardInterrupt).
#pragma once

#include <stdexcept>
#include <string>

namespace pylrp {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A long call was stopped (Ctrl-C); whoever polled keeps the reason.
struct Interrupted : Error {
  Interrupted() : Error("interrupted") {}
};

}  // namespace pylrp
