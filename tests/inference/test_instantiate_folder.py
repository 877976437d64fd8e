"""The command on folders as nnUNetv2_predict writes them and on plain masks."""

import io
import json
import os
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.postprocessing.remove_connected_components import (
    load_postprocess_save,
    remove_all_but_largest_component_from_segmentation,
)
from scipy.ndimage import gaussian_filter
from support import UNWRITABLE, files_of, said_of_a_full_disk, unwritable

import nnunetv2_conflunet.inference.instantiate_folder as command
from nnunetv2_conflunet.commands.instantiate import main
from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.instantiate_folder import instantiate_folder
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.inference.probability import foreground_probability
from nnunetv2_conflunet.postprocessing import (
    InstantiationSettings,
    instantiate,
    instantiate_acls,
    instantiate_border_core,
    instantiate_cc,
    instantiate_watershed,
    remove_small_instances,
)
from nnunetv2_conflunet.postprocessing.baselines.border_core import LABELS, BorderCore
from nnunetv2_conflunet.postprocessing.merging import MergeRule
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE, SPACING = (14, 30, 32), (2.0, 1.0, 1.0)
DATASET = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
CASES, ENDING = ["ms_001", "ms_002", "ms_003"], ".nii.gz"


def truth(toys, case):
    return toys.balls(int(case[-3:]), SHAPE, SPACING, 8)


@pytest.fixture
def masks(tmp_path, toys):
    """A plain folder of masks."""
    folder = tmp_path / "pred"
    folder.mkdir()
    for case in CASES:
        mask = (truth(toys, case) > 0).astype(np.uint8)
        nibabel.save(
            nibabel.Nifti1Image(mask.transpose(2, 1, 0), np.diag([*SPACING[::-1], 1])), folder / f"{case}.nii.gz"
        )
    return folder


@pytest.fixture
def stock(masks, toys):
    """What a stock trainer's prediction with --save_probabilities holds."""
    (masks / "dataset.json").write_text(json.dumps(DATASET))
    (masks / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    for case in CASES:
        np.savez_compressed(masks / f"{case}.npz", probabilities=probabilities(toys, case))
    return masks


@pytest.fixture
def cores(tmp_path, toys):
    """A prediction of cores and borders."""
    folder = tmp_path / "cores"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps(DATASET | {"labels": LABELS}))
    for case in CASES:
        labels = BorderCore.of(truth(toys, case), SPACING).labels
        image = nibabel.Nifti1Image(labels.transpose(2, 1, 0), np.diag([*SPACING[::-1], 1]))
        nibabel.save(image, folder / f"{case}.nii.gz")
    return folder


def probabilities(toys, case):
    inside = truth(toys, case) > 0
    foreground = np.where(inside, 0.55 + 0.4 * gaussian_filter(inside.astype(np.float32), 1.0), 0.1)
    return np.stack([1 - foreground, foreground]).astype(np.float32)


@pytest.fixture
def ours(stock, toys):
    """The same with heads, which cover a crop of the image."""
    (stock / "instances").mkdir()
    for case in CASES:
        heatmap, offsets_mm = toys.perfect_heads(truth(toys, case), SPACING)
        np.savez_compressed(
            stock / "instances" / f"{case}.npz",
            heatmap=heatmap[1:, 1:, 2:].astype(np.float16),
            offsets_mm=offsets_mm[:, 1:, 1:, 2:].astype(np.float16),
            crop=np.array([(1, 14), (1, 30), (2, 32)]),
        )
    return stock


