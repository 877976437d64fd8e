"""What is wrong with the files that nnU-Net's preprocessing left is said in a sentence."""

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy

from nnunetv2_conflunet.imageio.preprocessed_cases import PreprocessedCases
from nnunetv2_conflunet.utilities.errors import InputError

LABEL = np.arange(60).reshape(3, 4, 5).astype(np.int16)


@pytest.fixture(params=[nnUNetDatasetBlosc2, nnUNetDatasetNumpy], ids=["b2nd", "npz"])
def cases(request, tmp_path):
    """Two cases, of nnU-Net's newer and of its older format."""
    of_blosc = {"chunks": (1, 3, 4, 5), "blocks": (1, 3, 4, 5)} if request.param is nnUNetDatasetBlosc2 else {}
    for case in "ba":
        image = np.ones((2, 3, 4, 5), np.float32)
        request.param.save_case(image, LABEL[None], {"of": case}, str(tmp_path / case), **of_blosc)
    return PreprocessedCases(tmp_path)


def label_file(cases, case):
    return cases.folder / f"{case}{'_seg' * (cases.ending == '.b2nd')}{cases.ending}"


def test_a_case_is_read(cases):
    assert cases.names() == ["a", "b"] and cases.segmentation_file("a") == label_file(cases, "a")
    image, labels, instances, properties = cases.load("a")
    assert image.shape == (2, 3, 4, 5) and instances is None and properties == {"of": "a"}
    np.testing.assert_array_equal(labels, LABEL)


def test_other_files_are_named(cases):
    (cases.folder / ".DS_Store").write_text("")
    with pytest.raises(InputError, match=r"holds \.DS_Store, \.(b2nd|npz), \.pkl, where .* Move other files"):
        cases.names()


def test_an_empty_folder_and_none_are_named(tmp_path):
    with pytest.raises(InputError, match=r"holds nothing, where nnU-Net writes .* Repeat nnUNetv2_preprocess"):
        PreprocessedCases(tmp_path).names()
    with pytest.raises(InputError, match=r"none does not exist\. Run nnUNetv2_plan_and_preprocess first"):
        PreprocessedCases(tmp_path / "none").names()


def test_a_label_that_was_cut_off_is_named(cases):
    file = label_file(cases, "a")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=rf"{file.name} cannot be read: truncated.* Repeat nnUNetv2_preprocess"):
        cases.segmentation_file("a")
    assert cases.segmentation_file("b").is_file()


@pytest.mark.parametrize("ending", [None, ".pkl"])
def test_a_case_that_cannot_be_read_is_named(cases, ending):
    (cases.folder / f"a{ending or cases.ending}").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds files of a that cannot be read .* Repeat nnUNetv2_preprocess"):
        cases.load("a")
