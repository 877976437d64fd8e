"""Evaluation of one case."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.evaluation.metrics import formulas
from nnunetv2_conflunet.evaluation.metrics.accuracy import accuracy_metrics
from nnunetv2_conflunet.evaluation.metrics.confluence import find_confluent
from nnunetv2_conflunet.evaluation.metrics.matching import Matches
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable
from nnunetv2_conflunet.evaluation.metrics.published import NOT_PUBLISHED, published_metrics
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings
from nnunetv2_conflunet.evaluation.metrics.unknown import Known, match_known
from nnunetv2_conflunet.utilities.array_checks import check_spacing

SWEEP_THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
SWEPT = ("TP", "FP", "FN", "Precision", "Recall", "F1", "SQ", "PQ")


@dataclass(frozen=True, eq=False)
class CaseEvaluation:
    """The evaluation of the two maps of one case.

    Attributes:
        foreground: voxels of both maps, with the instances that count.
        spacing_mm: (ndim,) voxel size in mm.
        settings: of the evaluation.
        table: overlaps of these instances.
        matches: the matched pairs.
        confluent: (R,) bool, which references are confluent lesion units.
        metrics: names and values, with undefined ratios replaced according to the policy.
        known: all predictions and the known lesions, of which it is chosen what counts (see
            :func:`.unknown.match_known`).
    """

    foreground: Foreground
    spacing_mm: np.ndarray
    settings: CaseSettings
    table: OverlapTable
    matches: Matches
    confluent: np.ndarray
    metrics: dict[str, float]
    known: Known

    def confluent_predictions(self) -> np.ndarray:
        """(P,) bool, which predictions share a component of the predicted mask with another prediction."""
        whole = self.known.foreground
        return _confluent(self.table.prediction_ids, whole.coordinates, whole.prediction, self.settings)

    def matched(self, iou_threshold: float) -> tuple[np.ndarray, OverlapTable, Matches]:
        """What counts at another IoU threshold, as :func:`.unknown.match_known` gives it."""
        return match_known(self.known.table, self.known.unknown_voxels, self.settings.matching, iou_threshold)

    def sweep(self) -> list[dict[str, float]]:
        """Counts and detection metrics at each of the :data:`SWEEP_THRESHOLDS`, from the same overlap table."""
        rows = []
        for threshold in SWEEP_THRESHOLDS:
            _, table, matches = self.matched(threshold)
            metrics = formulas.detection_metrics(table, matches)
            metrics = formulas.apply_undefined_policy(metrics, self.settings.undefined)
            rows.append({"iou_threshold": threshold, **{name: metrics[name] for name in SWEPT}})
        return rows


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
    beta: float | None = None,
    unknown: int | None = None,
) -> dict[str, float]:
    """Lesion-level metrics of one case. ``docs/metrics.md`` defines every metric.

    The maps are used as given. To ignore small instances, remove them from both maps first
    (:func:`nnunetv2_conflunet.postprocessing.remove_small_instances`).

    Args:
        prediction: (X, Y) or (X, Y, Z), predicted instance ids as integers or integral floats, 0 is background.
        reference: the same shape, ids of the ground truth; the ids of the two maps are independent.
        spacing_mm: voxel size in mm along each axis.
        iou_threshold: pairs match only strictly above it.
        connectivity: of the reference's connected components, 6, 18 or 26 (see :func:`.confluence.find_confluent`).
        matching: ``"paper"``, ``"isbi2024"``, ``"greedy"`` or ``"hungarian"`` (see :func:`.matching.match`).
        clu: ``"shared"`` or ``"eq3"`` (see :func:`.confluence.find_confluent`), or ``"published"``, which gives the
            metrics of the confluent lesion units as the authors' code does (:func:`.published.published_metrics`).
        undefined: ``"nan"``, ``"worst"`` or ``"authors"`` (see :func:`.formulas.apply_undefined_policy`).
        beta: adds F_beta and F_beta_CLU (see :func:`.formulas.f_beta_metrics`); None does not.
        unknown: the reference's id of lesion voxels of unknown instances, which do not count as lesions, like the
            predictions that lie on them (see :func:`.unknown.match_known`); None if there are none.

    Returns:
        Counts (TP, FP, FN, n_prediction, n_reference, n_CLU, TP_CLU, ...), ratios in [0, 1] (Precision, Recall, F1,
        DSC, nDSC, DSC_TP, PQ, SQ, RQ, Recall_CLU, Precision_CLU, F1_CLU, DSC_TP_CLU, SQ_CLU, PQ_CLU, accuracy_50 to
        accuracy_95), differences in count and volumes in mm3. Undefined ratios are NaN.

    Raises:
        InputError: shapes differ, values are not ids, the spacing does not fit the shape, or an option is unknown.

    >>> import numpy as np
    >>> reference = np.zeros((1, 20), int)
    >>> reference[0, 0:4], reference[0, 4:8] = 1, 2
    >>> metrics = evaluate_case(np.where(reference == 1, 7, 0), reference, spacing_mm=(1, 1))
    >>> metrics["TP"], metrics["Recall"], metrics["n_CLU"], metrics["load_reference_mm3"]
    (1, 0.5, 2, 8.0)
    """
    settings = CaseSettings(iou_threshold, matching, connectivity, clu, undefined, beta, unknown)
    return assess(Foreground.of(prediction, reference), spacing_mm, settings).metrics


def assess(foreground: Foreground, spacing_mm: tuple[float, ...], settings: CaseSettings) -> CaseEvaluation:
    """Like :func:`evaluate_case`, from the foreground of both maps, with the overlaps and matches behind the metrics.

    >>> evaluation = assess(Foreground.of(np.array([[5, 5, 0]]), np.array([[7, 7, 7]])), (1, 1), CaseSettings())
    >>> evaluation.matches.iou
    array([0.66666667])
    """
    spacing = check_spacing(spacing_mm, len(foreground.shape))
    voxel_mm3 = float(np.prod(spacing))
    known = Known.of(foreground, settings.unknown)
    kept, table, matches = match_known(known.table, known.unknown_voxels, settings.matching, settings.iou_threshold)
    confluent = _confluent(table.reference_ids, foreground.coordinates, foreground.reference, settings)
    metrics = {
        **formulas.detection_metrics(table, matches),
        **formulas.semantic_metrics(known.whole_table, int(np.prod(foreground.shape)), voxel_mm3),
        **formulas.unmatched_volumes(table, matches, voxel_mm3),
        **formulas.confluence_metrics(table, matches, confluent),
        **formulas.merge_metrics(table),
        **accuracy_metrics(table),
        **known.metrics(kept, voxel_mm3),
    }
    if settings.beta is not None:
        metrics |= formulas.f_beta_metrics(metrics, settings.beta)
    metrics = formulas.apply_undefined_policy(metrics, settings.undefined)
    if settings.is_published:
        # That code has conventions of its own for undefined ratios.
        metrics = {name: metrics[name] for name in metrics if name not in NOT_PUBLISHED}
        metrics |= published_metrics(table, foreground, settings.iou_threshold)
    return CaseEvaluation(known.counted(kept), spacing, settings, table, matches, confluent, metrics, known)


def _confluent(counted: np.ndarray, coordinates: np.ndarray, ids: np.ndarray, settings: CaseSettings) -> np.ndarray:
    return find_confluent(counted, coordinates, ids, connectivity=settings.clu_connectivity, definition=settings.clu)