def run(monkeypatch, *arguments):
    """Exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_instantiate", *map(str, arguments), "-np", "1"])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code


def read(folder, case):
    return np.asarray(nibabel.load(folder / f"{case}.nii.gz").dataobj).transpose(2, 1, 0)


def test_center_offset_gives_what_the_function_gives(monkeypatch, capsys, tmp_path, toys, ours):
    out = tmp_path / "out"
    assert run(monkeypatch, "-i", ours, "-o", out, "-m", "center_offset") == 0
    assert "The size filter removed" in capsys.readouterr().out
    for case in CASES:
        instances = truth(toys, case)
        kept = remove_small_instances(instances, SPACING)
        assert toys.same_partition(read(out, case), kept)
        table = pd.read_csv(out / f"{case}.csv")
        assert table["id"].tolist() == list(range(1, len(np.unique(kept))))
        # A center of mass lies at most half a voxel along each axis from its peak: exp(-(1 + 1/4 + 1/4) / 8) = 0.829.
        assert table["center_score"].between(0.828, 1).all()
        foreground = probabilities(toys, case)[1]
        mine = [foreground[read(out, case) == label].mean() for label in table["id"]]
        assert table["mean_probability"].tolist() == pytest.approx(mine, rel=1e-5)
    record = json.loads((out / "instantiation.json").read_text())
    assert InstantiationSettings.from_dict(record["settings"]) == InstantiationSettings()
    assert record["cases"] == CASES
    assert sorted(file.name for file in out.iterdir()) == sorted(
        [f"{c}{e}" for c in CASES for e in (".csv", ".nii.gz")] + ["instantiation.json"]
    )


def test_watershed_on_plain_masks(monkeypatch, tmp_path, toys, masks):
    out = tmp_path / "out"
    options = ["-m", "watershed", "--h_maxima_mm", 0.3, "--min_volume_mm3", 0, "--min_extent_mm", 0]
    assert run(monkeypatch, "-i", masks, "-o", out, *options) == 0
    for case in CASES:
        expected = instantiate_watershed(truth(toys, case) > 0, SPACING, h_maxima_mm=0.3)
        np.testing.assert_array_equal(read(out, case), expected)
    assert settings_of(out).h_maxima_mm == 0.3


def test_cores_and_borders_become_instances(monkeypatch, tmp_path, toys, cores):
    out = tmp_path / "out"
    options = ["-m", "border_core", "--min_volume_mm3", 0, "--min_extent_mm", 0]
    assert run(monkeypatch, "-i", cores, "-o", out, *options) == 0
    for case in CASES:
        labels = BorderCore.of(truth(toys, case), SPACING).labels
        np.testing.assert_array_equal(read(out, case), instantiate_border_core(labels, SPACING))
        assert read(out, case).max() > instantiate_cc(labels).max()
        assert pd.read_csv(out / f"{case}.csv")["center_score"].isna().all()


def test_cores_and_borders_are_one_foreground_for_other_methods(monkeypatch, tmp_path, toys, cores):
    out = tmp_path / "out"
    assert run(monkeypatch, "-i", cores, "-o", out, "-m", "cc", "--min_volume_mm3", 0, "--min_extent_mm", 0) == 0
    for case in CASES:
        np.testing.assert_array_equal(read(out, case), instantiate_cc(truth(toys, case)))


def test_labels_without_cores_are_named(monkeypatch, capsys, tmp_path, stock):
    assert run(monkeypatch, "-i", stock, "-o", tmp_path / "out", "-m", "border_core") == 1
    message = "holds no cores and borders: its dataset.json declares background, lesion. Predict with a model trained"
    assert message in capsys.readouterr().err
    (stock / "dataset.json").unlink()
    assert run(monkeypatch, "-i", stock, "-o", tmp_path / "out", "-m", "border_core") == 1
    assert "its dataset.json declares no labels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_maps_of_an_earlier_version_without_the_newer_settings_are_kept(monkeypatch, capsys, tmp_path, masks):
    out = tmp_path / "out"
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 0
    record = json.loads((out / "instantiation.json").read_text())
    del record["settings"]["h_maxima_mm"]
    (out / "instantiation.json").write_text(json.dumps(record))
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 0
    assert "3 of 3 cases were already done" in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["lou2021", "dworkin2018"])
def test_acls_on_a_stock_prediction(monkeypatch, tmp_path, toys, stock, preset):
    out = tmp_path / "out"
    assert run(monkeypatch, "-i", stock, "-o", out, "-m", "acls", "--acls_preset", preset, "--min_volume_mm3", 0) == 0
    for case in CASES:
        expected = instantiate_acls(probabilities(toys, case)[1], preset=preset, spacing_mm=SPACING)
        expected = remove_small_instances(expected, SPACING, min_volume_mm3=0)
        assert toys.same_partition(read(out, case), expected)


def test_cc_on_a_plain_folder_of_masks(monkeypatch, tmp_path, toys, masks):
    out = tmp_path / "out"
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc", "--connectivity", 6) == 0
    for case in CASES:
        expected = remove_small_instances(instantiate_cc(truth(toys, case), connectivity=6), SPACING)
        assert toys.same_partition(read(out, case), expected)
        assert pd.read_csv(out / f"{case}.csv")["mean_probability"].isna().all()


def test_two_processes(tmp_path, toys, masks):
    reports, failures = instantiate_folder(masks, tmp_path / "out", InstantiationSettings(method="cc"), num_processes=2)
    assert sorted(reports) == CASES and not failures
    for case in CASES:
        expected = instantiate(truth(toys, case) > 0, SPACING, InstantiationSettings(method="cc"))
        assert reports[case] == expected.report


def test_settings_of_the_model_hold_unless_given(monkeypatch, tmp_path, ours):
    model = {"method": "cc", "min_volume_mm3": 100.0, "min_prominence": 0.05, "connectivity": 18}
    plans = {"image_reader_writer": "SimpleITKIO", "conflunet": {"instantiation": model}}
    (ours / "plans.json").write_text(json.dumps(plans))
    assert run(monkeypatch, "-i", ours, "-o", tmp_path / "out", "--connectivity", 6, "--min_prominence", 0) == 0
    settings = json.loads((tmp_path / "out" / "instantiation.json").read_text())["settings"]
    assert settings == InstantiationSettings(method="cc", min_volume_mm3=100.0, connectivity=6).to_dict()


def test_touching_pieces_stay_apart_without_the_merging_rule_of_the_model(monkeypatch, tmp_path, toys, ours):
    """A rule with threshold 0 merges all that touch."""
    merge = dict.fromkeys(MergeRule.__dataclass_fields__, 0.0)
    plans = {"image_reader_writer": "SimpleITKIO", "conflunet": {"instantiation": {"merge": merge}}}
    (ours / "plans.json").write_text(json.dumps(plans))
    assert run(monkeypatch, "-i", ours, "-o", tmp_path / "merged") == 0
    assert run(monkeypatch, "-i", ours, "-o", tmp_path / "apart", "--no_merging") == 0
    for case in CASES:
        kept = remove_small_instances(truth(toys, case), SPACING)
        assert toys.same_partition(read(tmp_path / "apart", case), kept)
    n_merged, n_apart = (sum(read(tmp_path / kind, case).max() for case in CASES) for kind in ("merged", "apart"))
    assert n_merged < n_apart
    assert json.loads((tmp_path / "apart" / "instantiation.json").read_text())["settings"]["merge"] is None


def test_done_cases_are_left_alone_until_something_changes(monkeypatch, capsys, tmp_path, masks):
    out = tmp_path / "out"
    arguments = ("-i", masks, "-o", out, "-m", "cc")
    assert run(monkeypatch, *arguments) == 0
    before = {file: file.stat().st_ino for file in out.glob("ms_*")}

    (out / "ms_002.csv").unlink()
    assert run(monkeypatch, *arguments) == 0
    assert "2 of 3 cases were already done" in capsys.readouterr().out
    after = {file: file.stat().st_ino for file in out.glob("ms_*")}
    assert sorted(before) == sorted(after)
    assert {file.name for file in before if before[file] != after[file]} == {"ms_002.csv", "ms_002.nii.gz"}

    # A new segmentation.
    os.utime(masks / "ms_003.nii.gz")
    later = (out / "ms_003.nii.gz").stat().st_mtime + 10
    os.utime(masks / "ms_003.nii.gz", (later, later))
    reports, _ = instantiate_folder(masks, out, InstantiationSettings(method="cc"), num_processes=1)
    assert list(reports) == ["ms_003"]

    # Other settings.
    reports, _ = instantiate_folder(masks, out, InstantiationSettings(method="cc", connectivity=6), num_processes=1)
    assert list(reports) == CASES


def test_maps_of_other_settings_are_gone_before_new_ones_come(tmp_path, masks, monkeypatch):
    out = tmp_path / "out"
    instantiate_folder(masks, out, InstantiationSettings(method="cc"), num_processes=1)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "try_cases", stopped)
    with pytest.raises(KeyboardInterrupt):
        instantiate_folder(masks, out, InstantiationSettings(method="cc", connectivity=6), num_processes=1)
    assert [file.name for file in out.iterdir()] == ["instantiation.json"]


def test_another_command_that_writes_to_the_same_folder_is_noticed(tmp_path, masks, monkeypatch):
    out, make_case, settings = tmp_path / "out", command._make_case, InstantiationSettings(method="cc")

    def meanwhile(connectivity):
        def make(*arguments):
            monkeypatch.setattr(command, "_make_case", make_case)
            instantiate_folder(masks, out, replace(settings, connectivity=connectivity), num_processes=1)
            return make_case(*arguments)

        monkeypatch.setattr(command, "_make_case", make)
        return instantiate_folder(masks, out, settings, num_processes=1)

    with pytest.raises(InputError, match=r"out meanwhile, by other settings .* Run one of them again with --overwrite"):
        meanwhile(connectivity=6)
    # With the same settings nothing is mixed.
    assert list(meanwhile(connectivity=26)[0]) == CASES


def test_maps_of_cases_that_left_the_input_go_with_their_settings(tmp_path, masks):
    def made(connectivity):
        instantiate_folder(masks, out, InstantiationSettings(method="cc", connectivity=connectivity), num_processes=1)
        return sorted(file.name.partition(".")[0] for file in out.glob("*.nii.gz"))

    out = tmp_path / "out"
    made(26)
    (masks / "ms_002.nii.gz").unlink()
    assert made(26) == CASES
    assert made(6) == ["ms_001", "ms_003"]
    assert sorted(file.name for file in out.glob("*.csv")) == ["ms_001.csv", "ms_003.csv"]


def test_a_broken_case_is_reported_and_the_others_are_done(monkeypatch, capsys, tmp_path, ours):
    out = tmp_path / "out"
    (ours / "ms_002.nii.gz").write_bytes(b"broken")
    assert run(monkeypatch, "-i", ours, "-o", out, "-m", "center_offset") == 1
    error = capsys.readouterr().err
    assert "1 of 3 cases failed" in error and "ms_002: " in error and "cannot be read" in error
    assert sorted(file.name for file in out.glob("*.nii.gz")) == ["ms_001.nii.gz", "ms_003.nii.gz"]


def test_a_segmentation_with_a_value_that_dataset_json_does_not_declare_is_named(monkeypatch, capsys, tmp_path, ours):
    (ours / "dataset.json").write_text(json.dumps(DATASET))
    image = sitk.ReadImage(str(ours / "ms_002.nii.gz"))
    sitk.WriteImage(image * 255, str(ours / "ms_002.nii.gz"))
    assert run(monkeypatch, "-i", ours, "-o", tmp_path / "out", "-m", "cc") == 1
    error = capsys.readouterr().err
    assert "1 of 3 cases failed" in error and "ms_002.nii.gz holds 255 in" in error and "replace 255 with 1" in error


@pytest.fixture
def postprocessed(tmp_path, ours):
    """What nnUNetv2_apply_postprocessing writes of a prediction: masks of the largest component, nothing else."""
    folder = tmp_path / "postprocessed"
    folder.mkdir()
    keep_largest = [remove_all_but_largest_component_from_segmentation], [{"labels_or_regions": 1}]
    for case in CASES:
        files = [str(path / f"{case}.nii.gz") for path in (ours, folder)]
        # What the command does in its workers.
        load_postprocess_save(*files, SimpleITKIO(), *keep_largest)
    return folder


@pytest.mark.parametrize("method", ["center_offset", "acls", "cc"])
def test_no_instance_lies_outside_a_postprocessed_mask(monkeypatch, tmp_path, toys, ours, postprocessed, method):
    out = tmp_path / "out"
    assert run(monkeypatch, "-i", postprocessed, "--heads", ours, "-o", out, "-m", method, "--min_volume_mm3", 0) == 0
    n_instances = 0
    for case in CASES:
        mask = read(postprocessed, case) > 0
        assert 0 < mask.sum() < (truth(toys, case) > 0).sum()
        found = read(out, case)
        assert not found[~mask].any()
        if method == "center_offset":
            kept = remove_small_instances(truth(toys, case) * mask, SPACING, min_volume_mm3=0)
            assert toys.same_partition(found, kept)
            n_instances += found.max()
        # The probabilities are those of the prediction, too.
        assert (pd.read_csv(out / f"{case}.csv")["mean_probability"] > 0.5).all()
    assert method != "center_offset" or n_instances > len(CASES)


def test_masks_postprocessed_in_their_own_folder(monkeypatch, tmp_path, ours, postprocessed):
    for case in CASES:
        (postprocessed / f"{case}.nii.gz").replace(ours / f"{case}.nii.gz")
    assert run(monkeypatch, "-i", ours, "-o", tmp_path / "out") == 0
    for case in CASES:
        mask = read(ours, case) > 0
        assert read(tmp_path / "out", case)[mask].any() and not read(tmp_path / "out", case)[~mask].any()


def test_postprocessed_masks_without_the_folder_of_the_heads(monkeypatch, capsys, tmp_path, ours, postprocessed):
    assert run(monkeypatch, "-i", postprocessed, "-o", tmp_path / "out") == 1
    assert "give the prediction's folder with --heads" in capsys.readouterr().err
    assert run(monkeypatch, "-i", postprocessed, "--heads", tmp_path / "none", "-o", tmp_path / "out") == 1
    assert "none is not a folder" in capsys.readouterr().err
    assert run(monkeypatch, "-i", postprocessed, "--heads", ours, "-o", ours) == 1
    assert "is the input folder" in capsys.readouterr().err


def test_new_heads_make_a_case_again(tmp_path, ours, postprocessed):
    def again():
        return list(
            instantiate_folder(postprocessed, tmp_path / "out", InstantiationSettings(), heads=ours, num_processes=1)[0]
        )

    assert again() == CASES
    assert again() == []
    later = (tmp_path / "out" / "ms_002.nii.gz").stat().st_mtime + 10
    os.utime(ours / "instances" / "ms_002.npz", (later, later))
    assert again() == ["ms_002"]


def with_heads(**change):
    def break_(folder, toys):
        with np.load(folder / "instances" / "ms_001.npz") as stored:
            content = {**stored, **change}
        np.savez(folder / "instances" / "ms_001.npz", **{k: v for k, v in content.items() if v is not None})

    return break_


def truncate(name):
    def break_(folder, toys):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return break_


def array_file(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def with_probabilities(*shape):
    return lambda folder, toys: np.savez(folder / "ms_001.npz", probabilities=np.zeros(shape))


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (with_heads(heatmap=np.full((13, 29, 30), np.nan)), "heatmap holds 11310 NaN or infinite values"),
        (with_heads(crop=None), r"instances/ms_001.npz cannot be read"),
        (with_heads(heatmap=np.full(SHAPE, 1j)), r"instances/ms_001.npz cannot be read .*complex128"),
        (with_heads(crop=np.full((3, 2), 0.5)), r"heads_box .* must have one half-open range of whole numbers"),
        (with_heads(offsets_mm=np.zeros((3, 2, 2, 2))), "offsets_mm has shape"),
        (truncate("instances/ms_001.npz"), r"instances/ms_001.npz cannot be read"),
        (truncate("ms_001.npz"), r"ms_001.npz cannot be read"),
        (with_probabilities(2, 3, 4, 5), "holds probabilities of shape"),
        (lambda folder, toys: np.savez(folder / "ms_001.npz", probabilities=["a"]), "ms_001.npz cannot be read .*<U1"),
        (lambda folder, toys: array_file(folder / "ms_001.npz"), "ms_001.npz cannot be read"),
        (
            with_probabilities(1, *SHAPE),
            "ms_001.npz holds 1 channels, not 2: one of each label in dataset.json, also of",
        ),
        (with_probabilities(3, *SHAPE), "ms_001.npz holds 3 channels, not 2"),
        (lambda folder, toys: (folder / "instances" / "ms_001.npz").unlink(), "does not exist; predict with"),
    ],
)
def test_reasons_of_broken_cases(tmp_path, toys, ours, break_, reason):
    break_(ours, toys)
    reports, failures = instantiate_folder(ours, tmp_path / "out", InstantiationSettings(), num_processes=1)
    assert list(reports) == CASES[1:]
    assert list(failures) == ["ms_001"]
    assert re.search(reason, failures["ms_001"]), failures


@pytest.mark.parametrize(
    ("method", "message"),
    [("acls", "holds no probabilities; predict with --save_probabilities"), ("center_offset", "holds no heads")],
)
def test_a_folder_without_what_the_method_needs(monkeypatch, capsys, tmp_path, masks, method, message):
    assert run(monkeypatch, "-i", masks, "-o", tmp_path / "out", "-m", method) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used(monkeypatch, capsys, tmp_path, masks):
    def message(*arguments):
        assert run(monkeypatch, *arguments, "-m", "cc") == 1
        return capsys.readouterr().err

    assert "is not a folder" in message("-i", tmp_path / "none", "-o", tmp_path / "out")
    assert "is the input folder" in message("-i", masks, "-o", masks)
    (tmp_path / "empty").mkdir()
    assert "no images that nnU-Net reads" in message("-i", tmp_path / "empty", "-o", tmp_path / "out")
    (masks / "other.png").touch()
    assert "several formats (.nii.gz, .png)" in message("-i", masks, "-o", tmp_path / "out")


def upper_case(folder):
    (folder / "ms_002.nii.gz").rename(folder / "ms_002.NII.GZ")


def other_ending(folder):
    (folder / "ms_002.nii.gz").rename(folder / "ms_002.nii")


def link_to_nothing(folder):
    (folder / "ms_002.nii.gz").unlink()
    (folder / "ms_002.nii.gz").symlink_to(folder / "absent.nii.gz")


def make_folder(folder):
    (folder / "ms_002.nii.gz").unlink()
    (folder / "ms_002.nii.gz").mkdir()


@pytest.mark.parametrize(
    "hide, named",
    [
        (upper_case, "ms_002.NII.GZ (ends with .NII.GZ)"),
        (other_ending, "ms_002.nii (ends with .nii)"),
        (link_to_nothing, "ms_002.nii.gz (a link to nothing)"),
        (make_folder, "ms_002.nii.gz (a folder)"),
    ],
)
def test_no_case_vanishes(monkeypatch, capsys, tmp_path, stock, hide, named):
    hide(stock)
    assert run(monkeypatch, "-i", stock, "-o", tmp_path / "out", "-m", "cc") == 1
    assert f"cases are files that end with .nii.gz: {named}. Rename" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_previews_are_named(monkeypatch, capsys, tmp_path, stock):
    (stock / "overview.png").touch()
    assert run(monkeypatch, "-i", stock, "-o", tmp_path / "out", "-m", "cc") == 0
    assert "overview.png (ends with .png)." in (printed := capsys.readouterr().out) and "3 cases, " in printed


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("dataset.json", '{"file_ending": ".nii.gz",}', "dataset.json is not valid JSON"),
        ("dataset.json", '{"training": []}', "the format of nnU-Net v1"),
        ("dataset.json", '{"file_ending": ".nii"}', "holds no file that ends with .nii; give the output of nnUNetv2"),
        ("plans.json", '{"image', "plans.json is not valid JSON"),
        ("dataset.json", '{"file_ending": ".nii.gz", "labels": 3}', "dataset.json declares the labels 3; nnU-Net"),
        ("plans.json", '{"image_reader_writer": 5}', "names the reader 5"),
        ("plans.json", "3", "plans.json cannot be used: it, or its entry 'conflunet', is no dictionary"),
    ],
)
def test_files_beside_the_masks_that_cannot_be_used(monkeypatch, capsys, tmp_path, stock, name, content, message):
    (stock / name).write_text(content)
    assert run(monkeypatch, "-i", stock, "-o", tmp_path / "out", "-m", "cc") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_named_before_the_work(monkeypatch, capsys, tmp_path, masks, kind):
    monkeypatch.setattr(command, "try_cases", None)
    with unwritable(kind, tmp_path) as place:
        assert run(monkeypatch, "-i", masks, "-o", place, "-m", "cc") == 1
    assert re.search(UNWRITABLE[kind], capsys.readouterr().err)


@pytest.fixture
def ensemble(tmp_path, ours):
    """What nnUNetv2_ensemble --save_npz writes: masks, probabilities and dataset.json, but no plans.json."""
    folder = tmp_path / "ensemble"
    folder.mkdir()
    for name in ["dataset.json", *(f"{case}{ending}" for case in CASES for ending in (".nii.gz", ".npz"))]:
        shutil.copy(ours / name, folder)
    model = {"method": "acls", "min_volume_mm3": 100.0, "connectivity": 18}
    plans = {"image_reader_writer": "SimpleITKIO", "conflunet": {"instantiation": model}}
    (ours / "plans.json").write_text(json.dumps(plans))
    return folder


def settings_of(folder):
    return InstantiationSettings.from_dict(json.loads((folder / "instantiation.json").read_text())["settings"])


def test_defaults_are_named_where_there_are_no_plans(monkeypatch, capsys, tmp_path, ensemble):
    assert run(monkeypatch, "-i", ensemble, "-o", tmp_path / "out", "-m", "acls") == 0
    printed = capsys.readouterr().out
    assert f"There is no plans.json near {ensemble}, so options not given here take their default values" in printed
    assert "use --settings_from to take the settings of a model" in printed
    assert settings_of(tmp_path / "out") == InstantiationSettings(method="acls")


def test_an_ensemble_with_the_settings_of_a_model(monkeypatch, capsys, tmp_path, ours, ensemble):
    options = ("-i", ensemble, "-o", tmp_path / "out", "--settings_from")
    assert run(monkeypatch, *options, ours, "--connectivity", 6) == 0
    assert "There is no plans.json" not in capsys.readouterr().out
    assert settings_of(tmp_path / "out") == InstantiationSettings(method="acls", min_volume_mm3=100.0, connectivity=6)
    assert run(monkeypatch, *options, tmp_path / "nothing") == 1
    assert "nothing/plans.json does not exist; give a model folder" in capsys.readouterr().err
    (ours / "plans.json").write_text("{}")
    assert run(monkeypatch, *options, ours) == 1
    assert "plans.json has no 'conflunet'; only models of ConfLUNet trainers" in capsys.readouterr().err


def test_an_ensemble_with_the_heads_of_a_prediction(monkeypatch, tmp_path, toys, ours, ensemble):
    options = ("-i", ensemble, "--heads", ours, "-o", tmp_path / "out", "-m", "center_offset", "--min_volume_mm3", 0)
    assert run(monkeypatch, *options) == 0
    expected = InstantiationSettings(connectivity=18, min_volume_mm3=0.0)
    assert settings_of(tmp_path / "out") == expected
    for case in CASES:
        kept = remove_small_instances(truth(toys, case), SPACING, min_volume_mm3=0)
        assert toys.same_partition(read(tmp_path / "out", case), kept)


def test_probabilities_are_those_of_the_ensemble(monkeypatch, tmp_path, ours, ensemble):
    for case in CASES:
        np.savez_compressed(ensemble / f"{case}.npz", probabilities=np.full((2, *SHAPE), 0.5, np.float32))
    assert run(monkeypatch, "-i", ensemble, "--heads", ours, "-o", tmp_path / "out", "-m", "center_offset") == 0
    assert (pd.read_csv(tmp_path / "out" / "ms_001.csv")["mean_probability"] == 0.5).all()


def test_maps_of_something_else_are_not_replaced_unless_asked(monkeypatch, capsys, tmp_path, masks):
    out = tmp_path / "out"
    out.mkdir()
    (out / "ms_001.nii.gz").write_text("a reference")
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 1
    assert "not made by this command" in capsys.readouterr().err
    assert (out / "ms_001.nii.gz").read_text() == "a reference"
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc", "--overwrite") == 0
    assert read(out, "ms_001").any()


def test_an_ignore_label_is_no_foreground(tmp_path, masks):
    (masks / "dataset.json").write_text(json.dumps(DATASET | {"labels": {"background": 0, "lesion": 1, "ignore": 2}}))
    image = nibabel.load(masks / "ms_001.nii.gz")
    content = np.asarray(image.dataobj).copy()
    content[content == 0] = 2
    nibabel.save(nibabel.Nifti1Image(content, image.affine), masks / "ms_001.nii.gz")
    reports, _ = instantiate_folder(masks, tmp_path / "out", InstantiationSettings(method="cc"), num_processes=1)
    assert reports["ms_001"]["n_voxels_foreground"] == (content == 1).sum()


def test_probability_of_any_foreground_label():
    softmax = np.array([0.2, 0.5, 0.3]).reshape(3, 1, 1, 1)
    assert foreground_probability(softmax, {"background": 0, "a": [1], "b": 2}).item() == pytest.approx(0.8)
    assert foreground_probability(softmax, {"background": 0, "a": 1, "b": 2}).item() == pytest.approx(0.8)
    regions = np.array([0.7, 0.6]).reshape(2, 1, 1, 1)
    assert foreground_probability(regions, {"background": 0, "whole": [1, 2], "core": [2]}).item() == 0.7


@pytest.mark.parametrize(
    ("labels", "n_channels"),
    [
        (None, 2),
        (None, 4),
        ({"background": 0, "lesion": 1, "black hole": 2, "ignore": 3}, 3),
        ({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, 2),
    ],
)
def test_channels_that_belong_to_the_labels(stock, labels, n_channels):
    (stock / "dataset.json").write_text(json.dumps(DATASET | {"labels": labels}))
    if labels is None:
        (stock / "dataset.json").unlink()
    np.savez(stock / "ms_001.npz", probabilities=np.full((n_channels, *SHAPE), 0.25))
    assert PredictionFolder.open(stock).read_probability("ms_001", SHAPE).shape == SHAPE
    np.savez(stock / "ms_001.npz", probabilities=np.full((1, *SHAPE), 0.25))
    with pytest.raises(InputError, match=f"holds 1 channels, not {n_channels if labels else 'two or more'}"):
        PredictionFolder.open(stock).read_probability("ms_001", SHAPE)


def test_unknown_settings_of_a_model_are_an_error(ours):
    plans = {"image_reader_writer": "SimpleITKIO", "conflunet": {"instantiation": {"sigma": 2}}}
    (ours / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match="Unknown instantiation settings sigma"):
        PredictionFolder.open(ours).settings()


def test_a_spacing_at_which_no_instance_can_stay_is_said(monkeypatch, capsys, tmp_path, masks):
    for case in CASES:
        array = np.asarray(nibabel.load(masks / f"{case}.nii.gz").dataobj)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([0.0003, 0.0003, 0.001, 1])), masks / f"{case}.nii.gz")
    assert run(monkeypatch, "-i", masks, "-o", tmp_path / "out", "-m", "cc") == 1
    error = capsys.readouterr().err
    assert error.count("The image is 0.014 x 0.009 x 0.0096 mm large, and the size filter would remove every") == 3
    assert "micrometers" in error
    assert run(monkeypatch, "-i", masks, "-o", tmp_path / "out", "-m", "cc", *["--min_extent_mm", "0"],
               *["--min_volume_mm3", "0"]) == 0  # fmt: skip


def test_maps_of_an_earlier_version_stay(monkeypatch, capsys, tmp_path, masks):
    out = tmp_path / "out"
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 0
    record = json.loads((out / "instantiation.json").read_text())
    del record["settings"]["min_area_mm2"]
    (out / "instantiation.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 0
    assert "3 of 3 cases were already done" in capsys.readouterr().out
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc", "--min_area_mm2", 5) == 0
    assert "already done" not in capsys.readouterr().out


def test_unsure_instances_are_removed(monkeypatch, capsys, tmp_path, ours):
    every, sure = tmp_path / "every", tmp_path / "sure"
    assert run(monkeypatch, "-i", ours, "-o", every) == 0
    confidences = np.concatenate([pd.read_csv(every / f"{case}.csv")["confidence"] for case in CASES])
    # Between two values, since the table has rounded ones.
    values = np.unique(confidences)
    lowest = float(values[len(values) // 2 - 1 : len(values) // 2 + 1].mean())
    capsys.readouterr()
    assert run(monkeypatch, "-i", ours, "-o", sure, "--min_confidence", lowest) == 0
    n_below = np.count_nonzero(confidences < lowest)
    assert 0 < n_below < len(confidences) and f"{n_below} were below min_confidence" in capsys.readouterr().out
    for case in CASES:
        kept = pd.read_csv(every / f"{case}.csv").query(f"confidence >= {lowest}")
        assert pd.read_csv(sure / f"{case}.csv")["confidence"].tolist() == kept["confidence"].tolist()
        assert ((read(sure, case) > 0) == np.isin(read(every, case), kept["id"])).all()


def test_a_lowest_confidence_needs_probabilities(monkeypatch, capsys, tmp_path, masks):
    assert run(monkeypatch, "-i", masks, "-o", tmp_path / "out", "-m", "cc", "--min_confidence", 0.5) == 1
    assert "holds no probabilities, which min_confidence 0.5 needs. Predict with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("room", [4096, 6 * 4096])
def test_a_full_disk_leaves_cases_open_and_the_status_is_1(monkeypatch, capsys, disk, tmp_path, room):
    # Specks, which do not compress: each map takes more than a page.
    (tmp_path / "specks").mkdir()
    for case in CASES:
        mask = (np.random.default_rng(int(case[-1])).random((24, 30, 40)) < 0.05).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "specks" / f"{case}.nii.gz")
    arguments = ("-i", tmp_path / "specks", "-o", disk.folder / "out", "-m", "cc", "--min_volume_mm3", 0)
    with disk.room(room):
        assert run(monkeypatch, *arguments, "--min_extent_mm", 0) == 1
    error = capsys.readouterr().err
    assert "of 3 cases failed" in error and "cannot be written completely" in error and "Is the disk full?" in error
    out = disk.folder / "out"
    done = [case for case in CASES if InstanceFiles(out, case, ENDING).are_done()]
    assert sorted(p.name for p in out.glob("*ms*")) == sorted(f"{case}{e}" for case in done for e in (".csv", ENDING))
    assert run(monkeypatch, *arguments, "--min_extent_mm", 0) == 0
    assert all(InstanceFiles(out, case, ENDING).are_done() for case in CASES)


def test_a_full_disk_takes_no_maps_of_other_settings_away(monkeypatch, capsys, disk, masks):
    out = disk.folder / "out"
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 0
    before = files_of(out)
    with disk.room(0):
        assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc", "--connectivity", 6) == 1
    assert said_of_a_full_disk(0) in capsys.readouterr().err
    assert files_of(out) == before


def test_a_map_that_an_earlier_version_left_half_is_made_again(tmp_path, masks):
    out = tmp_path / "out"
    instantiate_folder(masks, out, InstantiationSettings(method="cc"), num_processes=1)
    whole = read(out, "ms_002")
    for n in (0, 40):
        (out / "ms_002.nii.gz").write_bytes((out / "ms_002.nii.gz").read_bytes()[:n])
        reports, _ = instantiate_folder(masks, out, InstantiationSettings(method="cc"), num_processes=1)
        assert list(reports) == ["ms_002"]
        assert np.array_equal(read(out, "ms_002"), whole)


@pytest.mark.parametrize("name", ["../victim", "sub/victim", "/victim", "..", "", "a\0b", 3])
def test_a_record_from_someone_else_removes_nothing_outside_the_output(monkeypatch, capsys, tmp_path, masks, name):
    out = tmp_path / "out"
    for victim in (tmp_path / "victim", out / "sub" / "victim"):
        victim.parent.mkdir(parents=True, exist_ok=True)
        for ending in (".nii.gz", ".csv"):
            victim.with_name(victim.name + ending).write_text("precious")
    (out / "instantiation.json").write_text(json.dumps({"input": "elsewhere", "settings": {}, "cases": [name]}))
    before = files_of(tmp_path)
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 1
    assert "instantiation.json is not a record of this command; give another folder, or" in capsys.readouterr().err
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("content", ["[]", "3", '{"cases": 3}', '{"cases": null}', '{"settings": 3}'])
def test_a_record_of_another_form_is_named(monkeypatch, capsys, tmp_path, masks, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "instantiation.json").write_text(content)
    assert run(monkeypatch, "-i", masks, "-o", out, "-m", "cc") == 1
    assert "instantiation.json is not a record of this command" in capsys.readouterr().err


def npz_of_headers(path, **shapes):
    """An archive whose arrays have these shapes and no content."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in shapes.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue())


