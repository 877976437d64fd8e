"""Drafts: only unknown instances are divided, elsewhere than in instancesTr, and what is missing is named before."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from support import balls, dataset_json, files_of, unwritable, write_nifti

from nnunetv2_conflunet.commands import prepare
from nnunetv2_conflunet.inference.instances import CaseHeads
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import DEFAULT_RULE
from nnunetv2_conflunet.preprocessing.conversion import label_components
from nnunetv2_conflunet.preprocessing.semantic_only import draft as draft_module
from nnunetv2_conflunet.preprocessing.semantic_only.draft import Division, divided

NAME, UNKNOWN = "Dataset001_Small", 12
SHAPE = (16, 24, 30)
SETTINGS = InstantiationSettings(method="watershed", min_volume_mm3=0, min_extent_mm=0)
ALONE, PAIR = [(8, 6, 6)], [(8, 16, 12), (8, 16, 19)]


def scene():
    """A map of one known lesion and two that touch, which are unknown; and the two, numbered."""
    pair = balls(SHAPE, PAIR, 4.0)
    return np.where(pair, UNKNOWN, 11 * balls(SHAPE, ALONE, 4.0)), pair


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for variable in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / variable))
    folder = tmp_path / "raw" / NAME
    for case, instances in (("a", scene()[0]), ("b", 11 * balls(SHAPE, ALONE, 4.0)), ("c", np.zeros(SHAPE))):
        write_nifti(np.zeros(SHAPE, np.float32), folder / "imagesTr" / f"{case}_0000.nii.gz")
        write_nifti((instances > 0).astype(np.uint8), folder / "labelsTr" / f"{case}.nii.gz")
        write_nifti(instances.astype(np.uint16), folder / "instancesTr" / f"{case}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(dataset_json() | {"instances": {"unknown": UNKNOWN}}))
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command; returns its exit status, and what it printed."""

    def command(*options):
        arguments = ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1", "--annotation_pictures", "0", *options]
        monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
        with pytest.raises(SystemExit) as exit_:
            prepare.main()
        printed = capsys.readouterr()
        return exit_.value.code, printed.out if exit_.value.code == 0 else printed.err

    return command


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def write_probabilities(folder, cases, dips=True):
    """A prediction of stock nnU-Net: the probability is highest in the middle of each lesion."""
    distances = [np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(c), axis=-1) for c in [*ALONE, *PAIR]]
    lesion = np.exp(-(np.min(distances, axis=0) ** 2) / 32) if dips else np.full(SHAPE, 0.9)
    for case in cases:
        write_nifti((lesion > 0.5).astype(np.uint8), folder / f"{case}.nii.gz")
        np.savez_compressed(folder / f"{case}.npz", probabilities=np.stack([1 - lesion, lesion]).astype(np.float32))
    (folder / "dataset.json").write_text(json.dumps(dataset_json()))


def divide(instances, spacing_mm=(1.0, 1.0, 1.0), components=None, outputs=None, **division):
    """By watershed, unless another method is given; components have 26 neighbors, unless others are given."""
    components = label_components(np.sign(instances), (1,)) if components is None else components
    return divided(instances, components, UNKNOWN, spacing_mm, Division(**{"settings": SETTINGS, **division}), outputs)


def test_known_instances_keep_their_ids_and_proposed_ones_take_free_ones():
    instances, pair = scene()
    draft, n_components, n_proposed = divide(instances)
    assert (n_components, n_proposed) == (1, 2)
    np.testing.assert_array_equal(draft[instances != UNKNOWN], instances[instances != UNKNOWN])
    assert np.unique(draft[pair > 0]).tolist() == [1, 2]
    # The plane between the two balls may go to either.
    clear = (pair > 0) & (np.abs(np.indices(SHAPE)[2] - 15.5) > 1)
    np.testing.assert_array_equal(draft[clear], pair[clear])


def test_free_ids_are_neither_those_of_known_lesions_nor_the_unknown_one():
    lesions = np.array([[[1, 0, 3, 0, UNKNOWN, 0, UNKNOWN, 0, 65534]]])
    assert divide(lesions)[0].tolist() == [[[1, 0, 3, 0, 2, 0, 4, 0, 65534]]]
    many = np.zeros((1, 1, 40), int)
    many[..., ::2] = UNKNOWN
    assert np.unique(divide(many)[0]).tolist() == [0, *range(1, 12), *range(13, 22)]


