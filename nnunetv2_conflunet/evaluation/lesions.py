"""One row for every reference and every predicted lesion."""

import numpy as np
import pandas as pd

from nnunetv2_conflunet.evaluation.case import CaseEvaluation
from nnunetv2_conflunet.evaluation.matching import Matches, best_pairs
from nnunetv2_conflunet.evaluation.metrics import belongs_to_confluent, held_references
from nnunetv2_conflunet.evaluation.overlap import OverlapTable
from nnunetv2_conflunet.imageio import Geometry

CENTROID = ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm")
COLUMNS = (
    *("case", "side", "id", "status", "match_id", "match_iou", "match_dice", "best_overlap_id", "best_overlap_iou"),
    *("n_voxels", "volume_mm3", "match_volume_mm3", *CENTROID, "world"),
    *("confluent", "answers_CLU", "merged", "split", "n_held"),
)


def describe_lesions(
    case: str,
    evaluation: CaseEvaluation,
    confluent_predictions: np.ndarray,
    geometry: Geometry,
    voxel_mm3: float,
    pair_values: dict[str, np.ndarray],
) -> pd.DataFrame:
    """Describe every lesion of a patient, the references first, each side by ascending id.

    Args:
        case: the case id.
        evaluation: of the case.
        confluent_predictions: (P,) bool, which predictions share a component of the predicted mask.
        geometry: grid of the maps in three dimensions.
        voxel_mm3: volume of a voxel.
        pair_values: further columns, each (M,) float64, one value a matched pair.

    Returns:
        One row a lesion: case; side (``reference`` or ``prediction``); id; status (``TP`` or ``FN`` of a reference,
        ``TP`` or ``FP`` of a prediction); match_id, match_iou, match_dice, match_volume_mm3 of the matched lesion,
        under a many-to-one rule the one of highest IoU; best_overlap_id and best_overlap_iou, matched or not;
        n_voxels; volume_mm3; the centroid in mm, in the world convention that column ``world`` names; confluent, in
        the lesion's own map; answers_CLU, whether it counts for the confluent lesion units; merged, a prediction that
        holds several references, or one of these; split, a reference that holds several predictions, or one of
        these; n_held, how many lesions of the other side it holds. Values that do not exist are missing.
    """
    answers = belongs_to_confluent(evaluation.table, evaluation.matches, evaluation.confluent)
    swapped = evaluation.table.swapped(), evaluation.matches.swapped()
    foreground = evaluation.foreground
    reference = _side(*swapped, voxel_mm3, pair_values, multiple="split", part="merged")
    reference.insert(1, "status", np.where(reference["match_id"].isna(), "FN", "TP"))
    reference["confluent"] = reference["answers_CLU"] = evaluation.confluent
    reference[list(CENTROID)] = _centroids_mm(foreground.reference, foreground.coordinates(), geometry)
    reference.insert(0, "side", "reference")
    prediction = _side(evaluation.table, evaluation.matches, voxel_mm3, pair_values, multiple="merged", part="split")
    prediction.insert(1, "status", np.where(prediction["match_id"].isna(), "FP", "TP"))
    prediction["confluent"], prediction["answers_CLU"] = confluent_predictions, answers
    prediction[list(CENTROID)] = _centroids_mm(foreground.prediction, foreground.coordinates(), geometry)
    prediction.insert(0, "side", "prediction")
    rows = pd.concat([reference, prediction], ignore_index=True)
    rows.insert(0, "case", case)
    rows["world"] = geometry.world
    return rows[[*COLUMNS, *pair_values]]


def _side(
    table: OverlapTable,
    matches: Matches,
    voxel_mm3: float,
    pair_values: dict[str, np.ndarray],
    multiple: str,
    part: str,
) -> pd.DataFrame:
    """Rows of the side that is the prediction of the table; `multiple` and `part` name the columns about holding."""
    n = len(table.prediction_ids)
    # The last of several assignments stays: that of the highest IoU, the lowest id at a tie.
    order = np.lexsort((-matches.reference, matches.iou))
    pair = np.full(n, -1, np.int64)
    pair[matches.prediction[order]] = order
    best = best_pairs(table)
    n_held, _ = held_references(table)
    n_held_by_other, holder = held_references(table.swapped())
    in_several = np.zeros(n, bool)
    in_several[holder >= 0] = n_held_by_other[holder[holder >= 0]] > 1
    partner = _at(matches.reference, pair)
    return pd.DataFrame(
        {
            "id": table.prediction_ids,
            "match_id": _ids(table.reference_ids, partner),
            "match_iou": _at(matches.iou, pair),
            "match_dice": _at(matches.dice, pair),
            "best_overlap_id": _ids(table.reference_ids, _at(table.pair_reference, best)),
            "best_overlap_iou": _at(table.pair_iou, best),
            "n_voxels": table.prediction_voxels,
            "volume_mm3": table.prediction_voxels * voxel_mm3,
            "match_volume_mm3": _at(table.reference_voxels * voxel_mm3, partner),
            multiple: n_held > 1,
            part: in_several,
            "n_held": n_held,
            **{name: _at(values, pair) for name, values in pair_values.items()},
        }
    )


def _at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``values[index]``; where the index is -1, NaN of floats and -1 of integers."""
    found = np.full(len(index), np.nan if values.dtype.kind == "f" else -1, values.dtype)
    found[index >= 0] = values[index[index >= 0]]
    return found


def _ids(ids: np.ndarray, index: np.ndarray) -> pd.Series:
    found = pd.Series(_at(ids, index), dtype="Int64")
    return found.mask(found < 0)


def _centroids_mm(ids: np.ndarray, coordinates: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N, 3) world position in mm of the center of mass of each instance by ascending id."""
    _, instance, n_voxels = np.unique(ids[ids > 0], return_inverse=True, return_counts=True)
    centers = np.zeros((len(n_voxels), 3))
    # Two-dimensional maps lack the leading axis of length 1 that their geometry has.
    for axis, values in enumerate(coordinates[ids > 0].T, start=3 - coordinates.shape[1]):
        centers[:, axis] = np.bincount(instance, values, len(n_voxels)) / n_voxels
    return geometry.to_world_mm(centers)
