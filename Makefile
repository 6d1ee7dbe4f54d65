# `make run` and `make test` need Python 3.10 or newer and nothing else; a C++
# compiler makes it fast. Each target installs what it needs into .venv, and no more.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CONSTRAINTS ?= constraints.txt
# the compiled extras of PyG, where somebody has built them (else pip is not asked for them)
WHEELS ?= ../shared/wheels
DATA_ROOT ?= $(firstword $(wildcard ../shared/data) data)
export DATA_ROOT
# errors alone; modules are compiled when they are first imported
export PIP_ROOT_USER_ACTION = ignore
PIP = $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c $(CONSTRAINTS)
# two tests at a time, files whole, as some tests of a file share what took long to make; threads that
# wait sleep, as those of the other test have work to do
PYTEST = OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile
EXTRAS = dev,ann,benchmarks,classifier,fewshot,ogb,toys,triton

.PHONY: run test coverage slow soak bare lint types sanitize arm gpu docs clean

run: $(VENV)/for-run
	$(BIN)/python -m benchmarks.planetoid --dataset cora --num_splits 2 --num_inits 1 \
		--fallback digits --out runs/cora.jsonl --resume

test: $(VENV)/for-test
	$(PYTEST)

# what share of the package's lines the tests run
coverage: $(VENV)/for-test
	$(PYTEST) --cov=torch_geometric_diff --cov-report=term:skip-covered --cov-fail-under=90

slow: $(VENV)/for-docs
	$(PYTEST) -m slow

# random cases against dense float64 for an hour, every night
SECONDS_OF_SOAK ?= 3600
soak: $(VENV)/for-test
	$(BIN)/python tests/soak.py --seconds $(SECONDS_OF_SOAK)

# the core's tests as if the compiled extras, the fused kernel and Triton were not installed
bare: $(VENV)/for-test
	WITHOUT_EXTRAS=1 $(PYTEST) tests/graph tests/ops tests/nn tests/benchmarks/common

lint: $(VENV)/for-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror torch_geometric_diff/csrc/* tests/csrc/*

types: $(VENV)/for-test
	$(BIN)/mypy

# the C++ kernels alone, under AddressSanitizer and UndefinedBehaviorSanitizer
sanitize: $(VENV)/for-test
	$(BIN)/cmake -S . -B build/sanitize -DTGD_TESTS=ON
	$(BIN)/cmake --build build/sanitize --parallel 2
	build/sanitize/test_parallel
	build/sanitize/test_propagate
	build/sanitize/test_build
	build/sanitize/test_knn

# the same for Arm, cross-compiled and emulated (g++-aarch64-linux-gnu, qemu-user-static), fewer trials
arm: $(VENV)/for-test
	$(BIN)/cmake -S . -B build/arm -DTGD_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux \
		-DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
	$(BIN)/cmake --build build/arm --parallel 2
	for test in parallel propagate build knn; do ASAN_OPTIONS=detect_leaks=0 qemu-aarch64-static \
		-L /usr/aarch64-linux-gnu build/arm/test_$$test 20 || exit 1; done

# every GPU test, and speed against what people use there
gpu: $(VENV)/for-test
	@$(BIN)/python -m benchmarks.speed.gpu

docs: $(VENV)/for-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(VENV)/for-run: pyproject.toml $(CONSTRAINTS) CMakeLists.txt $(wildcard torch_geometric_diff/csrc/*)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV): torch, PyG and the C++ kernels"
	@$(PIP) -e '.[run]'
	@touch $@

# extras of the package that is installed already, which is not built again
$(VENV)/for-test: $(VENV)/for-run
	@echo "setting up $(VENV): what the tests need"
	@$(PIP) 'torch-geometric-diff[$(EXTRAS)]'
	@for name in torch_scatter torch_sparse torch_cluster; do \
		for wheel in $(WHEELS)/$$name-*.whl; do test -e "$$wheel" || continue; \
			$(PIP) --no-deps --no-index "$$wheel" \
			|| echo "$$name: the prebuilt file does not fit this Python; its tests will be skipped"; \
		done; done
	@touch $@

$(VENV)/for-docs: $(VENV)/for-test
	@echo "setting up $(VENV): what the documentation needs"
	@$(PIP) 'torch-geometric-diff[docs]'
	@touch $@

# what was built; of runs/ and data/ what `make run` wrote, and the folders if nothing else is there
clean:
	rm -rf $(VENV) build dist wheelhouse *.egg-info docs/_build docs/api docs/gallery docs/rows
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find torch_geometric_diff -name '_C*.so' -delete
	rm -f runs/cora.jsonl runs/cora-digits.jsonl
	@for folder in runs data; do test ! -d $$folder || rmdir $$folder 2>/dev/null || true; done
