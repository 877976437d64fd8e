"""The lesion table: position, size and confidence of each instance."""

import numpy as np
import pandas as pd
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.postprocessing.voxels import Voxels, centers_of_mass, groups, line_ends, sizes_and_boxes
from nnunetv2_conflunet.utilities.array_checks import check_connectivity, check_shape
from nnunetv2_conflunet.utilities.errors import InputError

# Up to this many points, comparing all pairs is faster than computing their convex hull.
FEW_POINTS = 200


def lesion_table(
    instances: np.ndarray,
    geometry: Geometry,
    *,
    labels: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    center_scores: np.ndarray | None = None,
    confidences: np.ndarray | None = None,
    connectivity: int = 26,
) -> pd.DataFrame:
    """Describe every instance of a map.

    i, j, k are voxel indices along the axes of the file, from 0, as viewers show them; x, y, z are world coordinates in
    mm. For 2D images, whose first array axis has length 1 in nnU-Net, `volume_mm3` and the extent along that axis are
    NaN and `area_mm2` holds the size; for 3D images `area_mm2` is NaN.

    Args:
        instances: (X, Y, Z) non-negative integers in nnU-Net's axis order, 0 is background.
        geometry: the grid of that array.
        labels: (X, Y, Z) the semantic segmentation.
        probability: (X, Y, Z) of the foreground.
        center_scores: (N,), that of instance i at i - 1, see :class:`Instantiation`.
        confidences: likewise.
        connectivity: 6, 18 or 26 neighbors for `component` (in 2D 4, 8, 8).

    Returns:
        One row per instance, ascending by id, with the columns

        - `id`; `label`: the most frequent label of its voxels, at a tie the lowest (label 0 does not count); 1 without
          `labels`
        - `n_voxels`, `volume_mm3`, `area_mm2`
        - `centroid_voxel_i/j/k`, `centroid_world_x/y/z_mm`: center of mass of its voxels;
          `world_convention`: ``RAS`` or ``none``, see :class:`Geometry`
        - `bbox_min_i/j/k`, `bbox_max_i/j/k` (both inclusive), `extent_i/j/k_mm` (whole voxels)
        - `largest_diameter_mm`: largest distance between two points of its surface, which lies halfway between its
          voxels and their neighbors outside (the "maximum 3D diameter" of PyRadiomics): the longest edge of a single
          voxel, n edges of n voxels in a row
        - `mean_probability`, `center_score`: NaN if not given
        - `confidence`: how sure the instance is, see :func:`.instance_confidence`; NaN if not given
        - `component`: its connected component in the union of all instances, 1..; `confluent`: whether it shares the
          component with another instance

    Raises:
        InputError: arrays are not on the grid of `geometry`, or there are fewer center scores or confidences than ids.

    >>> instances = np.zeros((3, 4, 5), int)
    >>> instances[1, 1:3, 1:3] = 1
    >>> geometry = Geometry.from_properties(instances.shape, {"spacing": (2.0, 1.0, 1.0)})
    >>> lesion_table(instances, geometry)[["id", "n_voxels", "volume_mm3", "centroid_voxel_k"]].values.tolist()
    [[1.0, 4.0, 8.0, 1.0]]
    """
    instances = check_shape(instances, geometry.shape, "instances", "geometry")
    mask = instances != 0
    at = np.nonzero(mask)
    index = np.stack(at, axis=1)
    voxels = Voxels(index[:, 1:] if geometry.is_plane else index)
    ids, member = np.unique(instances[at], return_inverse=True)
    _, n_voxels, first, last = sizes_and_boxes(index, member)
    n = len(ids)
    centroid = centers_of_mass(at, member)
    spacing_mm = np.array(geometry.spacing_mm)
    in_plane = spacing_mm[1:] if geometry.is_plane else spacing_mm

    component = voxels.components(check_connectivity(connectivity, voxels.dim))
    component_of_id = component[np.unique(member, return_index=True)[1]]
    in_component = np.bincount(component_of_id)

    corners = np.stack([geometry.to_file_index(first), geometry.to_file_index(last)])
    file_axis = np.abs(geometry.file_index[:3, :3])
    extent_mm = (last - first + 1) * spacing_mm
    if geometry.is_plane:
        extent_mm[:, 0] = np.nan
    size, unknown = n_voxels * in_plane.prod(), np.full(n, np.nan)
    if labels is not None:
        labels = check_shape(labels, geometry.shape, "labels", "geometry")[at].astype(np.int64)
    if probability is not None:
        probability = check_shape(probability, geometry.shape, "probability", "geometry")[at]
    center_score, confidence = (
        unknown if values is None else _of_ids(values, ids, name)
        for name, values in (("center_scores", center_scores), ("confidences", confidences))
    )

    columns = {
        "id": ids.astype(np.int64),
        "label": np.ones(n, np.int64) if labels is None else _majority_label(member, labels, n),
        "n_voxels": n_voxels,
        "volume_mm3": unknown if geometry.is_plane else size,
        "area_mm2": size if geometry.is_plane else unknown,
        **_by_axis("centroid_voxel_{}", "ijk", geometry.to_file_index(centroid)),
        **_by_axis("centroid_world_{}_mm", "xyz", geometry.to_world_mm(centroid)),
        "world_convention": np.full(n, geometry.world, dtype=object),
        **_by_axis("bbox_min_{}", "ijk", np.rint(corners.min(axis=0)).astype(np.int64)),
        **_by_axis("bbox_max_{}", "ijk", np.rint(corners.max(axis=0)).astype(np.int64)),
        **_by_axis("extent_{}_mm", "ijk", extent_mm[:, file_axis.argmax(axis=1)]),
        "largest_diameter_mm": _diameters_mm(voxels, member, in_plane),
        "mean_probability": unknown if probability is None else np.bincount(member, probability, n) / n_voxels,
        "center_score": center_score,
        "confidence": confidence,
        "component": component_of_id,
        "confluent": in_component[component_of_id] > 1,
    }
    return pd.DataFrame(columns)


def as_csv(table: pd.DataFrame) -> str:
    """The text of a lesion table as it is written to a file."""
    return table.to_csv(index=False, float_format="%.7g", na_rep="NaN")


def _of_ids(values: np.ndarray, ids: np.ndarray, name: str) -> np.ndarray:
    if len(values) < ids.max(initial=0):
        raise InputError(f"{name} has {len(values)} values but the highest id is {ids.max()}.")
    return np.asarray(values, float)[ids - 1]


def _by_axis(name: str, axes: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {name.format(axis): values[:, i] for i, axis in enumerate(axes)}


def _majority_label(member: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    counts = pd.DataFrame({"member": member, "label": labels})[labels > 0].value_counts().reset_index()
    most_frequent = counts.sort_values(["count", "label"], ascending=[False, True]).drop_duplicates("member")
    return most_frequent.set_index("member")["label"].reindex(range(n), fill_value=0).to_numpy(np.int64)


def _diameters_mm(voxels: Voxels, member: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """(n,) largest distance in mm between the points halfway to the neighbors of each instance's voxels."""
    half = np.concatenate([np.diag(spacing_mm), -np.diag(spacing_mm)]) / 2
    found = []
    for _, mine in groups(member):
        ends = line_ends(voxels.coordinates[mine]) * spacing_mm
        points = (ends[:, None] + half).reshape(-1, voxels.dim)
        if len(points) > FEW_POINTS:
            points = points[ConvexHull(points).vertices]
        found.append(pdist(points).max())
    return np.array(found, float)
