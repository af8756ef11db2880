// The C interface: networks of dense layers, and relevance through them.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/cpus.hpp"
#include "base/size.hpp"
#include "capi/handles.hpp"
#include "engine/chain.hpp"
#include "kernels/dispatch.hpp"

namespace pylrp::capi {
namespace {

using DenseOf = pylrp_network::Layer;

std::size_t size_of(pylrp_dtype dtype) { return dtype == PYLRP_FLOAT32 ? sizeof(float) : sizeof(double); }

// Calls f with a value of the network's type.
template <class F>
void with_type(pylrp_dtype dtype, F f) {
  if (dtype == PYLRP_FLOAT32) {
    f(float{});
  } else {
    f(double{});
  }
}

// kHasNegative and kNotFinite of all entries, by several threads where they are many.
template <class T>
int scan(const T* data, Index count, const Threads& threads) {
  constexpr Index kPiece = 1 << 20;
  const Index pieces = (count + kPiece - 1) / kPiece;
  std::vector<int> flags(static_cast<std::size_t>(pieces));
  parallel_for(pieces, threads, [&](Index i) {
    const Index n = std::min(kPiece, count - i * kPiece);
    flags[static_cast<std::size_t>(i)] = kernels::table<T>().scan(n, data + i * kPiece);
  });
  int all = 0;
  for (const int flag : flags) {
    all |= flag;
  }
  return all;
}

// Throws where an entry is NaN or infinite, and names it; rows: its length, 1 for vectors.
template <class T>
int require_finite(const T* data, Index rows, Index cols, const std::string& name, const Threads& threads) {
  const int flags = scan(data, rows * cols, threads);
  if (flags & kernels::kNotFinite) {
    const Index at = std::find_if(data, data + rows * cols, [](T v) { return !(v - v == 0); }) - data;
    throw Failure(PYLRP_NOT_FINITE, joined(name, " is not finite: entry ", at % cols,
                                           rows > 1 ? joined(" of ", at / cols) : "", " (from 0)"));
  }
  return flags;
}

bool reads_bounds(const CompiledRule& rule) { return rule.any().reads(Part::kLow) || rule.any().reads(Part::kHigh); }

// n numbers of the network's dtype: a copy of the caller's, or one value over and over.
std::vector<char> numbers(pylrp_dtype dtype, Index n, const void* from, double otherwise) {
  std::vector<char> bytes(static_cast<std::size_t>(n) * size_of(dtype));
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> values(static_cast<std::size_t>(n), static_cast<T>(otherwise));
    if (from != nullptr && n > 0) {
      std::memcpy(values.data(), from, bytes.size());
    }
    if (n > 0) {
      std::memcpy(bytes.data(), values.data(), bytes.size());
    }
  });
  return bytes;
}

template <class T>
const T* bound(const std::vector<char>& bytes) {
  return bytes.empty() ? nullptr : reinterpret_cast<const T*>(bytes.data());  // operator new aligns for any number
}

void set_bounds(const pylrp_network& network, DenseOf* layer, Index number, const void* low, const void* high,
                bool defaults) {
  layer->low.clear();
  layer->high.clear();
  if (!reads_bounds(*layer->rule)) {
    return;
  }
  if ((low == nullptr || high == nullptr) && !defaults) {
    throw Failure(PYLRP_INVALID, joined("layer ", number, ": a z-box needs both bounds, low and high"));
  }
  layer->low = numbers(network.dtype, layer->n_in, low, 0);
  layer->high = numbers(network.dtype, layer->n_in, high, 1);
  with_type(network.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* const from = bound<T>(layer->low);
    const T* const to = bound<T>(layer->high);
    for (Index i = 0; i < layer->n_in; ++i) {
      if (!(from[i] - from[i] == 0) || !(to[i] - to[i] == 0) || from[i] > to[i]) {
        throw Failure(PYLRP_INVALID, joined("layer ", number, ": the z-box's bounds must be finite and low not above ",
                                            "high; entry ", i, " (from 0) is ", from[i], " to ", to[i]));
      }
    }
  });
}