def test_specks_are_kept():
    instances = np.zeros((4, 5, 6), int)
    instances[1, 1, 1] = instances[3, 4, 5] = UNKNOWN
    draft, n_components, n_proposed = divide(instances)
    assert (n_components, n_proposed) == (2, 2) and sorted(draft[draft > 0]) == [1, 2]


def test_planes_are_divided():
    disks = balls((24, 30), [(10, 10), (10, 17)], 4.0)[None]
    draft, *counts = divide(np.where(disks, UNKNOWN, 0), (999.0, 1.0, 1.0))
    assert counts == [1, 2] and np.array_equal(draft > 0, disks > 0)


def test_drafts_of_cases_with_unknown_instances_are_written_beside_the_maps(folder, command):
    before = files_of(folder)
    status, said = command("--draft", "watershed")
    assert status == 0, said
    assert "DRAFT of 1 cases" in said and "1 unknown components into 2 instances" in said and "correct" in said
    after = files_of(folder)
    assert set(after) - set(before) == {"instancesTr_draft/a.nii.gz"}
    assert {name: after[name] for name in before} == before
    expected, *_ = divide(scene()[0])
    np.testing.assert_array_equal(read(folder / "instancesTr_draft" / "a.nii.gz"), expected)


def test_a_corrected_draft_is_not_overwritten(folder, command, tmp_path, monkeypatch):
    chosen = ("--draft", "watershed", "--draft_folder", tmp_path / "mine")
    command(*chosen)
    (tmp_path / "mine" / "a.nii.gz").write_bytes(b"corrected")
    with monkeypatch.context() as before_any_work:
        before_any_work.setattr(draft_module, "writing_every", None)
        status, said = command(*chosen)
    assert status == 1 and "1 files in" in said and "Use --overwrite" in said
    assert (tmp_path / "mine" / "a.nii.gz").read_bytes() == b"corrected"
    assert command(*chosen, "--overwrite")[0] == 0


def test_the_maps_themselves_are_never_the_draft(folder, command):
    before = files_of(folder)
    (folder.parent / "link").symlink_to(folder / "instancesTr")
    for place in (folder / "instancesTr", folder.parent / "link"):
        status, said = command("--draft", "watershed", "--draft_folder", place, "--overwrite")
        assert status == 1 and "a draft is to be corrected first" in said
    assert files_of(folder) == before


def test_the_fall_between_maxima_is_an_option(folder, command):
    assert "into 1 instances" in command("--draft", "watershed", "--draft_h_maxima_mm", "9")[1]


def test_acls_divides_by_the_probabilities_of_several_folds(folder, command, tmp_path):
    for fold, cases, dips in (("fold_0", "b", False), ("fold_1", "a", True)):
        write_probabilities(tmp_path / fold, cases, dips)
    folds = [tmp_path / "fold_0", tmp_path / "fold_1"]
    status, said = command("--draft", "acls", "--draft_predictions", *folds)
    assert status == 0, said
    written, (instances, pair) = read(folder / "instancesTr_draft" / "a.nii.gz"), scene()
    assert np.unique(written[pair == 1]).tolist() != np.unique(written[pair == 2]).tolist()
    assert written[8, 16, 12] != written[8, 16, 19] and np.array_equal(written > 0, instances > 0)


def write_heads(folder, case, window_mm=3.0):
    """A prediction with heads: a peak in the middle of each lesion, and offsets that lead there."""
    grid, middles = np.moveaxis(np.indices(SHAPE), 0, -1), np.array([*ALONE, *PAIR])
    distances = np.linalg.norm(grid[..., None, :] - middles, axis=-1)
    offsets_mm = np.moveaxis(middles[distances.argmin(axis=-1)] - grid, -1, 0)
    heads = CaseHeads(np.exp(-(distances.min(axis=-1) ** 2) / 8), offsets_mm, np.array([(0, n) for n in SHAPE]))
    write_nifti((scene()[0] > 0).astype(np.uint8), folder / f"{case}.nii.gz")
    (folder / "instances").mkdir()
    heads.save(folder / "instances" / f"{case}.npz")
    (folder / "dataset.json").write_text(json.dumps(dataset_json()))
    # The trainer's window, and what the model has learned: to merge all that touch.
    trainers = InstantiationSettings(window_mm=window_mm)
    merges_all = replace(trainers, merge=replace(DEFAULT_RULE, threshold=0.0))
    plans: dict = {}
    ModelSettings({"instantiation": trainers.to_dict()}).learned(merges_all, ["0"]).put_into(plans)
    (folder / "plans.json").write_text(json.dumps(plans))


