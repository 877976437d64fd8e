import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from skimage.transform import resize
from support import balls

from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN, to_preprocessed_grid
from nnunetv2_conflunet.utilities.errors import InputError

IDENTITY = {"transpose_forward": [0, 1, 2], "spacing_mm": (1.0, 1.0, 1.0)}


def whole(shape):
    return [[0, n] for n in shape]


def test_ids_are_renumbered_in_their_own_order():
    source = np.zeros((4, 4, 4), np.int32)
    source[0, 0, 0], source[1, 1, 1], source[2, 2, 2] = 900, 7, 70_000
    result = to_preprocessed_grid(source, source > 0, crop=whole(source.shape), **IDENTITY)
    assert result.dtype == np.int16
    assert (result[1, 1, 1], result[0, 0, 0], result[2, 2, 2]) == (1, 2, 3)
    assert np.count_nonzero(result) == 3


def test_transpose_and_crop():
    source = np.zeros((5, 6, 7), np.int32)
    source[1, 2, 3], source[4, 5, 6] = 1, 2
    transposed = source.transpose(2, 0, 1)[1:6, 0:3, 1:5]
    result = to_preprocessed_grid(source, transposed > 0, [2, 0, 1], [[1, 6], [0, 3], [1, 5]], (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(result, transposed)


def test_twice_the_resolution_repeats_every_voxel():
    source = balls((8, 9, 10), [(4, 4, 3), (4, 4, 7)], 2.5)
    finer = source.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    result = to_preprocessed_grid(source, finer > 0, crop=whole(source.shape), **IDENTITY)
    np.testing.assert_array_equal(result, finer)


def test_the_label_decides_where_they_disagree():
    source = np.zeros((1, 1, 9), np.int32)
    source[0, 0, 2:4], source[0, 0, 6:8] = 5, 6
    foreground = np.zeros(source.shape, bool)
    # Voxel 4 is nearer to 3 than to 6, voxel 5 the other way round; voxel 7 is outside the label.
    foreground[0, 0, 2:7] = True
    result = to_preprocessed_grid(source, foreground, crop=whole(source.shape), **IDENTITY)
    assert result[0, 0].tolist() == [0, 0, 1, 1, 1, 2, 2, 0, 0]


def test_nearest_is_nearest_in_mm():
    source = np.zeros((3, 1, 5), np.int32)
    source[0, 0, 2], source[1, 0, 0] = 1, 2
    foreground = source > 0
    foreground[1, 0, 2] = True
    arguments = {"transpose_forward": [0, 1, 2], "crop": whole(source.shape)}
    flat = to_preprocessed_grid(source, foreground, spacing_mm=(1.0, 1.0, 1.0), **arguments)
    thick = to_preprocessed_grid(source, foreground, spacing_mm=(3.0, 1.0, 1.0), **arguments)
    assert (flat[1, 0, 2], thick[1, 0, 2]) == (1, 2)


def test_a_lesion_without_a_voxel_on_a_coarse_grid_is_gone_and_ids_stay_dense():
    source = np.zeros((6, 6, 6), np.int32)
    source[0, 0, 0], source[3:6, 3:6, 3:6] = 1, 2
    foreground = np.zeros((2, 2, 2), bool)
    foreground[1, 1, 1] = True
    result = to_preprocessed_grid(source, foreground, crop=whole(source.shape), **IDENTITY)
    assert np.unique(result).tolist() == [0, 1]


def test_no_lesion():
    empty = np.zeros((3, 3, 3), np.int32)
    assert not to_preprocessed_grid(empty, empty > 0, crop=whole(empty.shape), **IDENTITY).any()


def test_more_instances_than_the_loader_holds():
    source = np.arange(32**3 + 8).reshape(2, 2, -1)
    with pytest.raises(InputError, match="32775 instances"):
        to_preprocessed_grid(source, source > 0, crop=whole(source.shape), **IDENTITY)


def test_a_label_that_was_changed_after_preprocessing_is_refused():
    source = balls((12, 12, 12), [(3, 3, 3)], 2.0)
    foreground = source > 0
    foreground[10, 10, 10] = True
    arguments = {"crop": whole(source.shape), "max_gap_mm": 4.0, **IDENTITY}
    # The ball's voxel (4, 4, 4) is nearest, 6 * sqrt(3) mm away.
    with pytest.raises(InputError, match=r"a lesion 10\.4 mm from any instance.*nnUNetv2_plan_and_preprocess again"):
        to_preprocessed_grid(source, foreground, **arguments)
    with pytest.raises(InputError, match="the map has no instance"):
        to_preprocessed_grid(np.zeros_like(source), foreground, **arguments)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.tuples(*[st.integers(4, 20)] * 3), st.permutations([0, 1, 2]))
def test_the_result_agrees_with_the_label_on_any_grid(seed, new_shape, transpose):
    rng = np.random.default_rng(seed)
    source = balls((12, 10, 14), rng.uniform(2, 10, (3, 3)), 3.0)
    foreground = rng.random(new_shape) < 0.3
    crop = whole(np.array(source.shape)[transpose])
    result = to_preprocessed_grid(source, foreground, transpose, crop, (3.0, 1.0, 0.7))
    np.testing.assert_array_equal(result > 0, foreground)
    assert set(np.unique(result[result > 0])) == set(range(1, result.max() + 1))


def test_each_voxel_has_the_id_of_the_nearest_source_voxel():
    """Against the obvious search: nearest source voxel of the sampling rule, else nearest lesion voxel in mm."""
    rng = np.random.default_rng(3)
    source = balls((9, 8, 10), rng.uniform(2, 7, (4, 3)), 2.0) * 10
    new_shape, spacing = (5, 11, 7), np.array((2.0, 1.0, 1.5))
    foreground = rng.random(new_shape) < 0.5
    result = to_preprocessed_grid(source, foreground, [0, 1, 2], whole(source.shape), tuple(spacing))
    scale = np.array(source.shape) / new_shape
    lesion = np.argwhere(source > 0)
    expected = np.zeros(new_shape, int)
    for voxel in np.argwhere(foreground):
        at = (voxel + 0.5) * scale - 0.5
        own = source[tuple(np.floor(at + 0.5).astype(int))]
        distances = np.linalg.norm((lesion - at) * spacing, axis=1)
        nearest = {source[tuple(voxel)] for voxel in lesion[np.isclose(distances, distances.min())]}
        expected[tuple(voxel)] = own or (min(nearest) if len(nearest) == 1 else -1)
    ids = np.unique(expected[expected > 0])
    decided = expected >= 0
    np.testing.assert_array_equal(np.append(0, ids)[result][decided], expected[decided])


@pytest.mark.parametrize("new_shape", [(20, 20, 20), (12, 20, 30), (30, 15, 20)])
def test_a_large_lesion_that_the_segmentation_lacks_is_refused(new_shape):
    source = balls((20, 20, 20), [(10, 10, 5), (10, 10, 14)], 4.5)
    finer = balls((20, 20, 20), [(10, 10, 5)], 4.5) > 0
    foreground = resize(finer.astype(float), new_shape, order=1) >= 0.5
    with pytest.raises(InputError, match=r"instance 2 \(.* voxels\) is missing .*\. The label was changed"):
        to_preprocessed_grid(source, foreground, crop=whole(source.shape), **IDENTITY)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(6, 24)] * 3),
    st.tuples(*[st.integers(3, 24)] * 3),
    st.sampled_from([(1.0, 1.0, 1.0), (5.0, 1.0, 1.0)]),
)
def test_what_nnunets_resampling_loses_is_no_error(seed, shape, new_shape, spacing_mm):
    rng = np.random.default_rng(seed)
    source = np.zeros(shape, np.int32)
    for i in range(1, 7):
        low = rng.integers(0, shape)
        source[tuple(slice(a, a + n) for a, n in zip(low, rng.integers(1, 6, 3), strict=True))] = i
    # Lesions of two labels, as ids go on from one to the other.
    label = np.where(source > 0, 1 + source // 4, 0)[None].astype(np.int8)
    foreground = (
        resample_data_or_seg_to_shape(label, new_shape, spacing_mm, (1.0, 1.0, 1.0), is_seg=True, order=1)[0] > 0
    )
    result = to_preprocessed_grid(source, foreground, [0, 1, 2], whole(shape), spacing_mm)
    np.testing.assert_array_equal(result > 0, foreground)


def test_a_sheet_between_the_voxels_is_lost():
    source = np.zeros((20, 20, 20), np.int32)
    source[4], source[17:20] = 1, 2
    # New voxels lie at 1.5, 5.5, 9.5, 13.5 and 17.5 of the first axis.
    foreground = np.zeros((5, 5, 5), bool)
    foreground[4] = True
    assert np.unique(to_preprocessed_grid(source, foreground, crop=whole(source.shape), **IDENTITY)).tolist() == [0, 1]


def test_without_resampling_no_lesion_can_be_lost():
    source = np.zeros((5, 5, 5), np.int32)
    source[1, 1, 1], source[3, 3, 3] = 1, 2
    with pytest.raises(InputError, match=r"instance 2 \(1 voxels\) is missing"):
        to_preprocessed_grid(source, source == 1, crop=whole(source.shape), **IDENTITY)
    # Outside of the crop it is no loss.
    to_preprocessed_grid(source, source[:3] == 1, crop=[[0, 3], [0, 5], [0, 5]], **IDENTITY)


def test_unknown_instances_keep_one_number_of_their_own():
    source = np.zeros((1, 2, 6), np.int32)
    # Two pieces of the unknown id, which lies between those of the two known lesions.
    source[0, 0] = [8, 8, 50, 0, 0, 50]
    source[0, 1, 3] = 60
    result = to_preprocessed_grid(source, source > 0, crop=whole(source.shape), unknown=50, **IDENTITY)
    assert result.dtype == np.int16 and UNKNOWN == 32767
    assert result[0].tolist() == [[1, 1, 32767, 0, 0, 32767], [0, 0, 0, 2, 0, 0]]
    every_id = to_preprocessed_grid(source, source > 0, crop=whole(source.shape), **IDENTITY)
    assert every_id[0].tolist() == [[1, 1, 2, 0, 0, 2], [0, 0, 0, 3, 0, 0]]


def test_what_the_label_adds_beside_unknown_instances_is_unknown():
    source = np.zeros((1, 1, 9), np.int32)
    source[0, 0, 2:4], source[0, 0, 6:8] = 5, 9
    foreground = np.zeros(source.shape, bool)
    foreground[0, 0, 2:7] = True
    result = to_preprocessed_grid(source, foreground, crop=whole(source.shape), unknown=9, **IDENTITY)
    assert result[0, 0].tolist() == [0, 0, 1, 1, 1, UNKNOWN, UNKNOWN, 0, 0]


def test_unknown_instances_may_be_lost():
    source = np.zeros((5, 5, 5), np.int32)
    source[1, 1, 1], source[3, 3, 3] = 1, 2
    result = to_preprocessed_grid(source, source == 1, crop=whole(source.shape), unknown=2, **IDENTITY)
    assert np.unique(result).tolist() == [0, 1]


def test_the_most_instances_leave_room_for_the_number_of_the_unknown_ones():
    source = np.arange(2**15, dtype=np.int32).reshape(1, 1, -1)
    arguments = {"foreground": source > 0, "crop": whole(source.shape), **IDENTITY}
    with pytest.raises(InputError, match=r"32767 instances in one case; .* at most 32766"):
        to_preprocessed_grid(source, **arguments)
    assert to_preprocessed_grid(source, unknown=7, **arguments)[0, 0, [6, 7, 8, -1]].tolist() == [6, 32767, 7, 32766]
