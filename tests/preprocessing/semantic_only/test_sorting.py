"""Instance maps with unknown components: what is written, what is declared and listed, and what is refused."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from skimage import io
from support import balls, dataset_json, files_of, unwritable, write_nifti

from nnunetv2_conflunet.commands import prepare
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.preprocessing.semantic_only import sorting
from nnunetv2_conflunet.preprocessing.semantic_only.components import ComponentSettings
from nnunetv2_conflunet.preprocessing.semantic_only.sorting import write_sorted_components
from nnunetv2_conflunet.preprocessing.semantic_only.work_list import how_many
from nnunetv2_conflunet.utilities.errors import InputError

NAME = "Dataset001_Small"
SHAPE, SPACING = (16, 24, 30), (1.0, 1.0, 2.0)  # spacing in file order
ALONE, PAIR = (8, 6, 6), [(8, 15, 12), (8, 15, 19)]
TURNED = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]


def mask(*centers):
    return (balls(SHAPE, centers, 4.0, SPACING[::-1]) > 0).astype(np.uint8) if centers else np.zeros(SHAPE, np.uint8)


def write_case(folder, case, label):
    write_nifti(label.astype(np.float32), folder / "imagesTr" / f"{case}_0000.nii.gz", SPACING, (5, 6, 7), TURNED)
    write_nifti(label, folder / "labelsTr" / f"{case}.nii.gz", SPACING, (5, 6, 7), TURNED)


def declare(folder, **others):
    (folder / "dataset.json").write_text(json.dumps(dataset_json() | others))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A dataset of a lesion alone and two that touch, two pairs that touch, and no lesion."""
    for variable in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / variable))
    folder = tmp_path / "raw" / NAME
    write_case(folder, "a", mask(ALONE, *PAIR))
    write_case(folder, "=b", mask((8, 15, 19), (8, 15, 25), (8, 5, 6), (8, 5, 13), (8, 5, 20)))
    write_case(folder, "c", mask())
    declare(folder, description="Läsionen", numTraining=3)
    return folder


def sort(folder, **settings):
    return write_sorted_components(RawDataset(folder), ComponentSettings(**settings), 1, overwrite=False)


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_only_the_lesion_alone_keeps_an_id(folder):
    found = sort(folder)
    single, pair = mask(ALONE) > 0, mask(*PAIR) > 0
    written = read(folder / "instancesTr" / "a.nii.gz")
    np.testing.assert_array_equal(written, np.select([single, pair], [1, 65535]))
    others = read(folder / "labelsTr" / "=b.nii.gz")
    np.testing.assert_array_equal(read(folder / "instancesTr" / "=b.nii.gz"), np.where(others, 65535, 0))
    assert not read(folder / "instancesTr" / "c.nii.gz").any()
    assert found["known"].sum() == 1 and found.loc[found["known"], "volume_mm3"].sum() == 2 * single.sum()
    assert len(found) == 4 and found["volume_mm3"].sum() == 2 * (single.sum() + pair.sum() + others.sum())
    image = sitk.ReadImage(str(folder / "instancesTr" / "a.nii.gz"))
    assert image.GetDirection() == tuple(np.ravel(TURNED).astype(float)) and image.GetOrigin() == (5, 6, 7)


def test_the_id_is_declared_beside_all_else(folder):
    sort(folder)
    expected = dataset_json() | {"description": "Läsionen", "numTraining": 3, "instances": {"unknown": 65535}}
    assert json.loads((folder / "dataset.json").read_text(encoding="utf-8")) == expected


