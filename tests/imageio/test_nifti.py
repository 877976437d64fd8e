"""NIfTI headers that readers understand differently."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

from nnunetv2_conflunet.imageio import read_instances
from nnunetv2_conflunet.utilities.errors import InputError

READERS = [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]
# Where the header of NIfTI-1 keeps these.
VOX_OFFSET, SLOPE, INTERCEPT = 108, 112, 116
VALUES = np.arange(60).reshape(3, 4, 5) % 7


def nifti(path, dtype=np.uint8, values=VALUES, **fields):
    """Write a NIfTI-1 file in which header fields, by their offset, have values that no library writes."""
    image = nibabel.Nifti1Image(values.astype(dtype), np.eye(4), dtype=dtype)
    content = bytearray(image.to_bytes())
    for offset, value in fields.items():
        struct.pack_into("<f", content, globals()[offset], value)
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("slope", [0, np.nan, np.inf])
def test_an_intercept_without_a_slope_is_refused_with_the_remedy(reader, ending, slope, tmp_path):
    path = nifti(tmp_path / f"map{ending}", SLOPE=slope, INTERCEPT=3)
    with pytest.raises(
        InputError, match=rf"map\{ending} has scl_slope {slope:g}, .* Set scl_slope to 1 and scl_inter to"
    ):
        read_instances(path, reader())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("intercept", [0, np.nan])
@pytest.mark.parametrize("slope", [0, np.nan])
def test_values_without_scaling_are_read_as_they_are_stored(reader, slope, intercept, tmp_path):
    found, _ = read_instances(nifti(tmp_path / "map.nii.gz", SLOPE=slope, INTERCEPT=intercept), reader())
    np.testing.assert_array_equal(np.sort(found, axis=None), np.sort(VALUES, axis=None))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("slope, intercept", [(1.1, 0), (1, 0.3)])
def test_scaled_values_whose_whole_parts_are_the_stored_ones_are_fractional(reader, slope, intercept, tmp_path):
    path = nifti(tmp_path / "map.nii.gz", SLOPE=slope, INTERCEPT=intercept)
    with pytest.raises(InputError, match=r"map\.nii\.gz holds fractional values in"):
        read_instances(path, reader())


@pytest.mark.parametrize("reader", READERS)
def test_voxels_within_the_header_are_refused(reader, tmp_path):
    with pytest.raises(InputError, match=r"map\.nii\.gz has voxels that begin at byte 0"):
        read_instances(nifti(tmp_path / "map.nii.gz", VOX_OFFSET=0), reader())


@pytest.mark.parametrize("names, n", [("RGB", 3), ("RGBA", 4)])
@pytest.mark.parametrize("reader", READERS)
def test_colors_are_refused_with_their_number(reader, names, n, tmp_path):
    colors = np.zeros(VALUES.shape, np.dtype([(name, "u1") for name in names]))
    nibabel.save(nibabel.Nifti1Image(colors, np.eye(4)), tmp_path / "map.nii.gz")
    with pytest.raises(InputError, match=rf"map\.nii\.gz holds {n} values per voxel"):
        read_instances(tmp_path / "map.nii.gz", reader())


@pytest.mark.parametrize("reader", READERS)
def test_imaginary_parts_are_not_dropped_in_silence(reader, tmp_path):
    with pytest.raises(InputError, match=r"map\.nii\.gz holds complex values"):
        read_instances(nifti(tmp_path / "map.nii.gz", np.complex64), reader())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_in_the_background_is_no_zero(reader, dtype, ending, tmp_path):
    path = nifti(tmp_path / f"map{ending}", dtype, np.where(VALUES == 0, np.nan, VALUES))
    with pytest.raises(InputError, match=rf"map\{ending} holds NaN or infinite values"):
        read_instances(path, reader())


def test_what_is_no_nifti_is_called_so(tmp_path):
    (tmp_path / "map.nii.gz").write_bytes(gzip.compress(b"text" * 200))
    with pytest.raises(InputError, match=r"map\.nii\.gz has the name of a NIfTI file but no NIfTI header"):
        read_instances(tmp_path / "map.nii.gz", SimpleITKIO())


@pytest.mark.parametrize("slope", [1, 2])
@pytest.mark.parametrize("reader", READERS)
def test_the_voxels_of_a_file_of_the_same_name_are_not_taken_for_those_of_the_compressed_one(reader, slope, tmp_path):
    nifti(tmp_path / "map.nii.gz", SLOPE=slope)
    nifti(tmp_path / "map.nii", values=VALUES, SLOPE=slope)
    found, _ = read_instances(tmp_path / "map.nii.gz", reader())
    assert found.max() == slope * VALUES.max()
    nifti(tmp_path / "map.nii", values=VALUES + 1, SLOPE=slope)
    try:
        found, _ = read_instances(tmp_path / "map.nii.gz", reader())
    except InputError as error:
        assert f"{tmp_path / 'map.nii.gz'} is read with the voxels of map.nii next to it" in str(error)
    else:
        assert found.max() == slope * VALUES.max()


numbers = st.sampled_from([0, 1, 2, 3, -1, 0.5, 0.1, 1 / 3, 1 / 255, 1e-8, 255, 2**20, np.nan, np.inf, -np.inf])


@given(
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64, np.complex64]),
    scale=st.sampled_from([1, 2, 5, 100]),
    slope=numbers,
    intercept=numbers,
    offset=st.sampled_from([352, 352, 352, 0, 348, 400]),
    cut=st.sampled_from([0, 0, 0, 1, 30]),
    compressed=st.booleans(),
)
@example(dtype=np.uint8, scale=1, slope=0, intercept=3, offset=352, cut=0, compressed=True)
@example(dtype=np.uint8, scale=1, slope=1, intercept=np.nan, offset=352, cut=0, compressed=True)
@example(dtype=np.uint16, scale=1, slope=1, intercept=0, offset=0, cut=0, compressed=True)
@settings(max_examples=200, deadline=None)
def test_the_readers_give_the_same_ids_or_all_refuse(
    dtype, scale, slope, intercept, offset, cut, compressed, tmp_path_factory
):
    path = tmp_path_factory.getbasetemp() / ("packed.nii.gz" if compressed else "plain.nii")
    nifti(path, dtype, VALUES * scale, SLOPE=slope, INTERCEPT=intercept, VOX_OFFSET=offset)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    found = []
    for reader in (SimpleITKIO, NibabelIO):
        try:
            found.append(read_instances(path, reader())[0].tolist())
        except InputError as error:
            assert str(path) in str(error)
            found.append("refused")
    assert found[0] == found[1]


@pytest.mark.parametrize("reader", READERS)
def test_voxels_far_behind_the_header_are_not_unpacked_to(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "read_seg", None)
    with pytest.raises(InputError, match=r"map\.nii\.gz has voxels that begin at byte 3000000000, far behind its"):
        read_instances(nifti(tmp_path / "map.nii.gz", VOX_OFFSET=3e9), reader())


def nifti_2(path, shape):
    """A NIfTI-2 file whose header has this shape, with little behind it."""
    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+2\0\r\n\x1a\n", 544
    content = header.binaryblock + bytes(1000)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_asks_for_more_than_the_memory_is_one_sentence(reader, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "read_seg", None)
    # 8 * 10 ** 18 bytes are 7.45e9 GiB.
    with pytest.raises(
        InputError,
        match=rf"map\{ending} cannot be read: .* 1000000 x 1000000 x 1000000 voxels, which t"
        r"ake 7\.45e\+09 GiB of memory; this machine has \d",
    ):
        read_instances(nifti_2(tmp_path / f"map{ending}", (10**6,) * 3), reader())
