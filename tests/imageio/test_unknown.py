"""The declared id of unknown instances."""

import pytest

from nnunetv2_conflunet.imageio.unknown import unknown_id
from nnunetv2_conflunet.utilities.errors import InputError


def test_a_dataset_without_the_entry_has_no_unknown_instances():
    assert unknown_id({"labels": {"background": 0, "lesion": 1}}) is None


def test_the_declared_id_is_returned():
    assert unknown_id({"instances": {"unknown": 3}}) == 3


@pytest.mark.parametrize("value", [0, -1, 2.0, "65535", True, None, [1]])
def test_an_id_that_is_no_positive_integer_is_refused(value):
    with pytest.raises(InputError, match="a positive integer, as in"):
        unknown_id({"instances": {"unknown": value}})


@pytest.mark.parametrize("value", [65535, [65535], {}, {"unknwon": 65535}, {"unknown": 5, "other": 6}])
def test_an_entry_of_another_form_is_refused(value):
    with pytest.raises(InputError, match="the id of unknown instances is a positive integer"):
        unknown_id({"instances": value})
