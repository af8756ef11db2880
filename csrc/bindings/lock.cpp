#include "bindings/lock.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#include "base/system.hpp"

namespace py = pybind11;

namespace pylrp::bindings {
namespace {

// Sequentially consistent: a thread is counted before it looks at `ending`, and ending starts before the count is read.
std::atomic<bool> ending{false};
std::atomic<int> requests{0};
thread_local bool ends_interpreter = false;

// Those that ask already get the lock and go on in Python; nobody asks after this.
void end() {
  ends_interpreter = true;
  ending = true;
  const py::gil_scoped_release release;
  while (requests > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

LockRequest::LockRequest() {
  ++requests;
  if (ending && !ends_interpreter) {
    --requests;
    for (;;) {
      std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }
}

LockRequest::~LockRequest() { --requests; }

void register_lock() {
  after_fork_in_child([] { requests = 0; });  // those of the parent's other threads
  py::module_::import("atexit").attr("register")(py::cpp_function(&end));
}

}  // namespace pylrp::bindings
