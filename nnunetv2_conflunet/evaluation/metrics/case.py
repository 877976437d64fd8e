"""The evaluation of one patient."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.evaluation.metrics import formulas as rules
from nnunetv2_conflunet.evaluation.metrics.confluence import find_confluent
from nnunetv2_conflunet.evaluation.metrics.matching import Matches, match
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable
from nnunetv2_conflunet.utilities.errors import InputError

SWEPT = ("TP", "FP", "FN", "Precision", "Recall", "F1", "SQ", "PQ")


@dataclass(frozen=True, eq=False)
class CaseEvaluation:
    """What one patient's two maps gave.

    Attributes:
        foreground: voxels of both maps.
        table: overlaps of all instances.
        matches: the matched pairs.
        confluent: (R,) bool, which references are confluent lesion units.
        metrics: names and values, with undefined ratios as the policy wants them.
    """

    foreground: Foreground
    table: OverlapTable
    matches: Matches
    confluent: np.ndarray
    metrics: dict[str, float]


def evaluate_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, ...],
    *,
    iou_threshold: float = 0.1,
    connectivity: int = 26,
    matching: str = "paper",
    clu: str = "shared",
    undefined: str = "nan",
) -> dict[str, float]:
    """Lesion-level metrics of one patient. Every metric is defined in ``docs/metrics.md``.

    The maps are taken as they are; filter small instances from both beforehand where that is wanted
    (:func:`nnunetv2_conflunet.postprocessing.remove_small_instances`).

    Args:
        prediction: (X, Y) or (X, Y, Z), predicted instance ids as integers or integral floats, 0 is background.
        reference: the same shape, ids of the ground truth; ids of the two maps need not correspond.
        spacing_mm: voxel size in mm along each axis.
        iou_threshold: a pair matches above it, strictly.
        connectivity: of the reference's connected components, 6, 18 or 26 (see :func:`.confluence.find_confluent`).
        matching: ``"paper"``, ``"isbi2024"``, ``"greedy"`` or ``"hungarian"`` (see :func:`.matching.match`).
        clu: ``"shared"`` or ``"eq3"`` (see :func:`.confluence.find_confluent`).
        undefined: ``"nan"``, ``"worst"`` or ``"authors"`` (see :func:`.metrics.apply_undefined_policy`).

    Returns:
        Counts (TP, FP, FN, n_prediction, n_reference, n_CLU, TP_CLU, ...), ratios in [0, 1] (Precision, Recall, F1,
        DSC, nDSC, DSC_TP, PQ, SQ, RQ, Recall_CLU, Precision_CLU, F1_CLU, DSC_TP_CLU, SQ_CLU, PQ_CLU), differences
        in count and volumes in mm3. Undefined ratios are NaN.

    Raises:
        InputError: shapes that differ, values that are no ids, a spacing that does not fit, or an unknown option.
    """
    return assess(
        Foreground.of(prediction, reference),
        spacing_mm,
        iou_threshold=iou_threshold,
        connectivity=connectivity,
        matching=matching,
        clu=clu,
        undefined=undefined,
    ).metrics


def assess(
    foreground: Foreground,
    spacing_mm: tuple[float, ...],
    *,
    iou_threshold: float = 0.1,
    connectivity: int = 26,
    matching: str = "paper",
    clu: str = "shared",
    undefined: str = "nan",
) -> CaseEvaluation:
    """:func:`evaluate_case` from the foreground of both maps, with the overlaps and matches that it rests on."""
    lengths = np.asarray(spacing_mm)
    if (
        lengths.shape != (len(foreground.shape),)
        or lengths.dtype.kind not in "iuf"
        or not (np.isfinite(lengths) & (lengths > 0)).all()
    ):
        raise InputError(
            f"The spacing {spacing_mm} does not fit maps of shape {foreground.shape}; give one positive length in mm "
            "for each axis."
        )
    voxel_mm3 = float(np.prod(lengths.astype(float)))
    table = OverlapTable.of(foreground)
    matches = match(table, matching, iou_threshold)
    within = foreground.reference > 0
    confluent = find_confluent(
        foreground.coordinates[within], foreground.reference[within], connectivity=connectivity, definition=clu
    )
    metrics = {
        **rules.detection_metrics(table, matches),
        **rules.semantic_metrics(table, int(np.prod(foreground.shape)), voxel_mm3),
        **rules.unmatched_volumes(table, matches, voxel_mm3),
        **rules.confluence_metrics(table, matches, confluent),
        **rules.merge_metrics(table),
    }
    return CaseEvaluation(foreground, table, matches, confluent, rules.apply_undefined_policy(metrics, undefined))


def sweep(table: OverlapTable, matching: str, iou_thresholds: tuple[float, ...], undefined: str) -> list[dict]:
    """Counts and detection metrics at several IoU thresholds, from one overlap table."""
    rows = []
    for threshold in iou_thresholds:
        metrics = rules.detection_metrics(table, match(table, matching, threshold))
        # The policy asks for the number of CLUs, which no swept metric depends on.
        metrics = rules.apply_undefined_policy(metrics | {"n_CLU": 0}, undefined)
        rows.append({"iou_threshold": threshold, **{name: metrics[name] for name in SWEPT}})
    return rows
