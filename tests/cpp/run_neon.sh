#!/usr/bin/env bash
# The core's C++ tests for ARM (NEON), cross-compiled and run under qemu: tests/cpp/run_neon.sh [tests [build folder]]
# tests: a regular expression of names of ctest's; without it the kernels' and a quarter of the others. All: neon
# On Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static
# Without these it says so and succeeds, unless PYLRP_REQUIRE_NEON=1.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
tests="${1:-kernels|neon_(4|8)}"
build="${2:-$root/build/neon}"

missing() {
  echo "neon: $1 is not installed (Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static)"
  [ "${PYLRP_REQUIRE_NEON:-0}" != 1 ] && exit 0
  exit 1
}
command -v aarch64-linux-gnu-g++ >/dev/null || missing aarch64-linux-gnu-g++
cmake --version >/dev/null 2>&1 || missing cmake
qemu="$(command -v qemu-aarch64-static || command -v qemu-aarch64)" || missing qemu-aarch64

cmake -S "$root" -B "$build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  "-DCMAKE_CROSSCOMPILING_EMULATOR=$qemu;-L;/usr/aarch64-linux-gnu" \
  -DPYLRP_BINDINGS=OFF -DPYLRP_CORE_TESTS=ON -DPYLRP_WERROR=ON >/dev/null
cmake --build "$build" --target core_tests
exec ctest --test-dir "$build" --output-on-failure --no-tests=error --parallel 2 --tests-regex "$tests"