void require_fit(const DenseOf& layer, Index number) {
  if (layer.rule->any().passes() && layer.n_in != layer.n_out) {
    throw Failure(PYLRP_INVALID, joined("layer ", number, ": relevance can only pass through a layer of equal widths, ",
                                        "its weight is ", layer.n_out, "x", layer.n_in));
  }
}

template <class T>
class Run {
 public:
  Run(const pylrp_network& network, const pylrp_call& call)
      : call_(call),
        depth_(network.layers.size()),
        threads_{call.threads > 0 ? call.threads : default_threads(), call.stop ? &poll_ : nullptr},
        layers_(depth_),
        flags_(depth_),
        top_{static_cast<const T*>(call.out), call.batch, network.layers.back().n_out, network.layers.back().n_out} {
    for (std::size_t l = 0; l < depth_; ++l) {
      fill(network.layers[l], l);
    }
  }

  void operator()() {
    scan_arguments();
    Index widest = 0;
    double products = 0;
    for (std::size_t l = 1; l < depth_; ++l) {
      widest = std::max(widest, call_.relevance[l] ? 0 : layers_[l].dense.weight.cols);
    }
    const Buffer<T> hidden(2 * call_.batch * widest);  // two layers are alive at a time
    for (std::size_t l = 0; l < depth_; ++l) {
      const Index width = layers_[l].dense.weight.cols;
      T* const to = call_.relevance[l] ? static_cast<T*>(call_.relevance[l])
                                       : hidden.data() + static_cast<Index>(l % 2) * call_.batch * widest;
      layers_[l].result = {to, call_.batch, width, width};
      products += static_cast<double>(call_.batch * width) * static_cast<double>(layers_[l].dense.weight.rows);
    }
    const Threads some = threads_.alone_if(products < kWorthTeam);
    std::vector<double> pages(call_.ledger ? depth_ * static_cast<std::size_t>(kLedgerColumns * call_.batch) : 0);
    with_team(some, [&] { relevance_through_chain(layers_, top_, call_.ledger ? pages.data() : nullptr, some); });
    write_ledger(pages);
    for (std::size_t l = 0; l < depth_; ++l) {
      if (flags_[l] & kernels::kNotFinite) {
        require_finite(layers_[l].columns.data, layers_[l].columns.rows, layers_[l].columns.cols,
                       joined("layer ", l, ": weight"), threads_);
      }
    }
    for (std::size_t l = 0; l < depth_; ++l) {
      const Matrix<T>& result = layers_[l].result;
      if (call_.relevance[l] && (scan<T>(result.data, result.rows * result.cols, threads_) & kernels::kNotFinite)) {
        throw Failure(PYLRP_NOT_FINITE,
                      "the relevance overflows: a denominator is nearly zero; use a rule with a larger stabilizer");
      }
    }
  }

 private:
  // The core's columns in the interface's order: it has those that a dense network fills, and keeps them whatever
  // causes layers of other kinds have.
  void write_ledger(const std::vector<double>& pages) const {
    static constexpr Ledger::Column kOrder[] = {Ledger::incoming,   Ledger::outgoing, Ledger::bias,
                                                Ledger::stabilizer, Ledger::padding,  Ledger::dead,
                                                Ledger::batchnorm,  Ledger::masked,   Ledger::rounding};
    static_assert(std::size(kOrder) == PYLRP_LEDGER_COLUMNS);
    const std::size_t batch = static_cast<std::size_t>(call_.batch);
    for (std::size_t l = 0; call_.ledger && l < depth_; ++l) {
      for (std::size_t c = 0; c < std::size(kOrder); ++c) {
        std::copy_n(pages.data() + (l * kLedgerColumns + kOrder[c]) * batch, batch,
                    call_.ledger + (l * PYLRP_LEDGER_COLUMNS + c) * batch);
      }
    }
  }

