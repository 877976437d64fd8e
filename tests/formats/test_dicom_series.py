import numpy as np
import pytest
from dicom_scenes import grid_lps, write_series
from pydicom import dcmread

from nnunetv2_conflunet.formats.dicom_series import read_series, series_folders
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (6, 5, 7)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("turned_degrees", [0, 25])
def test_the_grid_is_that_of_the_slices_in_any_order_of_files(tmp_path, turned_degrees, backwards):
    affine = grid_lps(turned_degrees=turned_degrees)
    write_series(tmp_path / "s", SHAPE, affine, backwards=backwards)
    (tmp_path / "s" / "notes.txt").write_text("no DICOM")
    (tmp_path / "s" / ".DS_Store").write_bytes(b"")
    series = read_series(tmp_path / "s")
    assert series.shape == SHAPE
    np.testing.assert_allclose(series.affine, affine, atol=1e-6)
    positions = np.array([image.ImagePositionPatient for image in series.images], float)
    np.testing.assert_allclose(positions, affine[:3, 3] + np.arange(6)[:, None] * affine[:3, 0], atol=1e-6)
    assert all("PixelData" not in image for image in series.images)


def test_slices_that_count_against_their_normal_are_put_in_its_order(tmp_path):
    affine = grid_lps()
    flipped = affine.copy()
    flipped[:3, 3] += 5 * affine[:3, 0]
    flipped[:3, 0] *= -1
    write_series(tmp_path / "s", SHAPE, flipped)
    np.testing.assert_allclose(read_series(tmp_path / "s").affine, affine, atol=1e-6)


def test_a_single_slice_has_its_plane(tmp_path):
    affine = grid_lps(spacing_mm=(1.0, 0.5, 0.7), turned_degrees=10)
    write_series(tmp_path / "s", (1, 5, 7), affine)
    np.testing.assert_allclose(read_series(tmp_path / "s").affine, affine, atol=1e-6)


def edit(folder, name, **attributes):
    image = dcmread(folder / name)
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.save_as(folder / name)


def test_what_is_no_volume_is_refused(tmp_path):
    folder = tmp_path / "s"
    cases = [
        ({"ImagePositionPatient": [-20, 10, 5]}, "holds several images of the same slice, such as echoes"),
        ({"ImagePositionPatient": [-20, 10, 9]}, r"slices in .*s are not evenly spaced: they are up to 1 mm off"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}, "differ in size, spacing or orientation"),
        ({"PixelSpacing": [1, 3]}, "differ in size, spacing or orientation"),
        ({"PixelSpacing": [0, 2]}, r"s cannot be used .*PixelSpacing must be two positive numbers"),
        ({"Rows": 8}, "differ in size, spacing or orientation"),
        ({"SeriesInstanceUID": "1.2.3"}, r"holds several series: .*FLAIR 1\.2\.3 \(1 images\).*Keep only the one"),
    ]
    for attributes, message in cases:
        # File names are those of slices here, and the second one lies at 8 mm.
        write_series(folder, SHAPE, grid_lps(), shuffled=False, series_uid="1.2")
        edit(folder, "IM0001", **attributes)
        with pytest.raises(InputError, match=message):
            read_series(folder)


def test_one_missing_slice_of_many_is_noticed(tmp_path):
    write_series(tmp_path / "s", (150, 2, 2), grid_lps(), shuffled=False)
    (tmp_path / "s" / "IM0075").unlink()
    with pytest.raises(InputError, match=r"are not evenly spaced: they are up to 1\.5 mm off"):
        read_series(tmp_path / "s")


def test_rounded_positions_are_even(tmp_path):
    affine = grid_lps(spacing_mm=(0.977, 1.0, 1.0), turned_degrees=20)
    write_series(tmp_path / "s", (40, 2, 2), affine)
    for file in (tmp_path / "s").iterdir():
        position = [round(float(value), 2) for value in dcmread(file).ImagePositionPatient]
        edit(tmp_path / "s", file.name, ImagePositionPatient=position)
    np.testing.assert_allclose(read_series(tmp_path / "s").affine, affine, atol=0.01)


def test_a_tilted_gantry_is_refused(tmp_path):
    affine = grid_lps()
    affine[1, 0] = 1.5
    write_series(tmp_path / "s", SHAPE, affine)
    with pytest.raises(InputError, match="not stacked at right angles, as with a tilted gantry"):
        read_series(tmp_path / "s")


def test_a_missing_attribute_is_named(tmp_path):
    write_series(tmp_path / "s", SHAPE, grid_lps(), ImagePositionPatient=None)
    with pytest.raises(InputError, match=r"images in .*s cannot be used .*ImagePositionPatient"):
        read_series(tmp_path / "s")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(InputError, match="holds no DICOM images; give the folder of the series"):
        read_series(tmp_path)


def test_series_are_found_in_a_folder_or_by_a_table(tmp_path):
    for name in ("a", "b", "elsewhere/b"):
        (tmp_path / name).mkdir(parents=True)
    assert series_folders(["a", "b"], tmp_path) == {"a": tmp_path / "a", "b": tmp_path / "b"}
    table = tmp_path / "series.csv"
    table.write_text(f"case,series\na,a\nb,{tmp_path / 'elsewhere' / 'b'}\n")
    assert series_folders(["a", "b"], table) == {"a": tmp_path / "a", "b": tmp_path / "elsewhere" / "b"}
    with pytest.raises(InputError, match=r"no folder with the DICOM series of c \(.*c\)"):
        series_folders(["a", "c"], tmp_path)
