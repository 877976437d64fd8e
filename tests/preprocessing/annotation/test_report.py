"""The table and the page of slips, as nnUNetv2_conflunet_prepare writes them."""

import re

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from planted import PLANTED, SPACING_MM, planted_slips
from support import UNWRITABLE, dataset_json, set_nnunet_environment, unwritable, write_nifti

from nnunetv2_conflunet.commands import prepare as command
from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.preprocessing.annotation.cases import examine_case, left_right_axis
from nnunetv2_conflunet.preprocessing.annotation.report import _shown
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import write_json
from nnunetv2_conflunet.utilities.spreadsheets import read_csv

NAME = "Dataset001_Planted"
# In the file: x to the left, y to the front, z to the top; LPS origin.
DIRECTION, ORIGIN = np.diag([1, -1, 1]), (-90.0, 80.0, -40.0)


def place(array, path, **how):
    write_nifti(array, path, SPACING_MM[::-1], ORIGIN, how.get("direction", DIRECTION))


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """One case with all slips, one without lesions."""
    folder = tmp_path / "raw" / NAME
    for case, instances in (("full", planted_slips()), ("empty", np.zeros((50, 90, 90), np.int32))):
        place(instances.astype(np.uint16), folder / "instancesTr" / f"{case}.nii.gz")
        place((instances > 0).astype(np.uint8), folder / "labelsTr" / f"{case}.nii.gz")
        image = np.random.default_rng(0).normal(100, 10, instances.shape) + 50 * (instances > 0)
        place(image.astype(np.float32), folder / "imagesTr" / f"{case}_0000.nii.gz")
    write_json(dataset_json(), folder / "dataset.json")
    set_nnunet_environment(monkeypatch, tmp_path)
    for name, variable in (("raw", "nnUNet_raw"), ("preprocessed", "nnUNet_preprocessed")):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr(command, "dataset_name", lambda name: name)
    return folder


def prepare(*arguments):
    command.prepare(command._parser().parse_args(["-d", NAME, "-np", "1", *map(str, arguments)]))


def test_the_command_counts_lists_and_shows(dataset, tmp_path, capsys):
    prepare()
    printed = capsys.readouterr().out
    assert (
        "Annotation check: one id on lesions far apart: 2 in 1 case; one id in several pieces: 2 in 1 case" in printed
    )
    folder = tmp_path / "preprocessed" / NAME / "annotation_check"
    assert f"All findings: {folder / 'annotations.csv'}, {folder / 'annotations.html'}" in printed
    table = pd.read_csv(folder / "annotations.csv")
    assert {(row.kind, row.id) for row in table.itertuples()} == PLANTED and set(table["case"]) == {"full"}

    page = (folder / "annotations.html").read_text()
    # Each with three planes, and all of them in the file itself.
    assert page.count("<h3>full, id ") == len(PLANTED) and page.count("<svg ") == 3 * len(PLANTED)
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert len(sources) == 3 * len(PLANTED) and set(sources) == {"data:image/png;base64,"}
    assert "<h3>full, id 5 and 6</h3>" in page and "Hemispheres were not told apart" not in page
    assert "the patient&#39;s right side (R) is on the left" in page


def test_coordinates_lead_other_readers_to_the_lesion(dataset, tmp_path):
    prepare()
    table = pd.read_csv(tmp_path / "preprocessed" / NAME / "annotation_check" / "annotations.csv")
    path = dataset / "instancesTr" / "full.nii.gz"
    by_nibabel, by_sitk = nibabel.load(path), sitk.ReadImage(str(path))
    assert set(table["world_convention"]) == {"RAS"}
    for row in table.to_dict("records"):
        voxel = tuple(row[f"voxel_{axis}"] for axis in "ijk")
        world = np.array([row[f"world_{axis}_mm"] for axis in "xyz"])
        assert by_nibabel.dataobj[voxel] == row["id"]
        np.testing.assert_allclose(nibabel.affines.apply_affine(by_nibabel.affine, voxel), world)
        # SimpleITK counts to the left and to the back.
        assert by_sitk[by_sitk.TransformPhysicalPointToIndex((world * (-1, -1, 1)).tolist())] == row["id"]


def test_the_border_is_named_by_its_side(dataset, tmp_path):
    prepare("--annotations", tmp_path / "here")
    table = pd.read_csv(tmp_path / "here" / "annotations.csv").set_index("kind")
    assert table.loc["border", "finding"] == "reaches the superior border"


def test_an_image_that_is_missing_or_does_not_fit_is_shown_black_and_said(dataset, tmp_path):
    (dataset / "imagesTr" / "full_0000.nii.gz").write_bytes(b"no image")
    prepare("--annotations", tmp_path / "here")
    page = (tmp_path / "here" / "annotations.html").read_text()
    assert "Shown without the image: 1 case (full)." in page and "full_0000.nii.gz cannot be read" in page
    assert page.count("<svg ") == 3 * len(PLANTED)


def test_without_pictures_no_image_is_read(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("nnunetv2_conflunet.preprocessing.annotation.report.read_background", None)
    prepare("--annotations", tmp_path / "here", "--annotation_pictures", 0)
    page = (tmp_path / "here" / "annotations.html").read_text()
    assert "<svg" not in page and "2 more are in annotations.csv" in page


def test_pictures_are_spread_over_the_cases():
    geometry = Geometry.from_properties((9, 9, 9), {"spacing": (1.0, 1.0, 1.0)})
    instances = np.zeros((9, 9, 9), np.int32)
    instances[1::2, 1::2, 4] = np.arange(1, 17).reshape(4, 4)
    found = {case: examine_case(instances, geometry, views_per_kind=5) for case in "abc"}
    shown = _shown(found, 5)
    assert [(one.case, one.slip.id) for one in shown] == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)]
    assert all(one.number in found[one.case].views for one in shown)