  void fill(const DenseOf& from, std::size_t l) {
    ChainLayer<T>& layer = layers_[l];
    const T* const weight = static_cast<const T*>(from.weight);
    layer.dense.weight = {from.order == PYLRP_BY_ROWS ? weight : nullptr, from.n_out, from.n_in, from.n_in};
    if (from.order == PYLRP_BY_COLUMNS) {
      layer.columns = {weight, from.n_in, from.n_out, from.n_out};
      layer.flags = from.unchecked ? &flags_[l] : nullptr;
    }
    layer.dense.bias = static_cast<const T*>(from.bias);
    layer.rule = from.rule.get();
    layer.bounds = {bound<T>(from.low), bound<T>(from.high)};
    if (call_.acts[l] != nullptr) {
      layer.input = {static_cast<const T*>(call_.acts[l]), call_.batch, from.n_in, from.n_in};
    } else if (layer.rule->any().reads_input()) {
      throw Failure(PYLRP_INVALID,
                    joined("layer ", l, ": its rule reads the layer's input, and acts[", l, "] is null"));
    }
    require_fit(from, static_cast<Index>(l));
  }

  void scan_arguments() {
    for (std::size_t l = 0; l < depth_; ++l) {
      const Matrix<const T>& input = layers_[l].input;
      const int flags =
          input ? require_finite(input.data, input.rows, input.cols, joined("acts[", l, "]"), threads_) : 0;
      layers_[l].nonnegative = !(flags & kernels::kHasNegative);
    }
    require_finite(top_.data, top_.rows, top_.cols, "out", threads_);
  }

  const pylrp_call& call_;
  const std::size_t depth_;
  const Poll poll_ = [this] { return call_.stop(call_.stop_data) != 0; };
  Threads threads_;
  std::vector<ChainLayer<T>> layers_;
  std::vector<int> flags_;
  Matrix<const T> top_;
};

const pylrp_call& checked(const pylrp_network* network, const pylrp_call* call) {
  require(network != nullptr, "the network is null");
  require(call != nullptr, "the call is null");
  require(call->size == sizeof(pylrp_call), "call->size is not sizeof(pylrp_call): another version of pylrp.h");
  require(!network->layers.empty(), "the network has no layers");
  require(call->batch >= 0, "the batch is negative");
  for (const DenseOf& layer : network->layers) {
    // Two layers' relevance is alive at a time.
    checked_product({2, call->batch, std::max(layer.n_in, layer.n_out), static_cast<Index>(size_of(network->dtype))},
                    "the batch");
  }
  require(call->threads >= 0, "threads is negative");
  require(call->acts != nullptr, "acts is null: there must be a pointer for each layer");
  require(call->relevance != nullptr, "relevance is null: there must be a pointer for each layer");
  require(call->out != nullptr || call->batch == 0, "out is null");
  require(call->relevance[0] != nullptr || call->batch == 0, "relevance[0] is null");
  return *call;
}

}  // namespace
}  // namespace pylrp::capi

using namespace pylrp;
using namespace pylrp::capi;