class Program:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_heads_that_do_not_fit_into_memory_are_one_sentence(tmp_path, ours):
    huge = (10**6, 10**6, 10**6)
    npz_of_headers(ours / "instances" / "ms_001.npz", heatmap=huge, offsets_mm=(3, *huge), crop=(3, 2))
    with pytest.raises(InputError, match=r"ms_001\.npz cannot be read \(.*MemoryError.*; predict this case again"):
        PredictionFolder.open(ours).read_heads("ms_001")


def test_heads_that_unpack_to_more_than_the_memory_are_not_unpacked(tmp_path, ours, monkeypatch):
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1}.__getitem__)
    with pytest.raises(InputError, match=r"ms_001\.npz cannot be read: it claims to hold arrays, which take"):
        PredictionFolder.open(ours).read_heads("ms_001")


def test_no_program_in_heads_is_run(tmp_path, ours):
    heads = np.array([Program(tmp_path / "was run")], object)
    np.savez(ours / "instances" / "ms_001.npz", heatmap=heads, offsets_mm=heads, crop=heads)
    with pytest.raises(InputError, match=r"ms_001\.npz cannot be read .*allow_pickle=False"):
        PredictionFolder.open(ours).read_heads("ms_001")
    assert not (tmp_path / "was run").exists()


def test_no_lesion_gets_the_id_of_unknown_instances(masks, tmp_path):
    out = tmp_path / "out"
    (masks / "dataset.json").write_text(json.dumps(DATASET))
    instantiate_folder(masks, out, InstantiationSettings(method="cc"), num_processes=1)
    before = nibabel.load(out / f"{CASES[0]}{ENDING}")
    table = pd.read_csv(out / f"{CASES[0]}.csv")
    ids = np.asarray(before.dataobj)
    assert table["id"].tolist() == list(range(1, ids.max() + 1)) and ids.max() > 2
    (masks / "dataset.json").write_text(json.dumps(DATASET | {"instances": {"unknown": 2}}))
    instantiate_folder(masks, out, InstantiationSettings(method="cc"), num_processes=1, overwrite=True)
    again = np.asarray(nibabel.load(out / f"{CASES[0]}{ENDING}").dataobj)
    np.testing.assert_array_equal(again, np.where(ids < 2, ids, ids + 1))
    numbered = pd.read_csv(out / f"{CASES[0]}.csv")
    assert numbered["id"].tolist() == [1, *range(3, ids.max() + 2)]
    pd.testing.assert_frame_equal(numbered.drop(columns="id"), table.drop(columns="id"))
