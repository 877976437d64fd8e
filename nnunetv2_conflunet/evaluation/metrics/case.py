"""Evaluation of one case: its options, its confluent lesion units (CLU) and its metrics."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.evaluation.metrics import formulas
from nnunetv2_conflunet.evaluation.metrics.matching import MATCHING_RULES, Matches, match
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable
from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.array_checks import CONNECTIVITIES, check_connectivity, check_spacing
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option

SWEEP_THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))
CLU_DEFINITIONS = ("shared", "eq3")
SWEPT = ("TP", "FP", "FN", "Precision", "Recall", "F1", "SQ", "PQ")


@dataclass(frozen=True)
class CaseSettings:
    """How the instance maps of one case are compared.

    Attributes:
        iou_threshold: pairs match only strictly above it.
        matching: rule of :func:`.matching.match`.
        connectivity: of the components that make lesions confluent: 6, 18 or 26; in 2D also 4 or 8.
        clu: definition of :func:`find_confluent`.
        undefined: policy of :func:`.formulas.apply_undefined_policy`.

    Raises:
        InputError: a value out of range.
    """

    iou_threshold: float = option(0.1, "two lesions match only if their IoU is above this value")
    matching: str = option("paper", "matching rule", choices=tuple(MATCHING_RULES))
    connectivity: int = option(
        26, "neighbors that count as connected, for finding confluent lesions", choices=CONNECTIVITIES[3]
    )
    clu: str = option("shared", "definition of a confluent lesion unit", choices=CLU_DEFINITIONS)
    undefined: str = option("nan", "value of undefined ratios", choices=formulas.UNDEFINED_POLICIES)

    def __post_init__(self) -> None:
        check_choice("matching rule", self.matching, MATCHING_RULES)
        check_choice("CLU definition", self.clu, CLU_DEFINITIONS)
        check_choice("policy for undefined ratios", self.undefined, formulas.UNDEFINED_POLICIES)
        if not 0 <= self.iou_threshold < 1:
            raise InputError(f"The IoU threshold is {self.iou_threshold}; it must be at least 0 and below 1.")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise an InputError for a value that is not among the choices.

    >>> check_choice("matching rule", "paper", ["paper", "greedy"])
    """
    choices = list(choices)
    if value not in choices:
        raise InputError(f"There is no {name} '{value}'; use one of {', '.join(map(str, choices))}.")


@dataclass(frozen=True, eq=False)
class CaseEvaluation:
    """The evaluation of the two maps of one case.

    Attributes:
        foreground: voxels of both maps.
        spacing_mm: (ndim,) voxel size in mm.
        settings: of the evaluation.
        table: overlaps of all instances.
        matches: the matched pairs.
        confluent: (R,) bool, which references are confluent lesion units.
        metrics: names and values, with undefined ratios replaced according to the policy.
    """

    foreground: Foreground
    spacing_mm: np.ndarray
    settings: CaseSettings
    table: OverlapTable
    matches: Matches
    confluent: np.ndarray
    metrics: dict[str, float]

    def confluent_predictions(self) -> np.ndarray:
        """(P,) bool, which predictions share a component of the predicted mask with another prediction."""
        return _confluent(self.foreground.coordinates, self.foreground.prediction, self.settings)

    def sweep(self) -> list[dict[str, float]]:
        """Counts and detection metrics at each of the :data:`SWEEP_THRESHOLDS`, from the same overlap table."""
        rows = []
        for threshold in SWEEP_THRESHOLDS:
            matches = match(self.table, self.settings.matching, threshold)
            metrics = formulas.detection_metrics(self.table, matches)
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
) -> dict[str, float]:
    """Lesion-level metrics of one case. ``docs/metrics.md`` defines every metric.

    The maps are used as given. To ignore small instances, remove them from both maps first
    (:func:`nnunetv2_conflunet.postprocessing.remove_small_instances`).

    Args:
        prediction: (X, Y) or (X, Y, Z), predicted instance ids as integers or integral floats, 0 is background.
        reference: the same shape, ids of the ground truth; the ids of the two maps are independent.
        spacing_mm: voxel size in mm along each axis.
        iou_threshold: pairs match only strictly above it.
        connectivity: of the reference's connected components, 6, 18 or 26 (see :func:`find_confluent`).
        matching: ``"paper"``, ``"isbi2024"``, ``"greedy"`` or ``"hungarian"`` (see :func:`.matching.match`).
        clu: ``"shared"`` or ``"eq3"`` (see :func:`find_confluent`).
        undefined: ``"nan"``, ``"worst"`` or ``"authors"`` (see :func:`.formulas.apply_undefined_policy`).

    Returns:
        Counts (TP, FP, FN, n_prediction, n_reference, n_CLU, TP_CLU, ...), ratios in [0, 1] (Precision, Recall, F1,
        DSC, nDSC, DSC_TP, PQ, SQ, RQ, Recall_CLU, Precision_CLU, F1_CLU, DSC_TP_CLU, SQ_CLU, PQ_CLU), differences
        in count and volumes in mm3. Undefined ratios are NaN.

    Raises:
        InputError: shapes differ, values are not ids, the spacing does not fit the shape, or an option is unknown.

    >>> import numpy as np
    >>> reference = np.zeros((1, 20), int)
    >>> reference[0, 0:4], reference[0, 4:8] = 1, 2
    >>> metrics = evaluate_case(np.where(reference == 1, 7, 0), reference, spacing_mm=(1, 1))
    >>> metrics["TP"], metrics["Recall"], metrics["n_CLU"], metrics["load_reference_mm3"]
    (1, 0.5, 2, 8.0)
    """
    settings = CaseSettings(iou_threshold, matching, connectivity, clu, undefined)
    return assess(Foreground.of(prediction, reference), spacing_mm, settings).metrics


