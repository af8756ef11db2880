// What C's opaque handles are, and the border that no exception crosses.
#pragma once

#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "capi/catalogue.hpp"
#include "rules/lower.hpp"

// A rule: lowered for the kernels, and once more as C reads it.
struct pylrp_rule {
  explicit pylrp_rule(pylrp::Rule rule);
  std::shared_ptr<const pylrp::CompiledRule> compiled;  // networks keep it when the handle is gone
  std::vector<std::vector<pylrp_term>> terms;
  std::vector<pylrp_group> groups;
};

// A network: the caller's arrays, a rule each.
struct pylrp_network {
  struct Layer {
    std::int64_t n_out, n_in;
    const void* weight;
    pylrp_order order;
    const void* bias;
    std::shared_ptr<const pylrp::CompiledRule> rule;
    std::vector<char> low, high;  // numbers of the network's dtype, or empty
    bool unchecked;               // the weight's entries are to be looked at by each call
  };
  pylrp_dtype dtype;
  std::vector<Layer> layers;
  bool check_later = false;
};

namespace pylrp::capi {

void set_last_error(const char* text) noexcept;

// Runs body() and turns whatever it throws into a status and a text.
template <class Body>
pylrp_status guarded(Body body) noexcept {
  try {
    set_last_error("");
    body();
    return PYLRP_OK;
  } catch (const Failure& failure) {
    set_last_error(failure.what());
    return failure.status;
  } catch (const Interrupted& stop) {
    set_last_error(stop.what());
    return PYLRP_INTERRUPTED;
  } catch (const std::bad_alloc&) {
    set_last_error("out of memory");
    return PYLRP_NO_MEMORY;
  } catch (const std::length_error&) {
    set_last_error("out of memory: a size is beyond what can be addressed");
    return PYLRP_NO_MEMORY;
  } catch (const Error& error) {
    set_last_error(error.what());
    return PYLRP_INVALID;
  } catch (const std::exception& error) {
    set_last_error(error.what());
    return PYLRP_INTERNAL;
  } catch (...) {
    set_last_error("an unknown exception");
    return PYLRP_INTERNAL;
  }
}

template <class... Parts>
std::string joined(const Parts&... parts) {
  std::string text;
  const auto add = [&](const auto& part) {
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>) {
      text += std::to_string(part);
    } else {
      text += part;
    }
  };
  (add(parts), ...);
  return text;
}

inline void require(bool condition, const char* text) {
  if (!condition) {
    throw Failure(PYLRP_INVALID, text);
  }
}

}  // namespace pylrp::capi
