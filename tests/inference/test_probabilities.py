"""Probabilities that are spread over folds: the first folder that has a case counts."""

import numpy as np
import pytest
from support import write_nifti

from nnunetv2_conflunet.inference.probabilities import Probabilities
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (3, 4, 5)


def write_fold(folder, **lesion_probability):
    for case, value in lesion_probability.items():
        write_nifti(np.zeros(SHAPE, np.uint8), folder / f"{case}.nii.gz")
        stored = np.stack([np.full(SHAPE, 1 - value), np.full(SHAPE, value)]).astype(np.float32)
        np.savez_compressed(folder / f"{case}.npz", probabilities=stored)
    return folder


def test_each_case_is_read_from_the_first_folder_that_has_it(tmp_path):
    folds = [write_fold(tmp_path / "fold_0", a=0.25), write_fold(tmp_path / "fold_1", a=0.5, b=0.75)]
    probabilities = Probabilities.open(folds)
    np.testing.assert_array_equal(probabilities.of_case("a"), np.full(SHAPE, 0.25, np.float32))
    np.testing.assert_array_equal(probabilities.of_case("b"), np.full(SHAPE, 0.75, np.float32))


def test_a_case_without_probabilities_is_named_with_the_folders(tmp_path):
    probabilities = Probabilities.open([write_fold(tmp_path / "fold_0", a=0.25)])
    with pytest.raises(InputError, match=rf"b has no probabilities in {tmp_path / 'fold_0'}\. .* --npz"):
        probabilities.of_case("b")


def test_a_folder_without_any_is_refused(tmp_path):
    write_nifti(np.zeros(SHAPE, np.uint8), tmp_path / "fold_0" / "a.nii.gz")
    with pytest.raises(InputError, match="fold_0 holds no probabilities; predict with --save_probabilities"):
        Probabilities.open([tmp_path / "fold_0"])