def assess(foreground: Foreground, spacing_mm: tuple[float, ...], settings: CaseSettings) -> CaseEvaluation:
    """Like :func:`evaluate_case`, from the foreground of both maps, with the overlaps and matches behind the metrics.

    >>> evaluation = assess(Foreground.of(np.array([[5, 5, 0]]), np.array([[7, 7, 7]])), (1, 1), CaseSettings())
    >>> evaluation.matches.iou
    array([0.66666667])
    """
    spacing = check_spacing(spacing_mm, len(foreground.shape))
    voxel_mm3 = float(np.prod(spacing))
    table = OverlapTable.of(foreground)
    matches = match(table, settings.matching, settings.iou_threshold)
    confluent = _confluent(foreground.coordinates, foreground.reference, settings)
    metrics = {
        **formulas.detection_metrics(table, matches),
        **formulas.semantic_metrics(table, int(np.prod(foreground.shape)), voxel_mm3),
        **formulas.unmatched_volumes(table, matches, voxel_mm3),
        **formulas.confluence_metrics(table, matches, confluent),
        **formulas.merge_metrics(table),
    }
    metrics = formulas.apply_undefined_policy(metrics, settings.undefined)
    return CaseEvaluation(foreground, spacing, settings, table, matches, confluent, metrics)


def find_confluent(
    coordinates: np.ndarray, ids: np.ndarray, *, connectivity: int = 26, definition: str = "shared"
) -> np.ndarray:
    """Find the confluent lesion units of a map.

    Args:
        coordinates: (V, 2) or (V, 3) array indices of the map's foreground voxels.
        ids: (V,) int64, instance of each of these voxels.
        connectivity: of the components of the mask: 6, 18 or 26; in 2D 4 or 8 (6 means 4, 18 and 26 mean 8).
        definition: ``"shared"``: an instance is a CLU if one of the connected components that contain its voxels also
            contains another instance. ``"eq3"``: the formula of Wynen et al., ISBI 2024, eq. 3, taken
            literally: 0 < IoU(instance, component) < 1 for some component; an instance in several pieces is then a
            CLU by itself.

    Returns:
        (N,) bool, one value per instance by ascending id.

    Raises:
        InputError: the connectivity does not exist in this number of dimensions.

    >>> find_confluent(np.array([[0, 0], [0, 1], [0, 5]]), np.array([1, 2, 3]))
    array([ True,  True, False])
    """
    connectivity = check_connectivity(connectivity, coordinates.shape[1])
    component = Voxels(coordinates).components(connectivity)
    # One entry per pair of instance and component that share voxels.
    base = int(component.max(initial=0)) + 1
    instance, component = np.divmod(np.unique(ids * base + component), base)
    _, instance = np.unique(instance, return_inverse=True)
    is_shared = np.bincount(component)[component] > 1
    confluent = np.bincount(instance, is_shared) > 0
    return confluent if definition == "shared" else confluent | (np.bincount(instance) > 1)


def _confluent(coordinates: np.ndarray, ids: np.ndarray, settings: CaseSettings) -> np.ndarray:
    within = np.flatnonzero(ids)
    return find_confluent(coordinates[within], ids[within], connectivity=settings.connectivity, definition=settings.clu)