def test_the_work_list_names_the_largest_first_with_a_place_to_look_at(folder):
    sort(folder)
    listed = pd.read_csv(folder / "unknown_components.csv")
    assert listed["case"].tolist() == ["'=b", "a", "'=b"]
    assert listed["volume_mm3"].is_monotonic_decreasing and listed["area_mm2"].isna().all()
    row = listed[listed["case"] == "a"].iloc[0]
    pair = mask(*PAIR) > 0
    k, j, i = np.argwhere(pair).mean(axis=0)
    assert row["n_voxels"] == pair.sum() and row["volume_mm3"] == 2 * pair.sum()
    np.testing.assert_allclose(row[["voxel_i", "voxel_j", "voxel_k"]].astype(float), [i, j, k], rtol=1e-5)
    # From LPS, as ITK has it, to RAS.
    x, y, z = sitk.ReadImage(str(folder / "labelsTr" / "a.nii.gz")).TransformContinuousIndexToPhysicalPoint((i, j, k))
    np.testing.assert_allclose(row[["world_x_mm", "world_y_mm", "world_z_mm"]].astype(float), [-x, -y, z], rtol=1e-5)
    assert row["component"] == 2 and row["n_maxima"] == 2 and "maxima" in row["why_unknown"].split()


def test_a_declared_id_is_used_and_dataset_json_left_alone(folder):
    declare(folder, instances={"unknown": 900})
    before = (folder / "dataset.json").read_bytes()
    sort(folder)
    assert np.unique(read(folder / "instancesTr" / "a.nii.gz")).tolist() == [0, 1, 900]
    assert (folder / "dataset.json").read_bytes() == before


def test_the_id_joins_an_entry_of_someone_else(folder):
    declare(folder, instances={"folder": "instancesTr"})
    sort(folder)
    written = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert written["instances"] == {"folder": "instancesTr", "unknown": 65535}


def test_an_entry_without_room_for_the_id_is_refused(folder):
    declare(folder, instances="instancesTr")
    before = files_of(folder)
    with pytest.raises(InputError, match=r"dataset\.json has .instances.: .instancesTr., .* another name"):
        sort(folder)
    assert files_of(folder) == before


def test_no_component_gets_the_declared_id(folder):
    declare(folder, instances={"unknown": 1})
    found = sort(folder)
    written = read(folder / "instancesTr" / "a.nii.gz")
    np.testing.assert_array_equal(written, np.select([mask(ALONE) > 0, mask(*PAIR) > 0], [2, 1]))
    assert found["component"].tolist() == [2, 3, 2, 3]


@pytest.mark.parametrize("ending, unknown", [(".bmp", 255), (".png", 65535)])
def test_planes_get_an_id_that_their_format_holds(tmp_path, ending, unknown):
    folder = tmp_path / NAME
    disk = balls((40, 50), [(10, 10)], 4.0) > 0
    two = balls((40, 50), [(25, 20), (25, 27)], 4.0) > 0
    for place, name in (("imagesTr", f"a_0000{ending}"), ("labelsTr", f"a{ending}")):
        (folder / place).mkdir(parents=True)
        io.imsave(folder / place / name, (disk | two).astype(np.uint8), check_contrast=False)
    (folder / "dataset.json").write_text(json.dumps(dataset_json(file_ending=ending)))
    found = sort(folder)
    np.testing.assert_array_equal(
        io.imread(folder / "instancesTr" / f"a{ending}"), np.select([disk, two], [1, unknown])
    )
    assert json.loads((folder / "dataset.json").read_text())["instances"] == {"unknown": unknown}
    listed = pd.read_csv(folder / "unknown_components.csv")
    assert listed["area_mm2"].tolist() == [two.sum()] and listed["volume_mm3"].isna().all()
    assert how_many(found, known=True) == f"1 components ({disk.sum()} mm2)"


def test_touching_lesions_of_two_labels_are_two_components(folder):
    label = mask(*PAIR)
    label[:, :, 16:] *= 2
    write_case(folder, "a", label)
    declare(folder, labels={"background": 0, "old": 1, "new": 2})
    sort(folder)
    assert np.unique(read(folder / "instancesTr" / "a.nii.gz")).tolist() == [0, 1, 2]


def test_without_any_unknown_component_nothing_is_declared(folder):
    for case in ("a", "=b"):
        write_case(folder, case, mask(ALONE))
    before = (folder / "dataset.json").read_bytes()
    assert sort(folder)["known"].all()
    assert (folder / "dataset.json").read_bytes() == before
    assert pd.read_csv(folder / "unknown_components.csv").empty


