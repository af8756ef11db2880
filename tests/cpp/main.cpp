// Runs the tests: core_tests [part of a name | i/n]. PYLRP_ISA chooses the instruction set, as in the library itself;
// PYLRP_LEFT=lists or pairs sends the left operands of all products a way that is meant for zeros (products/lists.hpp).
#include <algorithm>
#include <cstdlib>
#include <string>

#include "check.hpp"
#include "kernels/dispatch.hpp"
#include "products/lists.hpp"

int main(int argc, char** argv) {
  constexpr int kSkipped = 77;  // ctest's SKIP_RETURN_CODE
  const auto holds = [](const std::vector<std::string>& names, const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a crash must not swallow what was said before it
  const char* const forced = std::getenv("PYLRP_ISA");
  if (forced != nullptr && holds(pylrp::kernels::built(), forced) && !holds(pylrp::kernels::supported(), forced)) {
    std::printf("skipped: this machine lacks %s\n", forced);
    return kSkipped;
  }
  const char* const left = std::getenv("PYLRP_LEFT");
  if (left != nullptr && std::string(left) == "lists") {
    pylrp::force_left_path(pylrp::LeftPath::kLists);
  } else if (left != nullptr && std::string(left) == "pairs") {
    pylrp::force_left_path(pylrp::LeftPath::kPairs);
  }
  std::printf("instruction set %s\n", pylrp::kernels::active().name);
  return check::run(argc > 1 ? argv[1] : nullptr);
}
