// pylrp._core: table of contents of the bindings.
#include "base/error.hpp"
#include "bindings/lock.hpp"
#include "bindings/register.hpp"

namespace py = pybind11;

// The module keeps no state of its own beyond atomics, so it needs no GIL (free-threaded Python).
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "pylrp's compiled core; use the pylrp package.";
  py::register_local_exception<pylrp::Error>(m, "CoreError", PyExc_ValueError);
  pylrp::bindings::register_lock();
  pylrp::bindings::register_relevance(m);
  pylrp::bindings::register_network(m);
  pylrp::bindings::register_info(m);
}
