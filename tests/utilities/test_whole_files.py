"""Every format that the package writes, cut at many places."""

import gzip

import blosc2
import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tifffile
from matplotlib.figure import Figure
from skimage import io

from nnunetv2_conflunet.utilities.whole_files import is_whole, why_not_whole

IDS = np.random.default_rng(0).integers(0, 60_000, (5, 6, 7)).astype(np.uint16)
PLANE = IDS.reshape(14, 15)


def by_sitk(array):
    return lambda path: sitk.WriteImage(sitk.GetImageFromArray(array), str(path), True)


def uncompressed_by_sitk(path):
    sitk.WriteImage(sitk.GetImageFromArray(IDS.astype(np.float64)), str(path), False)


def by_nibabel(path):
    nibabel.save(nibabel.Nifti1Image(IDS, np.eye(4)), path)


def figure(path):
    Figure(figsize=(1, 1)).savefig(path, dpi=30)


WRITERS = [
    *((f"sitk{ending}", by_sitk(IDS)) for ending in (".nii", ".nii.gz", ".nrrd", ".mha", ".gipl")),
    *((f"plane{ending}", by_sitk(PLANE)) for ending in (".nii.gz", ".nrrd", ".mha")),
    *((f"raw{ending}", uncompressed_by_sitk) for ending in (".nii", ".nrrd", ".mha")),
    ("nibabel.nii", by_nibabel),
    ("nibabel.nii.gz", by_nibabel),
    ("photo.png", lambda path: io.imsave(path, PLANE, check_contrast=False)),
    ("photo.bmp", lambda path: io.imsave(path, PLANE.astype(np.uint8), check_contrast=False)),
    ("photo.tif", lambda path: io.imsave(path, PLANE, check_contrast=False)),
    ("volume.tif", lambda path: tifffile.imwrite(path, IDS, compression="zlib")),
    ("volume.tiff", lambda path: tifffile.imwrite(path, IDS, compression="zlib")),
    ("figure.png", figure),
    ("heads.npz", lambda path: np.savez_compressed(path, a=IDS, b=PLANE)),
    ("map.b2nd", lambda path: blosc2.asarray(IDS, urlpath=str(path))),
    ("other.npy", lambda path: np.save(path, IDS)),
]


@pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])
def test_a_file_without_its_last_bytes_is_not_whole(tmp_path, name, write):
    write(tmp_path / name)
    assert why_not_whole(tmp_path / name) is None and is_whole(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    # The format of the last one is unknown, and only that it is empty is found.
    size = len(whole)
    lengths = [0] if name == "other.npy" else [*range(0, size, 11), *range(max(0, size - 20), size)]
    found_whole = []
    for n in lengths:
        (tmp_path / f"cut_{name}").write_bytes(whole[:n])
        if is_whole(tmp_path / f"cut_{name}"):
            found_whole.append(n)
    assert found_whole == []


def test_a_table_ends_with_a_line(tmp_path):
    table = pd.DataFrame({"id": [1, 2], "volume": [30.5, 40.25]})
    table.to_csv(tmp_path / "a.csv", index=False)
    assert is_whole(tmp_path / "a.csv")
    for cut in (b"", b"id,vol", b"id,volume\n1,30.5\n2,4"):
        (tmp_path / "a.csv").write_bytes(cut)
        assert not is_whole(tmp_path / "a.csv")


def test_the_reason_says_how_much_is_missing(tmp_path):
    by_nibabel(tmp_path / "a.nii")
    # 352 bytes of header and 5 * 6 * 7 values of two bytes.
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:-20])
    assert why_not_whole(tmp_path / "a.nii") == "truncated: 752 bytes of 772"
    (tmp_path / "a.nii").write_bytes(b"")
    assert why_not_whole(tmp_path / "a.nii") == "0 bytes"


@pytest.mark.parametrize("room", [0, 500, 4096, 3 * 4096, 10 * 4096])
def test_an_archive_that_numpy_could_not_finish_is_not_whole(disk, room):
    """Its end is there, since Python closes it all the same."""
    noise = np.random.default_rng(0).random(4000)
    with disk.room(room), pytest.raises(OSError):
        np.savez_compressed(disk.folder / "a.npz", first=noise[:300], second=noise, third=noise)
    assert not is_whole(disk.folder / "a.npz")


def test_what_is_no_file_is_not_whole(tmp_path):
    assert not is_whole(tmp_path / "none.nii.gz")
    assert not is_whole(tmp_path)


def test_several_gzip_members_are_one_file(tmp_path):
    by_nibabel(tmp_path / "a.nii.gz")
    by_nibabel(tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert is_whole(tmp_path / "a.nii.gz")
