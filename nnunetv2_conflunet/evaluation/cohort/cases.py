"""Evaluation of cases: the files of one, and those of a folder in parallel."""

from dataclasses import astuple, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.evaluation.cohort.detection import detection_of_case
from nnunetv2_conflunet.evaluation.cohort.lesions import COLUMNS, describe_lesions
from nnunetv2_conflunet.evaluation.cohort.pairing import Pair, Pairing
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.metrics.case import assess
from nnunetv2_conflunet.evaluation.metrics.formulas import apply_undefined_policy
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.surfaces import (
    SURFACE_METRICS,
    require_surface_distance,
    surface_distances,
)
from nnunetv2_conflunet.imageio import Geometry, read_instances, refuse_other_grid
from nnunetv2_conflunet.imageio.unknown import without_unknown
from nnunetv2_conflunet.postprocessing.size_filter import large_enough, refuse_limits
from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.errors import InputError, join_faults, list_some
from nnunetv2_conflunet.utilities.parallel import try_cases


@dataclass(frozen=True, eq=False)
class CaseResult:
    """The results of one case, as plain values for JSON.

    Attributes:
        case: the case id.
        reference_file: path of the reference.
        prediction_file: path of the prediction, None if it is missing.
        metrics: names and values.
        sweep: rows of :meth:`.case.CaseEvaluation.sweep`.
        removed: what the size filter removed from the ``prediction`` and from the ``reference``.
        dim: number of axes of the image; 3 for results of an earlier version, which did not store it.
        detection: from :func:`.detection_of_case`; empty in results of an earlier version.
        lesions: columns of :func:`.lesions.describe_lesions`; empty in a summary, whose table holds all cases.
    """

    case: str
    reference_file: str = ""
    prediction_file: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    sweep: list[dict[str, float]] = field(default_factory=list)
    removed: dict[str, dict[str, float]] = field(default_factory=dict)
    dim: int = 3
    detection: dict[str, Any] = field(default_factory=dict)
    lesions: dict[str, list] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "CaseResult":
        """A result from its JSON entry, of this or an earlier version.

        >>> CaseResult.from_json({"case": "MS_1", "metrics": {"TP": 2}}).dim
        3
        """
        return cls(**{known.name: content[known.name] for known in fields(cls) if known.name in content})

    def to_json(self, with_lesions: bool = True) -> dict[str, Any]:
        """The JSON entry of the case."""
        return {name: value for name, value in vars(self).items() if with_lesions or name != "lesions"}


def evaluate_pair(pair: Pair, reader: type[BaseReaderWriter], settings: EvaluationSettings) -> CaseResult:
    """Read, check and evaluate the files of one case.

    Raises:
        InputError: a file cannot be read, the two are not on the same grid, or the size filter would remove everything.
    """
    reference, properties = read_instances(pair.reference, reader())
    geometry = Geometry.from_properties(reference.shape, properties)
    if pair.prediction is None:
        prediction = np.zeros_like(reference)
    else:
        prediction, prediction_properties = read_instances(pair.prediction, reader())
        grid = Geometry.from_properties(prediction.shape, prediction_properties)
        refuse_other_grid(pair.prediction, grid, pair.reference, geometry, reader())
    spacing_mm = geometry.spacing_mm
    if geometry.is_plane:
        # nnU-Net gives 2D images a leading axis of length 1, whose spacing is a placeholder.
        prediction, reference, spacing_mm = prediction[0], reference[0], spacing_mm[1:]
    refuse_limits(reference.shape, spacing_mm, settings.limits)
    foreground, removed = _without_small(Foreground.of(prediction, reference), spacing_mm, settings)
    evaluation = assess(foreground, spacing_mm, settings)
    metrics, distances = evaluation.metrics, {}
    if settings.surface:
        distances = surface_distances(evaluation.foreground, evaluation.matches, spacing_mm, settings.nsd_tolerance_mm)
        means = {name: float(np.mean(distances[name])) if metrics["TP"] else np.nan for name in SURFACE_METRICS}
        metrics = metrics | apply_undefined_policy(means, settings.undefined)
    return CaseResult(
        case=pair.case,
        reference_file=str(pair.reference),
        prediction_file=None if pair.prediction is None else str(pair.prediction),
        metrics=metrics,
        sweep=evaluation.sweep(),
        removed=removed,
        dim=reference.ndim,
        detection=detection_of_case(pair, evaluation),
        lesions=describe_lesions(pair.case, evaluation, geometry, distances),
    )


