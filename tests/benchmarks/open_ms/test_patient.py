"""A patient on a brain drawn by hand: lesions keep to white matter, look like lesions, and are reproducible."""

from dataclasses import replace

import cc3d
import numpy as np
import pytest
from open_ms.anatomy import deform_brain
from open_ms.patient import occurrence_tissue, simulate_real_patient
from open_ms.shapes import real_components, shape_maker
from open_ms_scenes import CENTER_MM, ball, box, hand_brain

from nnunetv2_conflunet.simulation.image_grid import Grid
from nnunetv2_conflunet.simulation.lesions import LesionStatistics
from nnunetv2_conflunet.simulation.statistics import measure_case

pytestmark = pytest.mark.slow

GRID = Grid.around(CENTER_MM, (48, 52, 56), (1.0, 1.0, 1.0))
STATISTICS = LesionStatistics(mean_lesions=12, dispersion=1e6, confluent_share=0.3)


def make_patient(seed: int, statistics: LesionStatistics | None = STATISTICS):
    shapes = shape_maker([*real_components(ball(3)), *real_components(box(4, 6, 9)), *real_components(ball(6))])
    return simulate_real_patient(hand_brain(), shapes, GRID, statistics, np.random.SeedSequence(seed))


@pytest.fixture(scope="module")
def patient():
    return make_patient(3)


def test_lesions_are_brighter_than_white_matter_and_large_enough(patient):
    lesion = patient.instances > 0
    tissue = (patient.image > 0) & ~lesion
    assert np.median(patient.image[lesion]) > 1.15 * np.median(patient.image[tissue])
    measured = measure_case(patient.instances, GRID.spacing_mm)
    assert len(measured.volumes_mm3) >= 6
    assert measured.volumes_mm3.min() >= 14
    assert measured.smallest_extent_mm >= 3
    for label in range(1, patient.instances.max() + 1):
        assert cc3d.connected_components(patient.instances == label, connectivity=6).max() == 1


def test_the_same_seed_gives_the_same_patient_and_another_another(patient):
    again, other = make_patient(3), make_patient(4)
    np.testing.assert_array_equal(again.image, patient.image)
    np.testing.assert_array_equal(again.instances, patient.instances)
    assert (other.instances != patient.instances).any()


def test_lesions_do_not_change_the_brain(patient):
    without = make_patient(3, None)
    assert not without.instances.any()
    assert np.mean((without.image == patient.image)[patient.instances == 0]) > 0.5


def test_lesions_lie_where_other_patients_have_them():
    occurrence = np.zeros_like(hand_brain().occurrence)
    occurrence[:, :, :20] = 1.0
    anatomy, deformed = deform_brain(replace(hand_brain(), occurrence=occurrence), GRID, np.random.default_rng(0))
    tissue = occurrence_tissue(anatomy, deformed)
    for density in tissue.densities:
        assert density[deformed[0] > 0.9].mean() > 2 * density[(deformed[0] < 0.1) & tissue.allowed].mean() > 0
        assert not density[anatomy.ventricle_distance_mm <= 0].any()
    assert not tissue.allowed[anatomy.tissues["csf"] > 0.5].any()
