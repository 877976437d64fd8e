"""What this package changes in nnU-Net, and when."""

import subprocess
import sys
from pathlib import Path

import nnunetv2.inference.predict_from_raw_data as stock_prediction
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training
import pytest
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_conflunet.nnunet_plugin import hand_over
from nnunetv2_conflunet.nnunet_plugin.hand_over import replaced_exports
from nnunetv2_conflunet.utilities.errors import InputError

# Prints what differs in nnU-Net's modules and classes after the trainers were imported.
WHAT_IMPORTING_CHANGES = """
import sys

import nnunetv2.inference.predict_from_raw_data, nnunetv2.training.nnUNetTrainer.nnUNetTrainer

def members():
    modules = {name: i for name, i in sys.modules.items() if name.partition(".")[0] in LIBRARIES}
    found = {(name, key): value for name, module in modules.items() for key, value in vars(module).items()}
    kinds = {value for value in found.values() if isinstance(value, type) and value.__module__ in modules}
    return found | {(kind.__name__, key): value for kind in kinds for key, value in vars(kind).items()}

LIBRARIES = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures")
before = members()
import nnunetv2_conflunet.trainers
after = members()
print(*sorted(".".join(key) for key, value in before.items() if after[key] is not value))
"""


class OfUser(nnUNetPredictor):
    """Stands for our predictor."""


def test_importing_the_trainers_changes_the_entries_of_nnunets_predictor_and_nothing_else():
    root = Path(hand_over.__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-c", WHAT_IMPORTING_CHANGES]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.splitlines()[-1]
    assert printed.split() == sorted(f"nnUNetPredictor.{name}" for name in hand_over.ENTRIES)


def test_installing_twice_wraps_once(monkeypatch):
    for name in hand_over.ENTRIES:
        stock = getattr(nnUNetPredictor, name)
        monkeypatch.setattr(nnUNetPredictor, name, getattr(stock, "__wrapped__", stock))
    hand_over.install(OfUser, lambda network: None)
    once = [getattr(nnUNetPredictor, name) for name in hand_over.ENTRIES]
    hand_over.install(OfUser, lambda network: None)
    assert [getattr(nnUNetPredictor, name) for name in hand_over.ENTRIES] == once


@pytest.mark.parametrize("program, ending", [("nnUNetv2_predict", SystemExit), ("mine.py", InputError)])
def test_an_error_in_the_input_ends_nnunets_own_command_with_one_line(monkeypatch, program, ending):
    class Ours(nnUNetPredictor):
        def predict_from_files(self):
            raise InputError("ms_1 holds NaN.")

    entry = hand_over._handing_over(nnUNetPredictor.predict_from_files, Ours, lambda network: network)
    stock = object.__new__(nnUNetPredictor)
    stock.network = "with heads"
    monkeypatch.setattr("sys.argv", [f"bin/{program}"])
    with pytest.raises(ending, match=r"^(Error: )?ms_1 holds NaN\.$"):
        entry(stock)


def test_exports_are_nnunets_own_again_after_an_error():
    places = [(stock_prediction, "export_prediction_from_logits"), (stock_training, "resample_and_save")]
    stock = [getattr(*place) for place in places]
    with pytest.raises(KeyError), replaced_exports(print, str, repr):
        assert [getattr(*place) for place in places] == [print, repr]
        raise KeyError
    assert [getattr(*place) for place in places] == stock
