# The requirement for torch: plain `torch` brings the CUDA build for GPUs.
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: test test-fast style types docs wheel-test contract demo parity clean

# nnU-Net imports nnunet_ext by itself; the tests of the commands cover it.
test: style types
	$(BIN)/python -m pytest --doctest-modules nnunetv2_conflunet tests --ignore=nnunetv2_conflunet/nnunet_ext

# Without nnU-Net's commands in subprocesses, without training, without simulation.
test-fast: style
	$(BIN)/python -m pytest -m "not command and not slow" tests

style: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)" -e ".[test]"
	# nnU-Net's search for trainers imports torchvision; its newer wheels do not load beside a CPU build of torch.
	$(BIN)/python -c "import torchvision" 2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps torchvision==0.16.2
	touch $@

# The documentation as a site, in ./site.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@

# Builds the wheel, installs it into an environment of its own, and runs every command from another folder.
# That environment borrows the libraries of $(VENV), but not the package.
wheel-test: $(VENV)/.installed
	rm -rf .venv-wheel build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m venv .venv-wheel
	$(BIN)/python .ci/borrow_packages.py .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --no-deps --no-index --ignore-installed dist/*.whl
	.ci/run-commands .venv-wheel

# Whether the newest nnunetv2, beyond the bound in pyproject.toml too, is still as this package relies on it.
contract:
	$(PYTHON) -m venv .venv-contract
	.venv-contract/bin/python -m pip install --quiet --upgrade "$(TORCH)" nnunetv2 pytest
	.venv-contract/bin/python -m pytest tests/nnunet_plugin/test_contract.py

# make demo DEMO="--seed 1 --spacing 3 1 1" DEMO_OUTPUT=another_folder
DEMO_OUTPUT ?= demo_output
demo: $(VENV)/.installed
	$(BIN)/python demo/demo.py $(DEMO_OUTPUT) $(DEMO)

parity: .venv-parity/.installed
	PYTHONPATH=. .venv-parity/bin/python benchmarks/evaluation_parity.py

.venv-parity/.installed:
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet panoptica==2.1.7
	touch $@

clean:
	rm -rf $(VENV) .venv-contract .venv-parity .venv-wheel build dist site *.egg-info
