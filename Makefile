# `make run` and `make test` need Python 3.10 to 3.13 and nothing else; a C++ compiler makes it fast.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# the compiled extras of PyG, where somebody has built them (else pip is not asked for them)
WHEELS ?= ../shared/wheels
DATA_ROOT ?= $(firstword $(wildcard ../shared/data) data)
export DATA_ROOT

.PHONY: run test slow bare lint types sanitize clean

$(VENV)/installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard torch_geometric_diff/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,benchmarks,classifier,fewshot,ogb,toys,ann]'
	@for name in torch_scatter torch_sparse torch_cluster; do \
		for wheel in $(WHEELS)/$$name-*.whl; do test -e "$$wheel" || continue; \
			$(BIN)/python -m pip install -q --no-deps --no-index "$$wheel" \
			|| echo "$$name: the prebuilt file does not fit this Python; its tests will be skipped"; \
		done; done
	touch $@

run: $(VENV)/installed
	$(BIN)/python -m benchmarks.planetoid --dataset cora --num_splits 10 --num_inits 1 \
		--fallback digits --out runs/cora.jsonl --resume

test: $(VENV)/installed
	$(BIN)/python -m pytest

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

# the core's tests as if the compiled extras, the fused kernel and Triton were not installed
bare: $(VENV)/installed
	WITHOUT_EXTRAS=1 $(BIN)/python -m pytest tests/graph tests/ops tests/nn tests/experiment

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

# the C++ kernel alone, under AddressSanitizer and UndefinedBehaviorSanitizer
sanitize: $(VENV)/installed
	$(BIN)/cmake -S . -B build/sanitize -DTGD_TESTS=ON
	$(BIN)/cmake --build build/sanitize --parallel 2
	build/sanitize/test_propagate

clean:
	rm -rf $(VENV) build dist *.egg-info
