# The requirement for torch: plain `torch` brings the CUDA build for GPUs.
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: test contract demo parity clean

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)" -e ".[test]"
	# nnU-Net's search for trainers imports torchvision; its newer wheels do not load beside a CPU build of torch.
	$(BIN)/python -c "import torchvision" 2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps torchvision==0.16.2
	touch $@

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
	rm -rf $(VENV) .venv-contract .venv-parity build dist *.egg-info