def test_what_a_model_does_not_divide_gets_an_id_and_the_rest_stays_unknown(folder, command, tmp_path):
    _, pair = scene()
    alone = balls(SHAPE, ALONE, 4.0) > 0
    write_nifti(np.where(alone | (pair > 0), UNKNOWN, 0).astype(np.uint16), folder / "instancesTr" / "a.nii.gz")
    write_heads(tmp_path / "prediction", "a")
    options = "--draft", "center_offset", "--draft_predictions", tmp_path / "prediction"
    status, said = command(*options, "--draft_single_only")
    assert status == 0 and "center_offset leaves 1 of 2 unknown components undivided" in said
    single = read(folder / "instancesTr_single" / "a.nii.gz")
    np.testing.assert_array_equal(single, np.where(pair, UNKNOWN, alone))
    status, said = command(*options)
    draft = folder / "instancesTr_draft" / "a.nii.gz"
    assert status == 0 and "divides 2 unknown components into 3 instances" in said
    np.testing.assert_array_equal(np.unique(read(draft)[pair > 0], return_counts=True)[1], [(pair == 1).sum()] * 2)


def test_where_nothing_is_undivided_nothing_is_written(folder, command, tmp_path):
    write_heads(tmp_path / "prediction", "a")
    options = "--draft", "center_offset", "--draft_predictions", tmp_path / "prediction", "--draft_single_only"
    status, said = command(*options)
    assert status == 1 and "none of 1 unknown components" in said
    assert not (folder / "instancesTr_single").exists()


def test_the_settings_are_those_of_the_models_trainer(folder, command, tmp_path):
    # In a window of 31 mm there is only the highest of the two peaks of the pair, 7 mm apart.
    write_heads(tmp_path / "prediction", "a", window_mm=31.0)
    options = "--draft", "center_offset", "--draft_predictions", tmp_path / "prediction", "--draft_single_only"
    status, said = command(*options)
    assert status == 0 and "leaves 1 of 1 unknown components undivided" in said
    (tmp_path / "prediction" / "plans.json").unlink()
    status, said = command(*options, "--overwrite")
    assert status == 1 and "prediction has no plans.json of a ConfLUNet model" in said


def test_without_heads_center_offset_makes_no_draft(folder, command, tmp_path):
    write_probabilities(tmp_path / "fold_0", "a")
    status, said = command("--draft", "center_offset", "--draft_predictions", tmp_path / "fold_0")
    assert status == 1 and "holds no heads" in said


def test_single_components_alone_get_ids():
    disk = [12] * 3 + [0] + [12] * 3
    hourglass = np.array([[disk, [12] * 7, disk, [0] * 7, [3, 3, 0, 12, 12, 0, 13]]])
    draft, n_components, n_proposed = divide(hourglass, single_only=True)
    assert (n_components, n_proposed) == (2, 1)
    assert draft[0, 4].tolist() == [3, 3, 0, 1, 1, 0, 13]
    np.testing.assert_array_equal(draft[0, :4], hourglass[0, :4])


def test_the_rest_of_a_component_of_which_lesions_are_known_stays_unknown():
    line = np.array([[[5, 5, UNKNOWN, 6, 6, 0, UNKNOWN]]])
    assert divide(line, single_only=True)[0].tolist() == [[[5, 5, UNKNOWN, 6, 6, 0, 1]]]


@pytest.mark.parametrize("map_", [[[UNKNOWN, UNKNOWN, 0], [0, 0, 0]], [[UNKNOWN, 0, 0], [0, UNKNOWN, 0]]])
def test_two_components_of_the_labels_are_not_one_lesion(map_):
    # Two labels beside each other, and two voxels that share a corner where 6 neighbors count.
    instances = np.array([map_])
    components = np.zeros_like(instances)
    components[instances > 0] = 1, 2
    assert divide(instances, single_only=True)[2] == 1
    np.testing.assert_array_equal(divide(instances, components=components, single_only=True)[0], instances)


