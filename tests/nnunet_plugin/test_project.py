"""nnU-Net's folders under one base: what its commands get, what is skipped, what is refused."""

from argparse import Namespace
from pathlib import Path

import pytest

from nnunetv2_conflunet.nnunet_plugin.project import Project, keep_settings, small_configuration
from nnunetv2_conflunet.nnunet_plugin.search_path import nnunet_ext_path

DATASET, TRAINER = "Dataset007_Small", "nnUNetTrainerOwn"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "own")


@pytest.fixture
def commands(project: Project, monkeypatch: pytest.MonkeyPatch) -> list:
    """What the project runs, instead of running it."""
    ran = []
    monkeypatch.setattr(project, "run", lambda command, **variables: ran.append((command, variables)))
    return ran


def test_commands_find_the_folders_and_both_kinds_of_trainers(project: Project, tmp_path: Path):
    assert project.environment["nnUNet_results"] == str(tmp_path / "results")
    assert project.environment["nnUNet_extTrainer"].split(":") == [str(nnunet_ext_path()), str(tmp_path / "own")]


def test_a_command_gets_the_environment_and_a_failed_one_is_an_error(project: Project, tmp_path: Path, capfd):
    project.run('python -c \'import os; print(os.environ["nnUNet_raw"], os.environ["FURTHER"])\'', FURTHER="yes")
    assert f"{tmp_path / 'raw'} yes" in capfd.readouterr().out
    with pytest.raises(Exception, match="exit status 3"):
        project.run("python -c 'raise SystemExit(3)'")
    with pytest.raises(SystemExit, match="no_such_program is not found"):
        project.run("no_such_program")


def test_a_training_starts_goes_on_and_is_skipped_when_it_was_validated(project: Project, tmp_path: Path, commands):
    fold = project.fold(DATASET, TRAINER, "3d_small", "all", tmp_path / "seed_1")
    assert fold == tmp_path / "seed_1" / DATASET / f"{TRAINER}__nnUNetPlans__3d_small" / "fold_all"
    project.train(fold, "-device cpu", SEED="1")
    variables = {"nnUNet_results": str(tmp_path / "seed_1"), "SEED": "1"}
    assert commands.pop() == (f"nnUNetv2_train 7 3d_small all -tr {TRAINER} -device cpu", variables)
    (fold / "validation").mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    project.train(fold, "-device cpu")
    assert commands.pop()[0].endswith("-device cpu --c")
    (fold / "validation" / "summary.json").touch()
    project.train(fold)
    assert not commands


def test_a_folder_keeps_its_settings(tmp_path: Path):
    path = tmp_path / "out" / "settings.json"
    for _ in range(2):
        keep_settings(path, Namespace(seed=0, device="cpu"), ["seed"])
    keep_settings(path, Namespace(seed=0, device="cuda"), ["seed"])
    with pytest.raises(SystemExit, match=r"begun with \{'seed': 0\}, not with \{'seed': 1\}"):
        keep_settings(path, Namespace(seed=1, device="cpu"), ["seed"])


def test_thick_slices_are_halved_less_often_and_their_batches_hold_as_many_voxels():
    parent = {"spacing": [3.0, 1.0, 1.0], "architecture": {"arch_kwargs": {"conv_bias": True}}}
    made = small_configuration(parent)
    assert made["patch_size"] == [16, 48, 48]
    assert made["batch_size"] == 6
    assert made["architecture"]["arch_kwargs"]["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    assert parent == {"spacing": [3.0, 1.0, 1.0], "architecture": {"arch_kwargs": {"conv_bias": True}}}
