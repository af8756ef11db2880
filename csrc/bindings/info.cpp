// What was built, what the machine has, what runs; and the machine's ceilings, for the benchmarks.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>

#include "base/buffer.hpp"
#include "base/cpus.hpp"
#include "bindings/lock.hpp"
#include "bindings/register.hpp"
#include "engine/ledger.hpp"
#include "kernels/dispatch.hpp"
#include "layers/conv/fast_paths.hpp"
#include "products/lists.hpp"
#include "products/operands.hpp"

namespace pylrp::bindings {

namespace py = pybind11;

namespace {

// For ever: a thread that Python does not wait for may be in a call when the process ends.
const Poll& kPollSignals = *new Poll(poll_signals);

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <class T>
double fma_peak(int threads) {
  const kernels::Table<T>& kernel = kernels::table<T>();
  constexpr Index kRounds = 2'000'000;
  double best = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::vector<double> operations(static_cast<std::size_t>(threads));
    const auto start = std::chrono::steady_clock::now();
    parallel_for(threads, {threads, &kPollSignals}, [&](Index i) {
      T sink[2] = {T(0.5), T(0.25)};
      operations[static_cast<std::size_t>(i)] = kernel.peak(kRounds, sink) + (sink[0] > T(1e30) ? 1 : 0);
    });
    const double elapsed = seconds_since(start);
    double total = 0;
    for (const double n : operations) {
      total += n;
    }
    best = std::max(best, total / elapsed / 1e9);
  }
  return best;
}

double read_bandwidth(int threads, Index bytes) {
  const kernels::Table<float>& kernel = kernels::table<float>();
  const Index n = bytes / Index(sizeof(float)), chunks = 64;
  Buffer<float> memory(n);
  std::fill(memory.data(), memory.data() + n, 1.0F);
  double best = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::vector<float> sums(chunks);
    const auto start = std::chrono::steady_clock::now();
    parallel_for(chunks, {threads, &kPollSignals}, [&](Index c) {
      const float* rows[4];
      const Index begin = n * c / chunks, part = (n * (c + 1) / chunks - begin) / 4;
      for (Index r = 0; r < 4; ++r) {
        rows[r] = memory.data() + begin + r * part;
      }
      float z[4] = {};
      kernel.rows.dot(4, rows, part, {kernels::Read::kPlain, 1, 1}, nullptr, z, true);
      sums[static_cast<std::size_t>(c)] = z[0] + z[1] + z[2] + z[3];
    });
    best = std::max(best, static_cast<double>(bytes) / seconds_since(start) / 1e9);
  }
  return best;
}

}  // namespace

Threads threads_for(int threads) { return {threads > 0 ? threads : default_threads(), &kPollSignals}; }

bool poll_signals() {
  const Locked locked;
  return PyErr_CheckSignals() != 0;
}

void register_info(py::module_& m) {
  py::tuple columns(kLedgerColumns);
  for (std::size_t i = 0; i < columns.size(); ++i) {
    columns[i] = kLedgerColumnNames[i];
  }
  m.attr("LEDGER_COLUMNS") = columns;
  m.def("isa", [] { return std::string(kernels::active().name); });
  m.def("isa_built", &kernels::built);
  m.def("isa_supported", &kernels::supported);
  m.def("compiler", [] {
#if defined(__clang__)
    return std::string("clang ") + __clang_version__;
#else
    return std::string("gcc ") + __VERSION__;
#endif
  });
  // How often each path of the convolution that is built has run in this process: for tests and diagnosis.
  m.def("conv_path_counts", [] {
    std::map<std::string, std::uint64_t> counts;
    for (int p = 0; p < kConvPaths; ++p) {
      const ConvPath path = static_cast<ConvPath>(p);
      if (is_built(path)) {
        counts[name_of(path)] = runs_of(path);
      }
    }
    return counts;
  });
  // Left operands of products, as tiles or as lists of what is not zero: multiply-adds in this process, in tiles, in
  // lists counted as tiles would need them, and those done; and what is chosen, for tests and measurements.
  m.def("left_work", [] {
    const LeftWork work = left_work();
    return std::map<std::string, std::uint64_t>{{"tiles", work.tiles}, {"lists", work.lists}, {"done", work.done}};
  });
  m.def(
      "force_left_path",
      [](const std::string& path) {
        const std::map<std::string, LeftPath> paths{{"counted", LeftPath::kCounted},
                                                    {"tiles", LeftPath::kTiles},
                                                    {"lists", LeftPath::kLists},
                                                    {"pairs", LeftPath::kPairs}};
        if (paths.count(path) == 0) {
          throw py::value_error("path is \"" + path + "\": it must be \"counted\", \"tiles\", \"lists\" or \"pairs\"");
        }
        force_left_path(paths.at(path));
      },
      py::arg("path"));
  // Which instruction multiplies numbers in bfloat16, or "emulated"; and what their products are made of, for tests.
  m.def("bfloat16_instruction", [] { return std::string(kernels::bfloat16_table().name); });
  m.def(
      "force_bfloat16_path",
      [](const std::string& path) {
        static const std::map<std::string, Bfloat16Path> kPaths{{"best", Bfloat16Path::kBest},
                                                                {"words", Bfloat16Path::kWords},
                                                                {"emulated", Bfloat16Path::kEmulatedWords},
                                                                {"numbers", Bfloat16Path::kNumbers}};
        const auto found = kPaths.find(path);
        if (found == kPaths.end()) {
          throw py::value_error("path is \"" + path +
                                "\": it must be \"best\", \"words\", \"emulated\" or \"numbers\"");
        }
        force_bfloat16_path(found->second);
      },
      py::arg("path"));
  // An array's numbers, rounded.
  m.def(
      "rounded_to_bfloat16",
      [](const py::array_t<float, py::array::c_style | py::array::forcecast>& numbers) {
        py::array_t<float> rounded(std::vector<py::ssize_t>(numbers.shape(), numbers.shape() + numbers.ndim()));
        kernels::bfloat16_table().round(numbers.size(), numbers.data(), rounded.mutable_data());
        return rounded;
      },
      py::arg("numbers"));
  // Bytes that networks keep between calls, and at most.
  m.def("kept_memory", &kept_memory);
  m.def("kept_memory_limit", &kept_memory_limit);
  m.def("limit_kept_memory", &limit_kept_memory, py::arg("bytes"));
  m.def("release_kept_memory", &release_kept_memory);
  m.def("threads", &default_threads);
  m.def("set_threads", &set_default_threads, py::arg("count"));
  m.def(
      "measure_fma_peak",
      [](int threads, bool double_precision) {
        const Unlocked unlocked;
        return double_precision ? fma_peak<double>(threads) : fma_peak<float>(threads);
      },
      py::arg("threads"), py::arg("double_precision") = false);
  m.def(
      "measure_read_bandwidth",
      [](int threads, Index bytes) {
        const Unlocked unlocked;
        return read_bandwidth(threads, bytes);
      },
      py::arg("threads"), py::arg("bytes") = Index{256} << 20);
}

}  // namespace pylrp::bindings
