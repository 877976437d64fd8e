"""The image behind the lesions."""

import numpy as np
import pytest
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io
from support import write_nifti

from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.imageio.case_folder import channels_of_cases
from nnunetv2_conflunet.pictures.images import gray_window, read_background
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (3, 4, 5)


@pytest.fixture
def case(tmp_path):
    """Two channels, with values 10 and 20, and an instance map."""
    for channel, value in ((0, 10), (1, 20)):
        image = np.full(SHAPE, value, np.float32)
        image[0, 0, 0] = value + 5
        write_nifti(image, tmp_path / f"a_000{channel}.nii.gz")
    write_nifti(np.ones(SHAPE, np.uint8), tmp_path / "maps" / "a.nii.gz")
    return tmp_path


def read(case, channel, reader=None, ending=".nii.gz"):
    reader = reader or SimpleITKIO()
    file = case / "maps" / f"a{ending}"
    instances, properties = read_instances(file, reader)
    geometry = Geometry.from_properties(instances.shape, properties)
    return read_background(channels_of_cases(case, ending)["a"], channel, reader, file, geometry)


@pytest.mark.parametrize("channel, value", [(0, 10), (1, 20)])
def test_each_channel_is_in_its_own_file(case, channel, value):
    image, (low, high) = read(case, channel)
    assert image.shape == SHAPE and image[1, 1, 1] == value
    assert low == value < high <= value + 5


def test_a_channel_that_is_not_there_is_named(case):
    with pytest.raises(InputError, match=r"has no channel 2 of this case; its channels are 0, 1"):
        read(case, 2)
    (case / "a_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"has no channel 1 of this case; its channels are 0\."):
        read(case, 1)


def test_a_lone_file_has_the_channel_of_its_name(case):
    (case / "a_0000.nii.gz").unlink()
    assert read(case, 1)[0][1, 1, 1] == 20
    with pytest.raises(InputError, match=r"has no channel 0 of this case; its channels are 1\."):
        read(case, 0)


def test_a_file_may_hold_several_channels(tmp_path):
    rgb = np.zeros((4, 5, 3), np.uint8)
    rgb[..., 2] = 30
    io.imsave(tmp_path / "a_0000.png", rgb, check_contrast=False)
    (tmp_path / "maps").mkdir()
    io.imsave(tmp_path / "maps" / "a.png", np.ones((4, 5), np.uint8), check_contrast=False)
    image, _ = read(tmp_path, 2, NaturalImage2DIO(), ".png")
    assert image.shape == (1, 4, 5) and (image == 30).all()
    with pytest.raises(InputError, match=r"no channel 3 .* its channels are 0, 1, 2"):
        read(tmp_path, 3, NaturalImage2DIO(), ".png")


def test_an_image_on_another_grid_is_refused(case):
    write_nifti(np.zeros((3, 4, 6), np.float32), case / "a_0000.nii.gz")
    with pytest.raises(InputError, match=r"a_0000\.nii\.gz does not lie on the grid of .*a\.nii\.gz: size"):
        read(case, 0)
    write_nifti(np.zeros(SHAPE, np.float32), case / "a_0000.nii.gz", spacing_mm=(1, 1, 2))
    with pytest.raises(InputError, match="spacing"):
        read(case, 0)


def test_an_image_that_cannot_be_read_is_named(case):
    (case / "a_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a_0000\.nii\.gz cannot be read by SimpleITKIO"):
        read(case, 0)


def test_the_window_leaves_out_what_is_zero_or_no_number():
    image = np.zeros(3000)
    image[:1000] = np.arange(1, 1001)
    image[1000] = np.nan
    image[1001] = np.inf
    expected = np.percentile(np.arange(1, 1001), (0.5, 99.9))
    np.testing.assert_allclose(gray_window(image), expected)
    assert gray_window(np.zeros((3, 3))) == (0.0, 1.0)


def test_the_window_of_a_large_image_is_that_of_a_sample():
    image = np.random.default_rng(0).normal(100, 10, (120, 130, 140))
    np.testing.assert_allclose(gray_window(image), np.percentile(image, (0.5, 99.9)), atol=0.5)
