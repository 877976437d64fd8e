"""Cases whose export fails in nnU-Net's validation: the others go on, and at the end all that failed are named."""

import pickle

import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training
import pytest

from nnunetv2_conflunet.inference.export import exporting_validation
from nnunetv2_conflunet.utilities.errors import InputError


def export(prediction, properties, configuration, plans, dataset, output, *others):
    """In place of the export of a case; what is predicted is what is wrong."""
    if isinstance(prediction, Exception):
        raise prediction


def validate(folder, predictions):
    """As nnU-Net does, whose processes get the function pickled."""
    for case, prediction in predictions.items():
        function = pickle.loads(pickle.dumps(stock_training.export_prediction_from_logits))
        function(prediction, {}, None, None, {}, str(folder / case), False)


def outputs(folder, predictions):
    return [str(folder / case) for case in predictions]


FAULTY = {"a": InputError("a is broken"), "b": 1, "c": InputError("c is broken")}


def test_the_cases_that_failed_are_named_at_the_end(tmp_path):
    went_on = False
    with (
        pytest.raises(InputError, match=r"2 of 3 cases failed: a is broken \| c is broken"),
        exporting_validation(outputs(tmp_path, FAULTY), export),
    ):
        validate(tmp_path, FAULTY)
        went_on = True
    assert went_on and not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_what_was_wrong_with_a_case_before_does_not_count(tmp_path):
    # As of a process that was killed before it named them.
    with exporting_validation([], export):
        validate(tmp_path, FAULTY)
    with exporting_validation(outputs(tmp_path, FAULTY), export):
        validate(tmp_path, dict.fromkeys(FAULTY, 1))


def test_an_error_that_follows_from_them_does_not_hide_them(tmp_path):
    with (
        pytest.raises(InputError, match="1 of 1 cases failed: a is broken"),
        exporting_validation(outputs(tmp_path, ["a"]), export),
    ):
        validate(tmp_path, {"a": FAULTY["a"]})
        raise IndexError("no results")


def test_other_errors_end_the_validation(tmp_path):
    with pytest.raises(ZeroDivisionError), exporting_validation(outputs(tmp_path, ["a"]), export):
        validate(tmp_path, {"a": ZeroDivisionError()})
