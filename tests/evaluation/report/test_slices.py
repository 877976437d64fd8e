"""Colors and the picture of a case's instance maps."""

import nibabel
import numpy as np

from nnunetv2_conflunet.evaluation.report.slices import colored_as, draw_slices, load_voxels


def test_lesions_have_the_color_of_the_reference_lesion_that_they_overlap_most():
    reference = np.array([[1, 1, 1, 2, 2, 0, 0]])
    colors = colored_as(reference, np.array([[0, 5, 5, 5, 4, 0, 8]]))[0]
    of_reference = colored_as(reference, reference)[0]
    assert np.isnan(colors[[0, 5]]).all()
    assert colors[1] == of_reference[1] != of_reference[4] == colors[4]
    assert colors[6] not in of_reference


def test_only_one_of_two_halves_gets_the_color_of_the_whole():
    reference = np.array([[3, 3, 3, 3]])
    colors = colored_as(reference, np.array([[1, 1, 2, 2]]))[0]
    assert colors[0] == colored_as(reference, reference)[0, 0] != colors[2]


def test_the_picture_shows_the_number_of_lesions_in_view(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda axes, title: titles.append(title))
    instances = np.zeros((8, 8, 4), np.int32)
    instances[1:3, 1:3, 1], instances[5:7, 5:7, 1] = 1, 2
    nibabel.save(nibabel.Nifti1Image(instances, np.eye(4)), tmp_path / "a.nii.gz")
    maps = {"reference": load_voxels(tmp_path / "a.nii.gz")}
    np.testing.assert_array_equal(maps["reference"], instances)
    image = np.random.default_rng(0).random(instances.shape)
    draw_slices(tmp_path / "a.png", image, instances, maps, [0, 1])
    draw_slices(tmp_path / "b.png", image, instances, maps, [1], (slice(0, 4), slice(0, 4)))
    assert titles == ["FLAIR", "reference: 0 lesions", "FLAIR", "reference: 2 lesions", "FLAIR", "reference: 1 lesions"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
