"""The semi-synthetic cohort: its parts on arrays made by hand, and the script on the real data where they are."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from open_ms.cohort import OpenMSSource, crop_to, occurrence_of, shape_patients, whole_voxels
from open_ms.picture import draw_picture
from support import assert_whole_or_as_before, write_nifti

from nnunetv2_conflunet.simulation.image_grid import Grid
from nnunetv2_conflunet.simulation.statistics import measure_dataset

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "open_ms_cohort.py"
ONE_MM = (1.0, 1.0, 1.0)


def test_no_patient_lends_shapes_to_both_splits():
    patients = shape_patients()
    assert not set(patients["Tr"]) & set(patients["Ts"])
    assert len(patients["Tr"]) + len(patients["Ts"]) == 23
    assert len(patients["Ts"]) == 7


def test_a_crop_takes_the_voxels_at_the_same_place_and_zeros_beyond():
    array = np.arange(1, 61, dtype=np.int16).reshape(3, 4, 5)
    own = Grid((3, 4, 5), ONE_MM, (10.0, 20.0, 30.0))
    cropped = crop_to(array, own, Grid((2, 2, 3), ONE_MM, (11.0, 19.0, 33.0)))
    expected = np.zeros((2, 2, 3), np.int16)
    # z 11 and 12 are voxels 1 and 2; y 20 is voxel 0, y 19 lies outside; x 33 and 34 are voxels 3 and 4.
    expected[:, 1, :2] = array[1:3, 0, 3:5]
    np.testing.assert_array_equal(cropped, expected)


def test_a_crop_that_misses_the_image_is_empty():
    own = Grid((3, 4, 5), ONE_MM, (0.0, 0.0, 0.0))
    assert not crop_to(np.ones((3, 4, 5)), own, Grid((2, 2, 2), ONE_MM, (50.0, -50.0, 0.0))).any()


def test_grids_are_moved_to_whole_coordinates():
    assert whole_voxels(Grid((4, 4, 4), ONE_MM, (0.4, -1.6, 3.0))).origin_mm == (0.0, -2.0, 3.0)


def test_occurrence_is_the_share_of_the_patients_without_sheets_in_the_second_map():
    lesion, sheet = (np.zeros((60, 60, 60), bool) for _ in range(2))
    lesion[10:22, 10:22, 10:22] = True  # 1728 mm3
    sheet[40:53, 40:53, 40:53] = True  # 2197 mm3
    every, small = occurrence_of([lesion | sheet, lesion])
    # Smoothing keeps the sums: 1728 of both, 2197 of one of two patients.
    assert every.sum() == pytest.approx(1728 + 2197 / 2, rel=1e-3)
    assert small.sum() == pytest.approx(1728, rel=1e-3)
    assert small[46, 46, 46] < 1e-3 < every[46, 46, 46]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_missing_data_are_one_line(tmp_path: Path):
    done = run(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def open_ms() -> str:
    folder = os.environ.get("CONFLUNET_OPEN_MS")
    if not folder or not (Path(folder) / "flair").is_dir():
        pytest.skip("CONFLUNET_OPEN_MS names no folder with open_ms images (flair/patientNN.nii.gz)")
    return folder


def test_the_script_on_the_real_data(open_ms: str, tmp_path: Path):
    crop = ["--crop", "48", "56", "48"]
    first = run(open_ms, str(tmp_path / "a"), "--training_cases", "2", "--test_cases", "1", *crop)
    assert first.returncode == 0, first.stderr
    fewer = run(open_ms, str(tmp_path / "b"), "--training_cases", "1", "--test_cases", "0", *crop)
    assert fewer.returncode == 0, fewer.stderr
    names = {str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.nii.gz")}
    assert {"imagesReal/patient19_0000.nii.gz", "labelsReal/patient19.nii.gz", "instancesTs/simTs_0001.nii.gz"} <= names
    assert len(names) == 3 * 3 + 2
    for path in (tmp_path / "b").rglob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes()
    assert min(case.volumes_mm3.min() for case in measure_dataset(tmp_path / "a")) >= 14

    # The real case is the file, mirrored to run to the right, without interpolation.
    real = sitk.ReadImage(str(tmp_path / "a/imagesReal/patient19_0000.nii.gz"))
    source = sitk.ReadImage(str(Path(open_ms) / "flair/patient19.nii.gz"))
    for index in ((0, 0, 0), (20, 30, 40), (47, 55, 47)):
        where = source.TransformPhysicalPointToIndex(real.TransformIndexToPhysicalPoint(index))
        assert real[index] == source[where]

    shown = run(open_ms, str(tmp_path / "a"), "--statistics", "--picture", str(tmp_path / "picture.png"))
    assert shown.returncode == 0, shown.stderr
    assert "| above 2000 mm3" in shown.stdout
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


class Patients:
    """A database whose patients all have the same noise."""

    grid = Grid((20, 30, 40), ONE_MM, (0.0, 0.0, 0.0))
    noise = np.random.default_rng(0).random(grid.shape).astype(np.float32)

    def flair(self, _):
        return self.noise, self.grid

    def mask(self, _):
        return self.noise > 0.5, self.grid


@pytest.mark.parametrize("room", [0, 4096])
def test_on_a_full_disk_the_old_real_case_stands(disk, room):
    source = OpenMSSource(Patients())
    assert_whole_or_as_before(disk, lambda: source.write_further(disk.folder / "d", Patients.grid), room)


@pytest.mark.parametrize("room", [0, 4096])
def test_on_a_full_disk_the_old_picture_stands(disk, room, tmp_path):
    for name, array in (("images", Patients.noise), ("instances", (Patients.noise > 0.9).astype(np.uint16))):
        channel = "_0000" * (name == "images")
        write_nifti(array, tmp_path / f"{name}Tr" / f"a{channel}.nii.gz")
    assert_whole_or_as_before(disk, lambda: draw_picture(tmp_path, Patients(), disk.folder / "a.png"), room)
