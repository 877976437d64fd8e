"""Files whose bytes are not those that were written."""

import itertools
import os
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from skimage import io

from nnunetv2_conflunet.imageio import itk, nifti, read_instances
from nnunetv2_conflunet.utilities.errors import InputError

NIFTI_READERS = [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]
# The formats with a sum of their own, and how many bytes at their beginning it does not cover.
FORMATS = [
    *((".nii.gz", reader, 10) for reader in NIFTI_READERS),
    (".nrrd", SimpleITKIO, 300),
    (".mha", SimpleITKIO, 300),
    (".png", NaturalImage2DIO, 8),
]


def blobs():
    values = np.zeros((20, 30, 40), np.uint8)
    rng = np.random.default_rng(0)
    for i in range(1, 60):
        z, y, x = rng.integers(0, (16, 26, 36))
        values[z : z + 4, y : y + 4, x : x + 4] = i
    return values


def written(path):
    values = blobs()
    if path.suffix == ".png":
        io.imsave(path, values[10], check_contrast=False)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path), True)
    return path


@pytest.mark.parametrize("ending, reader, start", FORMATS)
def test_no_flipped_bit_of_a_compressed_file_gives_other_ids(ending, reader, start, tmp_path):
    whole = written(tmp_path / f"whole{ending}").read_bytes()
    expected, _ = read_instances(tmp_path / f"whole{ending}", reader())
    damaged, refused = tmp_path / f"damaged{ending}", 0
    rng = np.random.default_rng(0)
    for position in rng.integers(start, len(whole), 60):
        content = bytearray(whole)
        content[position] ^= 1 << rng.integers(8)
        damaged.write_bytes(content)
        try:
            found, _ = read_instances(damaged, reader())
        except InputError as error:
            assert str(damaged) in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
    assert refused > 50


@pytest.mark.parametrize("ending, reader", [*(row[:2] for row in FORMATS), (".nii", NibabelIO), (".gipl", SimpleITKIO)])
def test_no_cut_file_gives_ids(ending, reader, tmp_path):
    whole = written(tmp_path / f"whole{ending}").read_bytes()
    for length in (1, len(whole) // 3, len(whole) * 9 // 10, len(whole) - 30):
        (tmp_path / f"cut{ending}").write_bytes(whole[:length])
        with pytest.raises(InputError, match=rf"cut\{ending} "):
            read_instances(tmp_path / f"cut{ending}", reader())


@pytest.mark.parametrize("reader", NIFTI_READERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i4", np.float32])
def test_the_sum_of_what_was_read_spares_a_second_reading_in_any_orientation(reader, dtype, tmp_path, monkeypatch):
    def second_reading(*arguments):
        raise AssertionError("read again")

    monkeypatch.setattr(nifti, "_check_whole", second_reading)
    values = blobs()[:6, :7, :8]
    values[0, 0, :3] = 1, 2, 3
    for permutation in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, permutation] * signs
            header = nibabel.Nifti1Header(endianness=">" if str(dtype).startswith(">") else "<")
            nibabel.save(nibabel.Nifti1Image(values.astype(dtype), affine, header), tmp_path / "a.nii.gz")
            assert read_instances(tmp_path / "a.nii.gz", reader())[0].max() == values.max()


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_the_sum_spares_a_second_reading_in_the_formats_of_simpleitk(ending, tmp_path, monkeypatch):
    def second_reading(*arguments):
        raise AssertionError("read again")

    monkeypatch.setattr(itk, "_check_stream", second_reading)
    found, _ = read_instances(written(tmp_path / f"a{ending}"), SimpleITKIO())
    np.testing.assert_array_equal(found, blobs())


@pytest.mark.parametrize("reader", NIFTI_READERS)
def test_scaled_values_are_read_and_their_file_is_checked(reader, tmp_path):
    image = nibabel.Nifti1Image(blobs(), np.eye(4))
    image.header.set_slope_inter(2, 0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    stored = np.asanyarray(nibabel.load(tmp_path / "a.nii.gz").dataobj)
    assert read_instances(tmp_path / "a.nii.gz", reader())[0].max() == stored.max()
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii\.gz cannot be read: it is damaged or cut off \(BadGzipFile: CRC"):
        read_instances(tmp_path / "a.nii.gz", reader())


def test_several_gzip_members_are_one_file(tmp_path):
    import gzip

    content = gzip.decompress(written(tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    np.testing.assert_array_equal(read_instances(tmp_path / "a.nii.gz", SimpleITKIO())[0], blobs())


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".gipl", ".nii.gz"])
def test_no_map_is_read_that_does_not_fit_into_memory(ending, tmp_path, monkeypatch):
    path = written(tmp_path / f"map{ending}")
    # 20 x 30 x 40 voxels of 8 bytes are 23.4375 pages.
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 47}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    np.testing.assert_array_equal(read_instances(path, SimpleITKIO())[0], blobs())
    monkeypatch.setattr(SimpleITKIO, "read_seg", None)
    pages["SC_PHYS_PAGES"] = 46
    with pytest.raises(InputError, match=rf"map\{ending} cannot be read: .*40 x 30 x 20 voxels, .* or crop it"):
        read_instances(path, SimpleITKIO())


def test_a_system_that_does_not_tell_its_memory_reads_all_maps(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    np.testing.assert_array_equal(read_instances(written(tmp_path / "map.nrrd"), SimpleITKIO())[0], blobs())


def test_what_a_small_file_unpacks_to_behind_its_voxels_is_not_kept(tmp_path):
    path = written(tmp_path / "map.nrrd")
    header = path.read_bytes().split(b"\n\n")[0] + b"\n\n"
    packer = zlib.compressobj(wbits=31)
    zeros = bytes(2**24)
    packed = packer.compress(blobs().tobytes()) + b"".join(packer.compress(zeros) for _ in range(16)) + packer.flush()
    path.write_bytes(header + packed)
    tracemalloc.start()
    try:
        itk._check_stream(path, len(header))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # It holds 256 MiB.
    assert peak < 100 * 2**20
