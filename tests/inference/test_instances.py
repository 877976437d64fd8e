"""The files of a case, through nnU-Net's readers and writers."""

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from skimage import io
from support import assert_whole_or_as_before

from nnunetv2_conflunet.imageio import read_instances
from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.instances import CaseOutput, instances_of_case
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.utilities.errors import InputError

CC = InstantiationSettings(method="cc", min_volume_mm3=0, min_extent_mm=0)
READERS = [NibabelIO, NibabelIOWithReorient, SimpleITKIO, SimpleITKIOWithReorient]


def made_of(semantic, properties, settings=CC):
    return instances_of_case(CaseOutput(semantic, semantic > 0, properties, None, None), settings)


def oblique_affine(axes):
    """Voxels of 1 x 2 x 3 mm, tilted by 0.2 rad, file axes along the world's in the given order and direction."""
    c, s = np.cos(0.2), np.sin(0.2)
    affine = np.eye(4)
    affine[:3, :3] = np.array(axes) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([1.0, 2.0, 3.0])
    affine[:3, 3] = 5, -6, 7
    return affine


@pytest.mark.parametrize("axes", [np.eye(3), -np.eye(3), [[0, -1, 0], [0, 0, 1], [1, 0, 0]]])
@pytest.mark.parametrize("reader", READERS)
def test_map_and_table_lie_where_the_input_lies(tmp_path, reader, axes):
    mask = np.zeros((10, 12, 14), np.uint8)
    mask[2:5, 3:8, 7:12] = 1
    mask[7:9, 9:11, 1:4] = 2
    affine = oblique_affine(axes)
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "case.nii.gz")
    semantic, properties = read_instances(tmp_path / "case.nii.gz", reader())
    folder = tmp_path / "instances"
    files = InstanceFiles(folder, "case", ".nii.gz")
    assert not files.are_done()
    made_of(semantic, properties).write(files, reader())
    assert files.are_done()
    assert sorted(p.name for p in folder.iterdir()) == ["case.csv", "case.nii.gz"]

    written = nibabel.load(folder / "case.nii.gz")
    assert np.allclose(written.affine, affine, atol=1e-4)
    ids = np.asarray(written.dataobj)
    assert np.array_equal(ids > 0, mask > 0)
    table = pd.read_csv(folder / "case.csv")
    assert len(table) == 2
    for row in table.itertuples():
        at = np.argwhere(ids == row.id)
        centroid = at.mean(axis=0)
        assert row.label == mask[tuple(at[0])]
        assert (row.centroid_voxel_i, row.centroid_voxel_j, row.centroid_voxel_k) == pytest.approx(centroid)
        assert (row.bbox_min_i, row.bbox_min_j, row.bbox_min_k) == tuple(at.min(axis=0))
        assert (row.bbox_max_i, row.bbox_max_j, row.bbox_max_k) == tuple(at.max(axis=0))
        extent = (at.max(axis=0) - at.min(axis=0) + 1) * (1, 2, 3)
        assert (row.extent_i_mm, row.extent_j_mm, row.extent_k_mm) == pytest.approx(extent, rel=1e-5)
        world = (affine @ [*centroid, 1])[:3]
        found = (row.centroid_world_x_mm, row.centroid_world_y_mm, row.centroid_world_z_mm)
        assert found == pytest.approx(world, abs=1e-3)
        # SimpleITK's own way from voxel to point, in LPS.
        image = sitk.ReadImage(str(folder / "case.nii.gz"))
        lps = image.TransformContinuousIndexToPhysicalPoint([float(value) for value in centroid])
        assert found == pytest.approx(np.array(lps) * (-1, -1, 1), abs=1e-3)


def test_a_png(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:8, 4:10] = mask[12:18, 20:26] = 1
    io.imsave(tmp_path / "case.png", mask, check_contrast=False)
    semantic, properties = read_instances(tmp_path / "case.png", NaturalImage2DIO())
    made = made_of(semantic, properties, InstantiationSettings(method="cc"))
    made.write(InstanceFiles(tmp_path / "out", "case", ".png"), NaturalImage2DIO())
    assert np.array_equal(io.imread(tmp_path / "out" / "case.png"), made.result.instances[0])
    table = made.lesions
    assert table["area_mm2"].tolist() == [30.0, 36.0]
    assert table["centroid_voxel_i"].tolist() == [6.5, 22.5]
    assert table["centroid_voxel_j"].tolist() == [5.0, 14.5]


def test_an_empty_case_has_a_table_without_rows(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6, 7), np.uint8), np.eye(4)), tmp_path / "case.nii.gz")
    semantic, properties = read_instances(tmp_path / "case.nii.gz", SimpleITKIO())
    made_of(semantic, properties).write(InstanceFiles(tmp_path / "out", "case", ".nii.gz"), SimpleITKIO())
    table = pd.read_csv(tmp_path / "out" / "case.csv")
    assert len(table) == 0 and "largest_diameter_mm" in table


def test_a_map_that_cannot_be_written_leaves_the_case_open(tmp_path, monkeypatch):
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 6, 7), np.uint8), np.eye(4)), tmp_path / "case.nii.gz")
    semantic, properties = read_instances(tmp_path / "case.nii.gz", SimpleITKIO())
    files = InstanceFiles(tmp_path / "out", "case", ".nii.gz")

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", full_disk)
    with pytest.raises(InputError, match=r"case\.nii\.gz cannot be written completely \(No space"):
        made_of(semantic, properties).write(files, SimpleITKIO())
    assert not files.are_done()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("room", [0, 4096])
def test_on_a_full_disk_neither_map_nor_table_is_replaced(disk, tmp_path, room, ending):
    # Specks, which do not compress.
    mask = (np.random.default_rng(0).random((20, 24, 28)) < 0.05).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "case.nii.gz")
    semantic, properties = read_instances(tmp_path / "case.nii.gz", SimpleITKIO())
    made, files = made_of(semantic, properties), InstanceFiles(disk.folder, "case", ending)

    def write():
        made.write(files, SimpleITKIO())

    with disk.room(room), pytest.raises(InputError):
        write()
    assert not files.are_done()
    assert_whole_or_as_before(disk, write, room)
    assert files.are_done()


@pytest.mark.parametrize("name", ["case.csv", "case.nii.gz"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_case_of_which_a_file_is_cut_off_is_not_done(tmp_path, name, share):
    nibabel.save(nibabel.Nifti1Image(np.eye(30, dtype=np.uint8)[None], np.eye(4)), tmp_path / "case.nii.gz")
    (tmp_path / "case.csv").write_text("id,label,n_voxels\n1,1,20\n")
    files = InstanceFiles(tmp_path, "case", ".nii.gz")
    assert files.are_done()
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    assert not files.are_done()
