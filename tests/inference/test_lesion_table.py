"""Lesion tables: values by hand, by SciPy and by scikit-image's surfaces."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.measure import marching_cubes

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.inference.lesion_table import lesion_table
from nnunetv2_conflunet.utilities.errors import InputError

COLUMNS = [
    *("id", "label", "n_voxels", "volume_mm3", "area_mm2"),
    *("centroid_voxel_i", "centroid_voxel_j", "centroid_voxel_k"),
    *("centroid_world_x_mm", "centroid_world_y_mm", "centroid_world_z_mm", "world_convention"),
    *("bbox_min_i", "bbox_min_j", "bbox_min_k", "bbox_max_i", "bbox_max_j", "bbox_max_k"),
    *("extent_i_mm", "extent_j_mm", "extent_k_mm", "largest_diameter_mm"),
    *("mean_probability", "center_score", "confidence", "component", "confluent"),
]


def geometry(shape, spacing_mm=(1.0, 1.0, 1.0), world="RAS"):
    """Array axes reversed against the world's, as nnU-Net's readers have it, with an origin of (10, 20, 30)."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing_mm)[::-1]
    affine[:3, 3] = 10, 20, 30
    return Geometry(shape, spacing_mm, affine, world)


def test_values_by_hand():
    spacing = (3.0, 1.0, 0.5)
    instances = np.zeros((6, 8, 10), np.int32)
    instances[1:3, 2:5, 4:8] = 1  # 2 x 3 x 4 voxels
    instances[3, 5, 8] = 2  # touches 1 by a corner
    instances[5, 0, 0] = 7
    labels = np.where(instances > 0, 1, 0)
    labels[1, 2:5, 4:8] = 2  # half of instance 1
    labels[5, 0, 0] = 3
    probability = np.where(instances > 0, 0.75, 0.0)
    probability[3, 5, 8] = 0.5
    scores = np.array([0.9, np.nan, 0, 0, 0, 0, 0.4])
    table = lesion_table(
        instances, geometry(instances.shape, spacing), labels=labels, probability=probability, center_scores=scores
    )
    assert table.columns.tolist() == COLUMNS
    one, two, seven = (row for _, row in table.iterrows())
    assert table["id"].tolist() == [1, 2, 7]
    assert table["label"].tolist() == [1, 1, 3]
    assert table["n_voxels"].tolist() == [24, 1, 1]
    assert table["volume_mm3"].tolist() == [36.0, 1.5, 1.5]
    assert table["area_mm2"].isna().all()
    # The file's axes are the array's from the last to the first.
    assert one[["centroid_voxel_i", "centroid_voxel_j", "centroid_voxel_k"]].tolist() == [5.5, 3.0, 1.5]
    world = ["centroid_world_x_mm", "centroid_world_y_mm", "centroid_world_z_mm"]
    assert one[world].tolist() == [10 + 5.5 * 0.5, 20 + 3.0, 30 + 1.5 * 3]
    assert set(table["world_convention"]) == {"RAS"}
    assert one["bbox_min_i":"bbox_max_k"].tolist() == [4, 2, 1, 7, 4, 2]
    assert one["extent_i_mm":"extent_k_mm"].tolist() == [2.0, 3.0, 6.0]
    assert two["extent_i_mm":"extent_k_mm"].tolist() == [0.5, 1.0, 3.0]
    # Between the outer faces in z of two opposite corner voxels: 6 mm, 2 mm and 1.5 mm apart.
    assert one["largest_diameter_mm"] == pytest.approx(np.sqrt(6**2 + 2**2 + 1.5**2))
    assert two["largest_diameter_mm"] == 3.0
    assert table["mean_probability"].tolist() == [0.75, 0.5, 0.75]
    assert table["center_score"].tolist() == pytest.approx([0.9, np.nan, 0.4], nan_ok=True)
    assert table["component"].tolist() == [1, 1, 2]
    assert table["confluent"].tolist() == [True, True, False]
    six = lesion_table(instances, geometry(instances.shape, spacing), connectivity=6)
    assert six["component"].tolist() == [1, 2, 3]
    assert not six["confluent"].any()
    assert six["label"].tolist() == [1, 1, 1]
    assert seven["volume_mm3"] == 1.5
    assert six[["mean_probability", "center_score"]].isna().all(axis=None)