def test_a_dataset_without_lesions_is_no_error(folder):
    for case in ("a", "=b"):
        write_case(folder, case, mask())
    found = sort(folder)
    assert [how_many(found, known) for known in (True, False)] == ["0 components (0.0 mL)"] * 2
    assert not read(folder / "instancesTr" / "a.nii.gz").any()


def test_a_dataset_of_unknown_components_only_is_refused_with_the_counts(folder):
    before = files_of(folder)
    volume = 2 * sum(read(folder / "labelsTr" / f"{case}.nii.gz").sum() for case in ("a", "=b"))
    message = rf"No connected .* 4 components \({volume / 1000:.1f} mL\) in 3 cases are unknown"
    with pytest.raises(InputError, match=message):
        sort(folder, max_diameter_mm=1.0)
    assert files_of(folder) == before


def test_what_stands_there_is_not_replaced(folder):
    write_nifti(mask(ALONE), folder / "instancesTr" / "a.nii.gz", SPACING)
    with pytest.raises(InputError, match=r"1 files in .*instancesTr already exist: a\.nii\.gz\. Use --overwrite"):
        sort(folder)


def test_a_foreign_list_is_not_replaced(folder):
    (folder / "unknown_components.csv").write_text("my,own\n1,2\n")
    before = files_of(folder)
    with pytest.raises(InputError, match=r"unknown_components\.csv exists and is not a list of unknown components"):
        sort(folder)
    assert files_of(folder) == before


def test_a_broken_label_is_named_before_anything_is_written(folder):
    (folder / "labelsTr" / "c.nii.gz").write_bytes(b"")
    before = files_of(folder)
    with pytest.raises(InputError, match=r"1 of 3 files cannot be used:\n.*c\.nii\.gz cannot be read: it is empty"):
        sort(folder)
    assert files_of(folder) == before


@pytest.mark.parametrize("kind", ["a file", "read-only", "full"])
def test_an_unwritable_folder_is_named_before_the_work(folder, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(sorting, "writing_every", None)
    with unwritable(kind, tmp_path) as place:
        (folder / "instancesTr").symlink_to(place)
        before = (folder / "dataset.json").read_bytes()
        with pytest.raises(InputError, match="not a folder" if kind == "a file" else "Nothing can be written to"):
            sort(folder)
    assert (folder / "dataset.json").read_bytes() == before and not (folder / "unknown_components.csv").exists()


def prepared(monkeypatch, capsys, *options):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1", *options])
    with pytest.raises(SystemExit) as exit_:
        prepare.main()
    return exit_.value.code, capsys.readouterr()


def test_the_command_says_what_it_did(folder, monkeypatch, capsys):
    status, printed = prepared(monkeypatch, capsys, "--instances_from_labels", "--unknown_components")
    assert status == 0, printed.err
    single = 2 * mask(ALONE).sum()
    assert f"1 components ({single / 1000:.1f} mL) look like one lesion each and have an id.\n3 comp" in printed.out
    assert f'"instances": {{"unknown": 65535}} was added to {folder / "dataset.json"}.' in printed.out
    assert f"listed in {folder / 'unknown_components.csv'}, the largest first." in printed.out
    # The id of unknown instances, which several components share, is no slip of an annotator.
    assert "Annotation check: nothing found" in printed.out


def test_the_command_takes_the_limits(folder, monkeypatch, capsys):
    relaxed = ["--component_min_solidity", "0.1", "--component_h_maxima_mm", "9", "--component_max_diameter_mm", "99"]
    status, printed = prepared(monkeypatch, capsys, "--instances_from_labels", "--unknown_components", *relaxed)
    assert status == 0 and "0 components (0.0 mL) may be several" in printed.out
    assert np.unique(read(folder / "instancesTr" / "a.nii.gz")).tolist() == [0, 1, 2]


def test_unknown_components_alone_are_refused(folder, monkeypatch, capsys):
    status, printed = prepared(monkeypatch, capsys, "--unknown_components")
    assert status == 1 and "give both" in printed.err