def expected_pairs(pairing: Pairing, settings: EvaluationSettings) -> list[Pair]:
    """The cases to evaluate: all of them, or only those with a prediction if the settings say so.

    Raises:
        InputError: references without a prediction are not allowed by the settings, or no case is left.
    """
    not_taken = "".join(f" {note}" for note in pairing.notes)
    if settings.missing == "skip" and len(pairing.missing) == len(pairing.pairs):
        raise InputError(
            f"None of the {len(pairing.pairs)} cases has a prediction ({list_some(pairing.missing)}), so nothing is "
            "left to evaluate. Check the folder of the predictions and the names of its files." + not_taken
        )
    if pairing.missing and settings.missing == "error":
        raise InputError(
            f"{len(pairing.missing)} of {len(pairing.pairs)} cases have no prediction: {list_some(pairing.missing)}. "
            "Predict them, score them as empty with --missing worst, or leave them out with --chill." + not_taken
        )
    return [pair for pair in pairing.pairs if pair.prediction is not None or settings.missing != "skip"]


def evaluate_pairs(
    pairs: list[Pair], reader: type[BaseReaderWriter], settings: EvaluationSettings, num_processes: int
) -> list[CaseResult]:
    """Evaluate cases in parallel through joblib.

    Args:
        pairs: the cases, of the :func:`expected_pairs`.
        reader: class of the reader for all files.
        settings: how to evaluate.
        num_processes: worker processes; `joblib.parallel_config` can choose another backend.

    Returns:
        The result of each case.

    Raises:
        InputError: some pairs cannot be read or are not on the same grid; it names all.
    """
    if settings.surface:
        require_surface_distance()
    cases = {pair.case: (pair, reader, settings) for pair in pairs}
    results, faults = try_cases(evaluate_pair, cases, num_processes, "Evaluating")
    if faults:
        raise InputError(join_faults(faults))
    return list(results.values())


def case_table(cases: list[CaseResult]) -> pd.DataFrame:
    """One row per case: its id and its metrics.

    >>> case_table([CaseResult("MS_1", metrics={"TP": 2, "FP": 0})]).to_dict("records")
    [{'case': 'MS_1', 'TP': 2, 'FP': 0}]
    """
    return pd.DataFrame([{"case": case.case, **case.metrics} for case in cases])


def lesion_table(cases: list[CaseResult]) -> pd.DataFrame:
    """The lesions of all cases in one table, one row per lesion."""
    names = cases[0].lesions if cases else COLUMNS
    lesions = pd.DataFrame({name: [value for case in cases for value in case.lesions[name]] for name in names})
    return lesions.astype(dict.fromkeys(("match_id", "best_overlap_id", "held_by_id"), "Int64"))


def _without_small(
    foreground: Foreground, spacing_mm: tuple[float, ...], settings: EvaluationSettings
) -> tuple[Foreground, dict[str, dict[str, float]]]:
    """The foreground without instances that are too small, and what was removed on each side."""
    if not any(astuple(settings.limits)):
        return foreground, {}
    removed = {}
    for side in ("prediction", "reference"):
        ids = getattr(foreground, side)
        # Nobody knows the sizes of unknown instances.
        within = np.flatnonzero(without_unknown(ids, settings.unknown if side == "reference" else None))
        voxels = Voxels(foreground.coordinates[within])
        large, removed[side] = large_enough(voxels, ids[within], np.asarray(spacing_mm), settings.limits)
        kept = ids.copy()
        kept[within[~large]] = 0
        foreground = replace(foreground, **{side: kept})
    return foreground, removed