extern "C" {

pylrp_status pylrp_network_new(pylrp_dtype dtype, pylrp_network** network) {
  return guarded([&] {
    require(network != nullptr, "the place for the network is null");
    *network = nullptr;
    require(dtype == PYLRP_FLOAT32 || dtype == PYLRP_FLOAT64, "dtype is neither PYLRP_FLOAT32 nor PYLRP_FLOAT64");
    kernels::active();  // complains about PYLRP_ISA here
    *network = new pylrp_network{dtype, {}};
  });
}

void pylrp_network_free(pylrp_network* network) { delete network; }

pylrp_status pylrp_network_add_dense(pylrp_network* network, int64_t n_out, int64_t n_in, const void* weight,
                                     pylrp_order order, const void* bias) {
  return guarded([&] {
    require(network != nullptr, "the network is null");
    require(order == PYLRP_BY_ROWS || order == PYLRP_BY_COLUMNS, "order is neither by rows nor by columns");
    const Index number = static_cast<Index>(network->layers.size());
    const std::string name = joined("layer ", number, ": weight");
    if (n_out < 1 || n_in < 1) {
      throw Failure(PYLRP_INVALID, joined(name, " is ", n_out, "x", n_in));
    }
    checked_product({n_out, n_in, static_cast<Index>(size_of(network->dtype))}, name.c_str());
    if (number > 0 && network->layers.back().n_out != n_in) {
      throw Failure(PYLRP_INVALID, joined(name, " is ", n_out, "x", n_in, ", its input has ",
                                          network->layers.back().n_out, " features"));
    }
    require(weight != nullptr, "the weight is null");
    const Threads threads{default_threads()};
    const bool later = network->check_later && order == PYLRP_BY_COLUMNS;
    with_type(network->dtype, [&](auto zero) {
      using T = decltype(zero);
      const bool rows = order == PYLRP_BY_ROWS;
      if (!later) {
        require_finite(static_cast<const T*>(weight), rows ? n_out : n_in, rows ? n_in : n_out, name, threads);
      }
      if (bias != nullptr) {
        require_finite(static_cast<const T*>(bias), 1, n_out, joined("layer ", number, ": bias"), threads);
      }
    });
    const Rule rule = rule_of(composite_by_name("deep_taylor"), number == 0, "zennit");
    network->layers.push_back(
        {n_out, n_in, weight, order, bias, std::make_shared<const CompiledRule>(rule), {}, {}, later});
  });
}

pylrp_status pylrp_network_check_later(pylrp_network* network) {
  return guarded([&] {
    require(network != nullptr, "the network is null");
    network->check_later = true;
  });
}

int64_t pylrp_network_depth(const pylrp_network* network) {
  return network ? static_cast<int64_t>(network->layers.size()) : 0;
}

pylrp_status pylrp_network_set_rule(pylrp_network* network, int64_t layer, const pylrp_rule* rule, const void* low,
                                    const void* high) {
  return guarded([&] {
    require(network != nullptr, "the network is null");
    require(rule != nullptr, "the rule is null");
    if (layer < 0 || layer >= pylrp_network_depth(network)) {
      throw Failure(PYLRP_INVALID, joined("there is no layer ", layer, ": there are ", network->layers.size()));
    }
    DenseOf changed = network->layers[static_cast<std::size_t>(layer)];
    changed.rule = rule->compiled;
    require_fit(changed, layer);
    set_bounds(*network, &changed, layer, low, high, false);
    network->layers[static_cast<std::size_t>(layer)] = std::move(changed);
  });
}

pylrp_status pylrp_network_set_composite(pylrp_network* network, const char* name, const char* convention,
                                         const void* low, const void* high) {
  return guarded([&] {
    require(network != nullptr, "the network is null");
    require(name != nullptr, "the composite's name is null");
    const Composite& composite = composite_by_name(name);
    const std::string whose = convention ? convention : "zennit";
    require_convention(whose);
    std::vector<DenseOf> layers = network->layers;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      layers[l].rule = std::make_shared<const CompiledRule>(rule_of(composite, l == 0, whose));
      set_bounds(*network, &layers[l], static_cast<Index>(l), low, high, true);
    }
    network->layers = std::move(layers);
  });
}

pylrp_status pylrp_relevance(const pylrp_network* network, const pylrp_call* call) {
  return guarded([&] {
    const pylrp_call& asked = checked(network, call);
    if (asked.batch == 0) {
      return;
    }
    with_type(network->dtype, [&](auto zero) { Run<decltype(zero)>(*network, asked)(); });
  });
}

}  // extern "C"
