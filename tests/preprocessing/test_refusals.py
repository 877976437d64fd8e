"""Configurations whose spacing is in another unit than a trainer's lengths."""

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from support import preprocessed_dataset, set_nnunet_environment, small_plans

from nnunetv2_conflunet.commands.prepare import _parser, prepare
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.preprocessing.refusals import patch_spacing_mm, refuse_other_unit, refuse_wide
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json, write_json


def manager(**changes):
    return PlansManager({k: v for k, v in small_plans(**changes).items() if k != "continue_training"})


def test_planes_have_no_spacing_across_slices():
    plans = manager(dim=2, spacing_mm=(999, 0.5, 0.7))
    assert patch_spacing_mm(plans.get_configuration("2d")) == (0.5, 0.7)


@pytest.mark.parametrize(
    "spacing_mm, message",
    [((0.001, 0.0003, 0.0003), "sigma_mm is 2 mm, 6,667 voxels"), ((1, 0.1, 0.1), "The image is 16 x 1.6 x 1.6 mm")],
)
def test_lengths_in_another_unit_are_refused(spacing_mm, message):
    with pytest.raises(InputError, match=f"Dataset001_Small, 3d_fullres: {message}.* micrometers"):
        refuse_other_unit(manager(spacing_mm=spacing_mm), "3d_fullres")


def test_other_lengths_of_a_trainer_suit_a_small_spacing():
    settings = InstantiationSettings(min_volume_mm3=0, min_extent_mm=0.003)
    refuse_other_unit(manager(spacing_mm=(0.001, 0.0003, 0.0003)), "3d_fullres", settings, sigma_mm=0.002)


def test_prepare_warns_of_what_a_training_would_refuse(tmp_path, monkeypatch, capsys):
    set_nnunet_environment(monkeypatch, tmp_path)
    plans = small_plans()
    preprocessed_dataset(tmp_path, plans)
    arguments = _parser().parse_args(["-d", "1", "-np", "1"])
    prepare(arguments)
    assert "Warning" not in capsys.readouterr().out
    file = tmp_path / "preprocessed" / "Dataset001_Small" / "nnUNetPlans.json"
    content = read_json(file)
    content["configurations"]["3d_fullres"]["spacing"] = [0.001, 0.0003, 0.0003]
    write_json(content, file)
    prepare(arguments)
    assert "Warning: Dataset001_Small, 3d_fullres: sigma_mm is 2 mm, 6,667 voxels" in capsys.readouterr().out


def test_gaussians_of_hundreds_of_voxels_are_refused():
    with pytest.raises(InputError, match=r"sigma_mm is 2 mm, 6,667 voxels of 0.0003 mm.* micrometers"):
        refuse_wide((0.001, 0.0003, 0.0003), 2.0)
    refuse_wide((1.0, 0.02, 0.02), 2.0)
