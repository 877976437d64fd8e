"""Outputs of networks that are spread over folds: the first folder that has a case counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from support import write_nifti

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.inference.saved_outputs import SavedOutputs
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import DEFAULT_RULE
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (3, 4, 5)
MAP = Path("instancesTr/case.nii.gz")


def write_fold(folder, **lesion_probability):
    for case, value in lesion_probability.items():
        write_nifti(np.zeros(SHAPE, np.uint8), folder / f"{case}.nii.gz")
        stored = np.stack([np.full(SHAPE, 1 - value), np.full(SHAPE, value)]).astype(np.float32)
        np.savez_compressed(folder / f"{case}.npz", probabilities=stored)
    return folder


def grid(folder, case="a"):
    """The grid of a written segmentation."""
    array, properties = SimpleITKIO().read_seg(str(folder / f"{case}.nii.gz"))
    return Geometry.from_properties(array.shape[1:], properties)


def test_each_case_is_read_from_the_first_folder_that_has_it(tmp_path):
    folds = [write_fold(tmp_path / "fold_0", a=0.25), write_fold(tmp_path / "fold_1", a=0.5, b=0.75)]
    probabilities = SavedOutputs.open("acls", folds)
    for case, expected in (("a", 0.25), ("b", 0.75)):
        found = probabilities.of_case(case, MAP, grid(folds[1]))["probability"]
        np.testing.assert_array_equal(found, np.full(SHAPE, expected, np.float32))


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "difference"),
    [(SHAPE, (1, 1, 2), "spacing .2.0, 1.0, 1.0. mm instead of"), ((3, 4, 6), (1, 1, 1), "size")],
)
def test_a_prediction_on_another_grid_than_the_map_is_refused(tmp_path, shape, spacing_mm, difference):
    fold = write_fold(tmp_path / "fold_0", a=0.25)
    right = grid(fold)
    write_nifti(np.zeros(shape, np.uint8), fold / "a.nii.gz", spacing_mm)
    with pytest.raises(InputError, match=rf"a\.nii\.gz .*{difference}"):
        SavedOutputs.open("acls", [fold]).of_case("a", MAP, right)


def test_a_case_without_probabilities_is_named_with_the_folders(tmp_path):
    probabilities = SavedOutputs.open("acls", [write_fold(tmp_path / "fold_0", a=0.25)])
    with pytest.raises(InputError, match=rf"b has no probabilities in {tmp_path / 'fold_0'}\. .* --npz"):
        probabilities.of_case("b", MAP, grid(tmp_path / "fold_0"))


def test_a_folder_without_any_is_refused(tmp_path):
    write_nifti(np.zeros(SHAPE, np.uint8), tmp_path / "fold_0" / "a.nii.gz")
    with pytest.raises(InputError, match="fold_0 holds no probabilities; predict with --save_probabilities"):
        SavedOutputs.open("acls", [tmp_path / "fold_0"])


def write_model(folder, trainers, learned):
    """A validation folder with heads, of a model whose trainer had some settings and that has learned others."""
    (folder / "instances").mkdir(parents=True)
    write_nifti(np.zeros(SHAPE, np.uint8), folder / "a.nii.gz")
    (folder / "instances" / "a.npz").touch()
    plans: dict = {}
    ModelSettings({"instantiation": trainers.to_dict()}).learned(learned, ["0"]).put_into(plans)
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


def test_settings_are_the_trainers_without_what_was_learned_and_without_filters(tmp_path):
    trainers = InstantiationSettings(heatmap_threshold=0.3, merge=DEFAULT_RULE, min_confidence=0.5, top_k=3)
    merges_all = replace(trainers, merge=replace(DEFAULT_RULE, threshold=0.0))
    folder = write_model(tmp_path / "fold_0", trainers, merges_all)
    found = SavedOutputs.open("center_offset", [folder]).settings()
    assert found == InstantiationSettings(
        heatmap_threshold=0.3, merge=DEFAULT_RULE, min_volume_mm3=0.0, min_extent_mm=0.0, min_confidence=0.0
    )
    other = write_model(tmp_path / "other", replace(trainers, window_mm=5.0), merges_all)
    with pytest.raises(InputError, match="models with different settings; give predictions of one model"):
        SavedOutputs.open("center_offset", [folder, other]).settings()
