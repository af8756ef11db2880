#!/usr/bin/env bash
# The core and its C++ tests for Windows, cross-compiled by mingw-w64 and, where wine is installed, run: the baseline
# instruction set (csrc/kernels/dispatch.cpp says why). tests/cpp/run_windows.sh [part of a test's name | i/n]
# On Debian: apt-get install g++-mingw-w64-x86-64-posix wine64
# Without the compiler it says so and succeeds, unless PYLRP_REQUIRE_WINDOWS=1.
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
build="${PYLRP_WINDOWS_BUILD:-$root/build/windows}"
compiler=x86_64-w64-mingw32-g++-posix
if ! command -v $compiler >/dev/null; then
  echo "windows: $compiler is not installed (Debian: apt-get install g++-mingw-w64-x86-64-posix wine64)"
  [ "${PYLRP_REQUIRE_WINDOWS:-0}" != 1 ]
  exit
fi
cmake -S "$root" -B "$build" -DCMAKE_SYSTEM_NAME=Windows -DCMAKE_SYSTEM_PROCESSOR=AMD64 \
  -DCMAKE_CXX_COMPILER=$compiler -DCMAKE_EXE_LINKER_FLAGS=-static \
  -DPYLRP_BINDINGS=OFF -DPYLRP_CORE_TESTS=ON -DPYLRP_WERROR=ON >/dev/null
cmake --build "$build" --target core_tests
wine="$(command -v wine64 || command -v wine || command -v /usr/lib/wine/wine64 || true)"
if [ -z "$wine" ]; then
  echo "windows: compiled; not run, since wine64 is not installed"
  exit
fi
WINEDEBUG=-all WINEPREFIX="${WINEPREFIX:-$build/wine}" PYLRP_ISA=baseline "$wine" "$build/tests/cpp/core_tests.exe" "$@"