def test_what_has_no_center_is_not_called_undivided():
    instances = np.zeros((1, 5, 12), int)
    instances[0, 1:4, 1:4] = instances[0, 1:4, 7:10] = UNKNOWN
    heatmap = np.zeros(instances.shape)
    heatmap[0, 2, 2] = 1
    heads = {"heatmap": heatmap, "offsets_mm": np.zeros((2, *instances.shape))}
    settings = InstantiationSettings(min_volume_mm3=0, min_extent_mm=0)
    draft, *counts = divide(instances, outputs=heads, settings=settings, single_only=True)
    assert counts == [2, 1] and np.unique(draft[0, :, :5]).tolist() == [0, 1]
    assert np.unique(draft[0, :, 6:]).tolist() == [0, UNKNOWN]


def test_drafts_that_would_undo_corrections_are_named(folder, command):
    assert command("--draft", "watershed")[0] == 0
    corrected = read(folder / "instancesTr_draft" / "a.nii.gz")
    write_nifti(corrected.astype(np.uint16), folder / "instancesTr" / "a.nii.gz")
    write_nifti(np.where(scene()[1], UNKNOWN, 0).astype(np.uint16), folder / "instancesTr" / "b.nii.gz")
    write_nifti((scene()[1] > 0).astype(np.uint8), folder / "labelsTr" / "b.nii.gz")
    before = files_of(folder)
    status, said = command("--draft", "watershed", "--overwrite")
    assert status == 1 and "holds drafts of cases without unknown instances: a.nii.gz" in said
    assert files_of(folder) == before


def test_drafts_do_not_replace_the_prediction_that_they_are_made_of(folder, command, tmp_path):
    write_probabilities(tmp_path / "fold_0", "a")
    place = tmp_path / "fold_0"
    status, said = command("--draft", "acls", "--draft_predictions", place, "--draft_folder", place, "--overwrite")
    assert status == 1 and "holds a prediction, which drafts would replace" in said


@pytest.mark.parametrize("options", [("--draft_single_only",), ("--draft_predictions", "x")])
def test_options_of_drafts_alone_are_refused(folder, command, options):
    status, said = command(*options)
    assert status == 1 and "belong to --draft" in said


def test_missing_probabilities_are_named_before_anything_is_written(folder, command, tmp_path):
    write_probabilities(tmp_path / "fold_0", "b")
    before = files_of(folder)
    status, said = command("--draft", "acls", "--draft_predictions", tmp_path / "fold_0")
    assert status == 1 and f"a has no probabilities in {tmp_path / 'fold_0'}" in said
    assert files_of(folder) == before


def test_probabilities_of_another_image_are_refused(folder, command, tmp_path):
    write_probabilities(tmp_path / "fold_0", "a")
    small = np.zeros((2, 3, 3, 3), np.float32)
    np.savez_compressed(tmp_path / "fold_0" / "a.npz", probabilities=small)
    write_nifti(np.zeros((3, 3, 3), np.uint8), tmp_path / "fold_0" / "a.nii.gz")
    status, said = command("--draft", "acls", "--draft_predictions", tmp_path / "fold_0")
    assert status == 1 and "size (3, 3, 3) instead of (16, 24, 30)" in said
    assert not (folder / "instancesTr_draft").exists()


@pytest.mark.parametrize("options", [("acls",), ("center_offset",), ("watershed", "--draft_predictions", "x")])
def test_predictions_belong_to_acls_and_center_offset(folder, command, options, monkeypatch):
    # Said before the maps are read.
    monkeypatch.setattr(prepare.InstanceCheck, "check", None)
    status, said = command("--draft", *options)
    assert status == 1 and "need --draft_predictions" in said
    status, said = command("--draft", "watershed", "--border_core", 7)
    assert status == 1 and "give one of the two" in said


@pytest.mark.parametrize(
    "declared, message",
    [({}, "declares no unknown instances"), ({"instances": {"unknown": 99}}, "No instance map .* has voxels .* id 99")],
)
def test_without_unknown_instances_there_is_nothing_to_divide(folder, command, declared, message):
    (folder / "dataset.json").write_text(json.dumps(dataset_json() | declared))
    status, said = command("--draft", "watershed")
    assert status == 1 and re.search(message, said)


@pytest.mark.parametrize("kind", ["a file", "read-only"])
def test_an_unwritable_folder_is_named(folder, command, tmp_path, kind):
    with unwritable(kind, tmp_path) as place:
        status, said = command("--draft", "watershed", "--draft_folder", place)
    assert status == 1 and ("not a folder" if kind == "a file" else "Nothing can be written to") in said
