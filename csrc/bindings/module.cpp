// pylrp._core: table of contents of the bindings.
#include "base/error.hpp"
#include "bindings/lock.hpp"
#include "bindings/register.hpp"

namespace py = pybind11;

// The module keeps no state of its own beyond atomics, so it needs no GIL (free-threaded Python).
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "pylrp's compiled core; use the pylrp package.";
  static py::handle core_error = py::register_local_exception<pylrp::Error>(m, "CoreError", PyExc_ValueError);
  core_error.attr("node") = py::none();
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const pylrp::NodeError& error) {
      const py::object made = core_error(error.what());
      made.attr("node") = error.node;
      PyErr_SetObject(core_error.ptr(), made.ptr());
    }
  });
  pylrp::bindings::register_lock();
  pylrp::bindings::register_relevance(m);
  pylrp::bindings::register_network(m);
  pylrp::bindings::register_info(m);
}
