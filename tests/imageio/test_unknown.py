"""The declared id of unknown instances."""

import numpy as np
import pytest

from nnunetv2_conflunet.imageio.unknown import unknown_id, without_unknown
from nnunetv2_conflunet.utilities.errors import InputError


def test_a_dataset_without_the_entry_has_no_unknown_instances():
    assert unknown_id({"labels": {"background": 0, "lesion": 1}}) is None


def test_the_declared_id_is_returned():
    assert unknown_id({"instances": {"unknown": 3}}) == 3


@pytest.mark.parametrize("value", [0, -1, 2.0, "65535", True, None, [1]])
def test_an_id_that_is_no_positive_integer_is_refused(value):
    with pytest.raises(InputError, match="a positive integer, as in"):
        unknown_id({"instances": {"unknown": value}})


@pytest.mark.parametrize("value", ["instancesTr", ["a", "b"], True, {}, {"folder": "instancesTr"}, {"known": 3}])
def test_an_entry_of_someone_else_declares_nothing(value):
    assert unknown_id({"instances": value}) is None


def test_the_declaration_may_stand_beside_other_keys():
    assert unknown_id({"instances": {"unknown": 5, "folder": "instancesTr"}}) == 5


@pytest.mark.parametrize("value", [65535, 65535.0, {"unknwon": 65535}, {"Unknown": 65535}, {"unknown_id": 65535}])
def test_an_entry_that_looks_like_a_slip_is_refused(value):
    with pytest.raises(InputError, match="the id of unknown instances is a positive integer"):
        unknown_id({"instances": value})


@pytest.mark.parametrize("ending, largest", [(".bmp", 255), (".png", 65535), (".gipl", 65535), (".nii.gz", 2**24 - 1)])
def test_the_id_must_fit_into_the_files(ending, largest):
    assert unknown_id({"file_ending": ending, "instances": {"unknown": largest}}) == largest
    with pytest.raises(InputError, match=rf"declares {largest + 1} .*but {ending} files can hold ids up to {largest}"):
        unknown_id({"file_ending": ending, "instances": {"unknown": largest + 1}})


def test_the_known_instances_of_a_map():
    instances = np.array([[0, 3, 5, 5]])
    assert without_unknown(instances, 5).tolist() == [[0, 3, 0, 0]]
    assert without_unknown(instances, None) is instances
    assert instances.tolist() == [[0, 3, 5, 5]]