def test_random_maps_match_slow_measures():
    rng = np.random.default_rng(0)
    shape, spacing = (9, 10, 11), (2.0, 1.0, 1.5)
    instances = (rng.integers(1, 30, shape) * (rng.random(shape) < 0.3)).astype(np.int32)
    labels = rng.integers(1, 4, shape) * (instances > 0)
    probability = rng.random(shape).astype(np.float32)
    table = lesion_table(instances, geometry(shape, spacing), labels=labels, probability=probability)
    components = ndimage.label(instances, np.ones((3, 3, 3)))[0]
    for row in table.itertuples():
        mine = instances == row.id
        at = np.argwhere(mine)
        assert row.n_voxels == len(at)
        assert row.label == np.bincount(labels[mine]).argmax()
        assert row.mean_probability == pytest.approx(probability[mine].mean(), rel=1e-5)
        assert (row.centroid_voxel_k, row.centroid_voxel_j, row.centroid_voxel_i) == pytest.approx(at.mean(axis=0))
        assert (row.bbox_min_k, row.bbox_min_j, row.bbox_min_i) == tuple(at.min(axis=0))
        assert (row.bbox_max_k, row.bbox_max_j, row.bbox_max_i) == tuple(at.max(axis=0))
        surface = marching_cubes(np.pad(mine, 1).astype(np.float32), 0.5, spacing=spacing)[0]
        assert row.largest_diameter_mm == pytest.approx(pdist(surface).max(), rel=1e-5)
        home = components[tuple(at[0])]
        assert row.confluent == (len(np.unique(instances[components == home])) > 1)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.7)])
def test_diameter_of_a_large_lesion_matches_the_surface(spacing_mm):
    at = np.stack(np.meshgrid(*(np.arange(n) for n in (20, 30, 40)), indexing="ij"), axis=-1) - (10, 15, 20)
    lesion = (((at @ np.linalg.qr(np.random.default_rng(0).random((3, 3)))[0]) / (6, 9, 14)) ** 2).sum(axis=-1) < 1
    surface = marching_cubes(np.pad(lesion, 1).astype(np.float32), 0.5, spacing=spacing_mm)[0]
    table = lesion_table(lesion.astype(int), geometry(lesion.shape, spacing_mm))
    assert table["largest_diameter_mm"][0] == pytest.approx(pdist(np.unique(surface, axis=0)).max(), rel=1e-5)


@pytest.mark.parametrize(
    ("size", "diameter_mm"),
    [
        ((1, 1, 1), 1.0),
        ((1, 1, 5), 5.0),
        ((1, 5, 5), np.sqrt(5**2 + 4**2)),
        ((5, 5, 5), np.sqrt(5**2 + 4**2 + 4**2)),
        # 150 voxels in a row, and a sheet of 900: degenerate point sets that take the convex hull.
        ((1, 1, 150), 150.0),
        ((1, 30, 30), np.sqrt(30**2 + 29**2)),
    ],
)
def test_flat_and_thin_lesions_have_a_diameter(size, diameter_mm):
    instances = np.pad(np.ones(size, np.int32), 1)
    table = lesion_table(instances, geometry(instances.shape))
    assert table["largest_diameter_mm"][0] == pytest.approx(diameter_mm)


def test_an_empty_map_has_the_columns():
    table = lesion_table(np.zeros((4, 5, 6), np.int32), geometry((4, 5, 6)), center_scores=np.zeros(0))
    assert len(table) == 0
    assert table.columns.tolist() == COLUMNS


def test_a_single_slice_is_a_plane():
    instances = np.zeros((1, 12, 14), np.int32)
    instances[0, 2:5, 3:7] = 1
    table = lesion_table(instances, geometry(instances.shape, (999.0, 1.0, 0.5), world="none"))
    row = table.iloc[0]
    assert np.isnan(row["volume_mm3"]) and row["area_mm2"] == 6.0
    assert row["extent_i_mm"] == 2.0 and row["extent_j_mm"] == 3.0 and np.isnan(row["extent_k_mm"])
    assert row["largest_diameter_mm"] == pytest.approx(np.hypot(3.0, 1.5))
    assert row["world_convention"] == "none"


def test_seventy_thousand_ids():
    instances = np.zeros((84, 84, 80), np.int32)
    instances[::2, ::2, ::2] = np.arange(1, 70561).reshape(42, 42, 40)
    table = lesion_table(instances, geometry(instances.shape), center_scores=np.linspace(0, 1, 70560))
    assert len(table) == table["component"].max() == 70560
    assert table["center_score"].iloc[-1] == 1
    assert not table["confluent"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instances": np.ones((4, 5, 7), int)}, r"instances has shape \(4, 5, 7\) but geometry has \(4, 5, 6\)"),
        ({"labels": np.ones((4, 5), int)}, r"labels has shape \(4, 5\)"),
        ({"probability": np.ones((4, 5, 7))}, r"probability has shape \(4, 5, 7\)"),
        ({"center_scores": np.zeros(0)}, "center_scores has 0 values but the highest id is 1"),
        ({"confidences": np.zeros(0)}, "confidences has 0 values but the highest id is 1"),
    ],
)
def test_bad_input(change, message):
    arguments = {"instances": np.ones((4, 5, 6), int), "geometry": geometry((4, 5, 6))} | change
    with pytest.raises(InputError, match=message):
        lesion_table(**arguments)
