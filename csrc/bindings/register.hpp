// The families of bindings, one file each; module.cpp is their table of contents.
#pragma once

#include <pybind11/pybind11.h>

#include "base/parallel.hpp"

namespace pylrp::bindings {

void register_relevance(pybind11::module_& m);  // Rule, relevance
void register_network(pybind11::module_& m);    // Plan
void register_info(pybind11::module_& m);       // instruction sets, threads, the machine's ceilings

// Looks for Ctrl-C; needs no lock held. True: stop, the Python error is set.
bool poll_signals();

// threads < 1 means the default.
Threads threads_for(int threads);

}  // namespace pylrp::bindings
