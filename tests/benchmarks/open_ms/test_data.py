"""The folder of real data: axes, and one clear error for what is missing."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from open_ms.data import FLAIR_PATIENTS, PATIENTS, OpenMS

from nnunetv2_conflunet.utilities.errors import InputError


def write(path: Path, array: np.ndarray, spacing: float = 1.0) -> None:
    """Write (z, y, x) with x to the left, as the database has it: voxel 0 lies 10 mm right of the middle."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing,) * 3)
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((-10.0, 20.0, -5.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for patient in PATIENTS:
        write(tmp_path / "gold" / f"{patient}.nii.gz", np.zeros((4, 5, 6), np.uint8))
    for patient in FLAIR_PATIENTS:
        write(tmp_path / "flair" / f"{patient}.nii.gz", np.ones((4, 5, 6), np.float32))
    return tmp_path


def test_arrays_run_to_the_top_the_front_and_the_right(folder: Path):
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 0] = 7
    write(folder / "flair" / "patient07.nii.gz", array)
    flair, grid = OpenMS.at(folder).flair("patient07")
    # The rightmost voxel of the file is the last one along x.
    assert np.argwhere(flair).tolist() == [[1, 2, 5]]
    assert flair.dtype == np.float32
    # Six voxels, the rightmost at x = 10 mm; LPS y = 20 mm is 20 mm behind the middle.
    assert grid.origin_mm == (-5.0, -20.0, 5.0)
    assert grid.shape == (4, 5, 6)


def test_a_mask_is_boolean(folder: Path):
    write(folder / "gold" / "patient07.nii.gz", np.full((4, 5, 6), 3, np.uint8))
    mask, _ = OpenMS.at(folder).mask("patient07")
    assert mask.dtype == bool
    assert mask.all()


@pytest.mark.parametrize("name", ["gold/patient12.nii.gz", "flair/patient19.nii.gz"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        OpenMS.at(folder)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="nowhere"):
        OpenMS.at(tmp_path / "nowhere")


def test_files_that_are_no_images_or_not_of_1_mm(folder: Path):
    (folder / "flair" / "patient07.nii.gz").write_bytes(b"no image")
    write(folder / "flair" / "patient19.nii.gz", np.ones((4, 5, 6), np.float32), spacing=2.0)
    data = OpenMS.at(folder)
    with pytest.raises(InputError, match=r"patient07\.nii\.gz cannot be read"):
        data.flair("patient07")
    with pytest.raises(InputError, match=r"patient19\.nii\.gz has spacing"):
        data.flair("patient19")


def test_a_mask_that_is_cut_off_has_no_fewer_lesions(folder: Path):
    path = folder / "gold" / "patient07.nii.gz"
    write(path, (np.random.default_rng(0).random((30, 40, 50)) < 0.5).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"gold/patient07\.nii\.gz cannot be read: it is damaged or cut off"):
        OpenMS.at(folder).mask("patient07")
