import json

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from support import small_plans

from nnunetv2_conflunet.preprocessing.paper_configuration import NAME, add_paper_configuration
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json


@pytest.fixture
def plans_file(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    plans = small_plans()
    del plans["continue_training"]
    path.write_text(json.dumps(plans))
    return path


def test_the_configuration_is_added_and_all_else_stays(plans_file):
    before = read_json(plans_file)
    assert add_paper_configuration(plans_file) is True
    after = read_json(plans_file)
    added = after["configurations"].pop(NAME)
    assert after == before
    assert (added["patch_size"], added["inherits_from"]) == ([96, 96, 96], "3d_fullres")


def test_a_second_time_nothing_is_written(plans_file):
    add_paper_configuration(plans_file)
    before = plans_file.stat().st_mtime_ns
    assert add_paper_configuration(plans_file) is False
    assert plans_file.stat().st_mtime_ns == before


def test_nnunet_builds_the_three_level_network_on_the_data_of_3d_fullres(plans_file):
    add_paper_configuration(plans_file)
    manager = PlansManager(str(plans_file))
    configuration, parent = (manager.get_configuration(name) for name in (NAME, "3d_fullres"))
    assert configuration.data_identifier == parent.data_identifier
    assert configuration.spacing == parent.spacing
    network = nnUNetTrainerConfLUNet.build_network_architecture(manager, configuration, 1, 2, False)
    # Weights and biases of two 3x3x3 convolutions with batch norm a level (1-64-64, 64-128-128, 128-256-256,
    # 256-512-512), three 2x2x2 up-convolutions, two 3x3x3 a level on the way up, and three 1x1x1 outputs of 6.
    convolutions = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    convolutions += [(512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    expected = sum(27 * a * b + 3 * b for a, b in convolutions)
    expected += sum(8 * a * b + b for a, b in [(512, 256), (256, 128), (128, 64)])
    expected += sum(6 * (a + 1) for a in (256, 128, 64))
    assert sum(p.numel() for p in network.parameters()) == expected
    assert any(isinstance(module, torch.nn.BatchNorm3d) for module in network.modules())


def test_another_configuration_of_that_name_is_refused(plans_file):
    plans = read_json(plans_file)
    plans["configurations"][NAME] = {"inherits_from": "3d_fullres", "batch_size": 7}
    plans_file.write_text(json.dumps(plans))
    with pytest.raises(InputError, match=f"{NAME} that is not the paper's. Rename or remove it"):
        add_paper_configuration(plans_file)
    assert read_json(plans_file) == plans


def test_plans_that_cannot_have_it_are_refused(tmp_path, plans_file):
    with pytest.raises(InputError, match=r"missing\.json does not exist. Run nnUNetv2_plan_and_preprocess"):
        add_paper_configuration(tmp_path / "missing.json")
    plans = read_json(plans_file)
    plans["configurations"]["3d_lowres"] = plans["configurations"].pop("3d_fullres")
    plans_file.write_text(json.dumps(plans))
    with pytest.raises(InputError, match=r"has no 3d_fullres.*it has 3d_lowres"):
        add_paper_configuration(plans_file)
    plans_file.write_text(json.dumps({**plans, "original_median_shape_after_transp": [1, 64, 64]}))
    with pytest.raises(InputError, match="two-dimensional images"):
        add_paper_configuration(plans_file)
