"""A simulated patient: FLAIR contrast, lesions brighter than tissue, variation between patients."""

import numpy as np
import pytest

from nnunetv2_conflunet.simulation.anatomy import simulate_anatomy
from nnunetv2_conflunet.simulation.image_grid import Grid, block_mean, smooth_field
from nnunetv2_conflunet.simulation.lesions import LesionStatistics
from nnunetv2_conflunet.simulation.patient import lesion_share_of, simulate_patient
from nnunetv2_conflunet.simulation.templates import load_templates

pytestmark = pytest.mark.slow

CENTER_MM = (15.0, -16.0, 0.0)
STATISTICS = LesionStatistics(mean_lesions=15, dispersion=1e6, confluent_share=0.4)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid.around(CENTER_MM, (48, 64, 56), (1.0, 1.0, 1.0))


def test_contrast_is_that_of_flair(grid: Grid):
    anatomy = simulate_anatomy(load_templates(), grid, np.random.default_rng(0))
    medians = {name: np.median(anatomy.signal[share > 0.9]) for name, share in anatomy.tissues.items()}
    assert medians["csf"] < 0.4 < 0.9 < medians["white"] < medians["cortex"] < 1.4
    np.testing.assert_allclose(sum(anatomy.tissues.values()), anatomy.brain)
    assert anatomy.brain.max() <= 1.001


def test_ventricles_are_those_of_a_brain(grid: Grid):
    templates = load_templates()
    np.testing.assert_allclose(templates.ventricle_center_mm, CENTER_MM, atol=2)
    assert 5e3 < (templates.ventricle_distance_mm < 0).sum() < 4e4, "lateral ventricles have 5 to 40 mL"
    assert 1.2e6 < (templates.brain > 0.5).sum() < 2.1e6


def test_lesions_are_brighter_than_white_matter_but_not_apart_from_all_tissue(grid: Grid):
    patient = simulate_patient(grid, STATISTICS, 3)
    lesion = patient.instances > 0
    brain = (patient.image > 0) & ~lesion
    assert np.median(patient.image[lesion]) > 1.15 * np.median(patient.image[brain])
    # No threshold parts them: some of the background is brighter than the middle lesion voxel.
    assert (patient.image[brain] > np.median(patient.image[lesion])).sum() > 20


def test_the_same_seed_gives_the_same_patient_and_another_seed_another(grid: Grid):
    first, again, other = (simulate_patient(grid, STATISTICS, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.instances, again.instances)
    assert (first.image != other.image).mean() > 0.9
    assert (first.instances != other.instances).any()


def test_lesions_do_not_change_the_brain(grid: Grid):
    without = simulate_patient(grid, None, 1)
    assert not without.instances.any()
    affected = simulate_patient(grid, STATISTICS, 1)
    far = affected.instances == 0
    # Distractors keep away from lesions and may differ, the rest is the same.
    assert np.mean(without.image[far] == affected.image[far]) > 0.5


def test_thick_slices_show_the_same_brain(grid: Grid):
    thick_grid = Grid.around(CENTER_MM, (48, 64, 56), (3.0, 1.0, 1.0))
    thin = simulate_anatomy(load_templates(), grid, np.random.default_rng(0))
    thick = simulate_anatomy(load_templates(), thick_grid, np.random.default_rng(0))
    averaged = block_mean(thin.tissues["csf"], (3, 1, 1))
    assert np.corrcoef(averaged.ravel(), thick.tissues["csf"].ravel())[0, 1] > 0.9


def test_share_of_lesions_in_a_crop():
    assert lesion_share_of(Grid.around(CENTER_MM, (250, 250, 250), (1.0, 1.0, 1.0))) == pytest.approx(1)
    small = lesion_share_of(Grid.around(CENTER_MM, (96, 112, 96), (1.0, 1.0, 1.0)))
    smaller = lesion_share_of(Grid.around(CENTER_MM, (48, 48, 48), (3.0, 1.0, 1.0)))
    assert 0 < smaller < small < 1


def test_grid_keeps_its_box_when_refined():
    grid = Grid((4, 5, 6), (3.0, 1.0, 1.0), (10.0, 20.0, 30.0))
    fine = grid.refined((3, 1, 2))
    assert fine.shape == (12, 5, 12)
    assert fine.spacing_mm == (1.0, 1.0, 0.5)
    assert fine.origin_mm == (9.0, 20.0, 29.75)
    values = np.broadcast_to(fine.axes_mm()[0][:, None, None], fine.shape)
    np.testing.assert_allclose(block_mean(values, (3, 1, 2))[:, 0, 0], grid.axes_mm()[0])


def test_smooth_fields_have_unit_variance():
    grid = Grid((60, 60, 60), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    field = smooth_field(grid, 4.0, np.random.default_rng(0))
    assert field.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(field, axis=0)).max() < 1.5
