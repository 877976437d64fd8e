"""Where a contact sheet looks."""

import numpy as np
import pytest
from scenes import balls

from nnunetv2_conflunet.evaluation.report.sheets.places import FIELD_MM, largest_lesion, touching_groups
from nnunetv2_conflunet.imageio import Geometry

SPACING_MM = (2.0, 1.0, 1.5)


def geometry_of(shape, spacing_mm=SPACING_MM):
    return Geometry.from_properties(shape, {"spacing": spacing_mm})


def test_the_largest_lesion_is_seen_at_a_voxel_of_its_own():
    instances = np.zeros((9, 9, 9), np.int32)
    instances[1, 1, 1:4] = 2
    # A ring, whose center of mass is not in it.
    instances[5, 3:8, 3:8] = 7
    instances[5, 4:7, 4:7] = 0
    found = largest_lesion(instances, geometry_of(instances.shape))
    assert found.ids == (7,) and found.volume == 16
    # The nearest of them, along the axis of 1 mm.
    assert found.voxel in ((5, 3, 5), (5, 7, 5))


def test_at_a_tie_the_lowest_id_is_the_largest():
    instances = np.array([[[0, 9, 9, 0, 3, 3]]])
    assert largest_lesion(instances, geometry_of(instances.shape)).ids == (3,)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5)])
def test_no_lesion_has_no_place(shape):
    assert largest_lesion(np.zeros(shape, int), geometry_of(shape)) is None
    assert touching_groups(np.zeros(shape, int), geometry_of(shape)) == []


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(16, 20, 18), (1, 40, 44)])
def test_groups_are_the_components_of_several_lesions(seed, shape):
    import cc3d

    geometry = geometry_of(shape)
    flat = shape[0] == 1
    drawn = balls(seed, shape[flat:], np.array(SPACING_MM[flat:]), 9)
    instances = drawn.reshape(shape) * 3
    groups = touching_groups(instances, geometry)
    components = cc3d.connected_components((instances > 0).astype(np.uint8), connectivity=26)
    members = [set(np.unique(instances[components == i]).tolist()) for i in range(1, components.max() + 1)]
    assert sorted(group.ids for group in groups) == sorted(tuple(sorted(ids)) for ids in members if len(ids) > 1)
    assert [len(group.ids) for group in groups] == sorted((len(group.ids) for group in groups), reverse=True)
    for group in groups:
        around = instances[tuple(slice(max(0, i - 1), i + 2) for i in group.voxel)]
        assert instances[group.voxel] in group.ids
        assert len(set(np.unique(around).tolist()) & set(group.ids)) > 1
        assert group.volume == np.count_nonzero(np.isin(instances, group.ids))
        assert FIELD_MM[0] <= group.field_mm <= FIELD_MM[1]


def test_the_slice_shows_contacts_of_as_many_lesions_as_one_can():
    instances = np.zeros((9, 12, 12), np.int32)
    # Four lesions in a column; two more touch the upper end of it at slice 6.
    instances[1:8, 4:6, 4:6] = 1
    instances[2, 6:8, 4:6] = 2
    instances[6, 6:8, 4:6], instances[6, 4:6, 6:8], instances[6, 2:4, 4:6] = 3, 4, 5
    (group,) = touching_groups(instances, geometry_of(instances.shape))
    assert group.ids == (1, 2, 3, 4, 5) and group.voxel[0] == 6