def test_a_dataset_without_findings_replaces_older_ones(dataset, tmp_path):
    prepare()
    (dataset / "imagesTr" / "full_0000.nii.gz").unlink()
    for kind in ("labelsTr", "instancesTr"):
        (dataset / kind / "full.nii.gz").unlink()
    prepare()
    folder = tmp_path / "preprocessed" / NAME / "annotation_check"
    table = read_csv(folder / "annotations.csv")
    assert len(table) == 0 and list(table.columns[:3]) == ["case", "kind", "id"]
    assert "<svg" not in (folder / "annotations.html").read_text()


def test_only_its_own_files_are_replaced(dataset, tmp_path):
    mine = tmp_path / "here" / "annotations.csv"
    mine.parent.mkdir()
    mine.write_text("my own table")
    with pytest.raises(InputError, match=r"annotations\.csv exists and is not an annotation check by this command"):
        prepare("--annotations", mine.parent)
    assert mine.read_text() == "my own table"
    with pytest.raises(InputError, match="--annotation_pictures is -1"):
        prepare("--annotation_pictures", -1)


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_named_before_the_work(dataset, monkeypatch, tmp_path, kind):
    monkeypatch.setattr(command.InstanceCheck, "check", None)
    with unwritable(kind, tmp_path) as place, pytest.raises(InputError, match=UNWRITABLE[kind]):
        prepare("--annotations", place)


def test_without_a_preprocessed_folder_nothing_is_written(dataset, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("nnUNet_preprocessed")
    before = set(tmp_path.rglob("*"))
    prepare()
    assert "nnUNet_preprocessed is not set" in capsys.readouterr().out
    assert set(tmp_path.rglob("*")) == before


def geometry(shape, spacing_mm, axes=(2, 1, 0), world="RAS", angle=0.0):
    """Array axis i runs along world axis axes[i]; the whole is turned around world z by an angle in degrees."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for array_axis, world_axis in enumerate(axes):
        affine[world_axis, array_axis] = spacing_mm[array_axis]
    turn, a = np.eye(4), np.deg2rad(angle)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return Geometry(shape, spacing_mm, turn @ affine, world)


def test_sides_are_known_only_of_oriented_images_as_large_as_a_head():
    head = (50, 90, 90), (3.0, 2.0, 2.0)
    assert left_right_axis(geometry(*head)) == 2
    assert left_right_axis(geometry((90, 90, 50), (2.0, 2.0, 3.0), axes=(0, 1, 2))) == 0
    assert left_right_axis(geometry(*head, angle=20)) == 2
    assert left_right_axis(geometry(*head, angle=30)) is None
    assert left_right_axis(geometry(*head, world="none")) is None
    # A slab, a crop, an abdomen, a slice.
    for shape in ((20, 90, 90), (50, 90, 45), (50, 180, 180), (1, 90, 90)):
        assert left_right_axis(geometry(shape, (3.0, 2.0, 2.0))) is None


def test_that_sides_are_not_known_is_said(dataset, tmp_path):
    for kind in ("instancesTr", "labelsTr", "imagesTr"):
        for file in (dataset / kind).iterdir():
            image = nibabel.load(file)
            cropped = image.slicer[:, :, :30]
            nibabel.save(cropped, file)
    prepare("--annotations", tmp_path / "here")
    page = (tmp_path / "here" / "annotations.html").read_text()
    assert "Hemispheres were not told apart in 2 of 2 cases (empty, full)" in page


def test_a_training_says_how_much_was_found_in_one_line(tmp_path, monkeypatch):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from support import preprocessed_dataset, small_plans

    from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances

    plans = small_plans()
    content = preprocessed_dataset(tmp_path, plans, n_cases=2)
    set_nnunet_environment(monkeypatch, tmp_path)
    monkeypatch.setattr(
        "nnunetv2_conflunet.preprocessing.preprocessed.nnunet_folder", lambda _: tmp_path / "preprocessed"
    )
    file = tmp_path / "raw" / plans["dataset_name"] / "instancesTr" / "case0.nii.gz"
    image = sitk.ReadImage(str(file))
    ids = sitk.GetArrayFromImage(image)
    # The two touching balls become one id, of which one voxel keeps another.
    ids[ids == 2] = 1
    ids[tuple(np.argwhere(ids == 1)[0])] = 2
    changed = sitk.GetImageFromArray(ids)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))
    manager = PlansManager({key: value for key, value in plans.items() if key != "continue_training"})
    prepared = PreprocessedInstances(manager, "3d_fullres", content)
    assert {case.case: case.slips for case in prepared.prepare(1)} == {"case0": {"single_voxel": 1}, "case1": {}}
    assert prepared.prepare(1) == []


def test_nothing_is_found_about_unknown_instances():
    # In two distant pieces, of a single voxel and at the border; a known lesion of one voxel touches one of them.
    instances = np.zeros((1, 60, 60), int)
    instances[0, 0, 0] = instances[0, 50, 50:55] = 900
    instances[0, 51, 55] = 7
    geometry = Geometry.from_properties(instances.shape, {"spacing": (1.0, 1.0, 1.0)})
    slips = examine_case(instances, geometry, views_per_kind=1, unknown=900)
    assert [(slip.kind, slip.id, slip.other_id) for slip in slips.slips] == [("single_voxel", 7, None)]
    assert len(slips.views) == 1
    assert {slip.kind for slip in examine_case(instances, geometry).slips if 900 in (slip.id, slip.other_id)} > {
        "border"
    }
