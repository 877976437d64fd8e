"""The table of all reference and predicted lesions of a case."""

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.case import CaseEvaluation
from nnunetv2_conflunet.evaluation.metrics.formulas import belongs_to_confluent, held_references
from nnunetv2_conflunet.evaluation.metrics.matching import Matches, best_pairs
from nnunetv2_conflunet.evaluation.metrics.overlap import OverlapTable
from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.postprocessing.voxels import centers_of_mass

CENTROID = ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm")
COLUMNS = (
    *("case", "side", "id", "status", "match_id", "match_iou", "match_dice", "best_overlap_id", "best_overlap_iou"),
    *("n_voxels", "volume_mm3", "match_volume_mm3", *CENTROID, "world"),
    *("confluent", "answers_CLU", "merged", "split", "n_held", "held_by_id"),
)


def describe_lesions(
    case: str, evaluation: CaseEvaluation, geometry: Geometry, distances: dict[str, np.ndarray]
) -> dict[str, list]:
    """Describe every lesion of a case: references first, each side by ascending id.

    Args:
        case: the case id.
        evaluation: of the case.
        geometry: grid of the maps in three dimensions.
        distances: from :func:`.surfaces.surface_distances`, each (M,) float64, one value per matched pair; may be
            empty.

    Returns:
        Columns of plain values, one per lesion: case; side (``reference`` or ``prediction``); id; status (``TP`` or
        ``FN`` for a reference, ``TP`` or ``FP`` for a prediction); match_id, match_iou, match_dice, match_volume_mm3 of
        the matched lesion, under a many-to-one rule the one of highest IoU; best_overlap_id and best_overlap_iou,
        matched or not; n_voxels; volume_mm3; the centroid in mm, in the world convention that column ``world`` names;
        confluent, in the lesion's own map; answers_CLU, whether it counts for the confluent lesion units; merged, a
        prediction that holds several references, or one of these; split, a reference that holds several predictions,
        or one of these; n_held, the number of lesions of the other side that it holds; held_by_id, the lesion of the
        other side that holds it; one column ``match_...`` per distance. Missing values are None.
    """
    foreground, table, matches = evaluation.foreground, evaluation.table, evaluation.matches
    voxel_mm3 = float(np.prod(evaluation.spacing_mm))
    pair_values = {f"match_{name}": values for name, values in distances.items()}
    reference = _side(table.swapped(), matches.swapped(), voxel_mm3, pair_values, multiple="split", part="merged")
    prediction = _side(table, matches, voxel_mm3, pair_values, multiple="merged", part="split")
    answers = belongs_to_confluent(table, matches, evaluation.confluent)
    for columns, side, unmatched, confluent, answers_clu in (
        (reference, "reference", "FN", evaluation.confluent, evaluation.confluent),
        (prediction, "prediction", "FP", evaluation.confluent_predictions(), answers),
    ):
        n = len(columns["id"])
        columns |= {"case": [case] * n, "side": [side] * n, "world": [geometry.world] * n}
        columns["status"] = [unmatched if match_id is None else "TP" for match_id in columns["match_id"]]
        columns |= {"confluent": confluent.tolist(), "answers_CLU": answers_clu.tolist()}
        centroids_mm = _centroids_mm(getattr(foreground, side), foreground.coordinates, geometry)
        columns |= zip(CENTROID, centroids_mm.T.tolist(), strict=True)
    return {name: reference[name] + prediction[name] for name in (*COLUMNS, *pair_values)}


def _side(
    table: OverlapTable,
    matches: Matches,
    voxel_mm3: float,
    pair_values: dict[str, np.ndarray],
    multiple: str,
    part: str,
) -> dict[str, list]:
    """Columns for the prediction side of the table; `multiple` and `part` name the columns for merges and splits."""
    n = len(table.prediction_ids)
    # Of several assignments the last one stays: the highest IoU, at a tie the lowest id.
    order = np.lexsort((-matches.reference, matches.iou))
    pair, partner = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    pair[matches.prediction[order]], partner[matches.prediction[order]] = order, matches.reference[order]
    best = best_pairs(table)
    n_held, _ = held_references(table)
    n_held_by_other, holder = held_references(table.swapped())
    in_several = np.zeros(n, bool)
    in_several[holder >= 0] = n_held_by_other[holder[holder >= 0]] > 1
    return {
        "id": table.prediction_ids.tolist(),
        "match_id": _at(table.reference_ids, partner),
        "match_iou": _at(matches.iou, pair),
        "match_dice": _at(matches.dice, pair),
        "best_overlap_id": _at(table.reference_ids[table.pair_reference], best),
        "best_overlap_iou": _at(table.pair_iou, best),
        "n_voxels": table.prediction_voxels.tolist(),
        "volume_mm3": (table.prediction_voxels * voxel_mm3).tolist(),
        "match_volume_mm3": _at(table.reference_voxels * voxel_mm3, partner),
        multiple: (n_held > 1).tolist(),
        part: in_several.tolist(),
        "n_held": n_held.tolist(),
        "held_by_id": _at(table.reference_ids, holder),
        **{name: _at(values, pair) for name, values in pair_values.items()},
    }


def _at(values: np.ndarray, index: np.ndarray) -> list:
    """``values[index]``, None where the index is -1."""
    plain = values.tolist()
    return [None if position < 0 else plain[position] for position in index.tolist()]


def _centroids_mm(ids: np.ndarray, coordinates: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N, 3) world position in mm of each instance's center of mass, by ascending id."""
    _, instance = np.unique(ids[ids > 0], return_inverse=True)
    # 2D maps lack the leading axis of length 1 that their geometry has.
    centers = centers_of_mass(coordinates[ids > 0].T, instance)
    return geometry.to_world_mm(np.pad(centers, ((0, 0), (3 - centers.shape[1], 0))))
