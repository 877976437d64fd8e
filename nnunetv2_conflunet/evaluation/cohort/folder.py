"""The evaluation of a folder, case by case and in parallel."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.evaluation.cohort.lesions import COLUMNS, describe_lesions
from nnunetv2_conflunet.evaluation.cohort.pairing import Pair, Pairing
from nnunetv2_conflunet.evaluation.cohort.settings import SWEEP_THRESHOLDS, Settings
from nnunetv2_conflunet.evaluation.metrics.case import assess, sweep
from nnunetv2_conflunet.evaluation.metrics.confluence import find_confluent
from nnunetv2_conflunet.evaluation.metrics.formulas import apply_undefined_policy
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.surfaces import SURFACE_METRICS, require_surface_distance, surface_distances
from nnunetv2_conflunet.imageio import Geometry, read_instances, refuse_other_grid
from nnunetv2_conflunet.postprocessing.size_filter import large_enough, limits_of
from nnunetv2_conflunet.postprocessing.units import refuse_limits
from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.errors import InputError, join_faults, list_some
from nnunetv2_conflunet.utilities.parallel import try_cases


def check_missing(pairing: Pairing, settings: Settings) -> None:
    """Raise an InputError that lists references without a prediction, unless the settings allow them.

    Where they are left out, one prediction at least must be there.
    """
    not_taken = "".join(f" {i}" for i in pairing.notes)
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


def evaluate_pairs(pairing: Pairing, settings: Settings, num_processes: int, part: slice = slice(None)) -> list[dict]:
    """Evaluate cases in parallel through joblib.

    Args:
        pairing: the cases.
        settings: how to evaluate.
        num_processes: worker processes; another joblib backend can take the work through `joblib.parallel_config`.
        part: which of the cases, after those left out have been taken away.

    Returns:
        For each case, as plain values that JSON can hold: case, reference_file, prediction_file (None where missing),
        metrics, sweep, removed (what the size filter took), dim (axes of the image) and
        lesions (columns of :func:`.lesions.describe_lesions`).

    Raises:
        InputError: predictions are missing, or any pair cannot be read or does not lie on one grid; it names all.
    """
    check_missing(pairing, settings)
    if settings.surface:
        require_surface_distance()
    pairs = [i for i in pairing.pairs if i.prediction is not None or settings.missing != "skip"][part]
    cases = {pair.case: (pair, pairing.reader, settings) for pair in pairs}
    results, faults = try_cases(evaluate_pair, cases, num_processes, "Evaluating")
    if faults:
        raise InputError(join_faults(faults))
    return list(results.values())


def evaluate_pair(pair: Pair, reader: type[BaseReaderWriter], settings: Settings) -> dict[str, Any]:
    """Read, check and evaluate one case; see :func:`evaluate_pairs`."""
    reference, properties = read_instances(pair.reference, reader())
    geometry = Geometry.from_properties(reference.shape, properties)
    if pair.prediction is None:
        prediction = np.zeros_like(reference)
    else:
        prediction, prediction_properties = read_instances(pair.prediction, reader())
        grid = Geometry.from_properties(prediction.shape, prediction_properties)
        refuse_other_grid(pair.prediction, grid, pair.reference, geometry, reader())
    spacing_mm = geometry.spacing_mm
    if reference.shape[0] == 1:
        # nnU-Net gives images a leading axis of length 1, whose spacing is a placeholder.
        prediction, reference, spacing_mm = prediction[0], reference[0], spacing_mm[1:]
    refuse_limits(reference.shape, spacing_mm, **limits_of(settings))
    foreground, removed = _without_small(Foreground.of(prediction, reference), spacing_mm, settings)
    options = ("iou_threshold", "connectivity", "matching", "clu", "undefined")
    evaluation = assess(foreground, spacing_mm, **{name: getattr(settings, name) for name in options})
    metrics, distances = evaluation.metrics, {}
    if settings.surface:
        distances = surface_distances(foreground, evaluation.matches, spacing_mm, settings.nsd_tolerance_mm)
        means = {name: float(np.mean(distances[name])) if metrics["TP"] else np.nan for name in SURFACE_METRICS}
        metrics = apply_undefined_policy(metrics | means, settings.undefined)
    within = foreground.prediction > 0
    confluent_predictions = find_confluent(
        foreground.coordinates[within],
        foreground.prediction[within],
        connectivity=settings.connectivity,
        definition=settings.clu,
    )
    lesions = describe_lesions(
        pair.case,
        evaluation,
        confluent_predictions,
        geometry,
        float(np.prod(spacing_mm)),
        {f"match_{name}": values for name, values in distances.items()},
    )
    return {
        "case": pair.case,
        "reference_file": str(pair.reference),
        "prediction_file": None if pair.prediction is None else str(pair.prediction),
        "metrics": metrics,
        "sweep": sweep(evaluation.table, settings.matching, SWEEP_THRESHOLDS, settings.undefined),
        "removed": removed,
        "dim": reference.ndim,
        "lesions": lesions,
    }


def lesions_of(cases: list[dict]) -> pd.DataFrame:
    """The lesions of all cases in one table, one row a lesion."""
    names = cases[0]["lesions"] if cases else COLUMNS
    lesions = pd.DataFrame({name: [i for case in cases for i in case["lesions"][name]] for name in names})
    return lesions.astype(dict.fromkeys(("match_id", "best_overlap_id", "held_by_id"), "Int64"))


def _without_small(
    foreground: Foreground, spacing_mm: tuple[float, ...], settings: Settings
) -> tuple[Foreground, dict[str, dict]]:
    """The foreground without the instances that are too small, and what was removed from each side."""
    limits = limits_of(settings)
    if not any(limits.values()):
        return foreground, {}
    removed = {}
    for side in ("prediction", "reference"):
        ids = getattr(foreground, side)
        within = np.flatnonzero(ids)
        voxels = Voxels(foreground.coordinates[within])
        large, removed[side] = large_enough(voxels, ids[within], np.asarray(spacing_mm), **limits)
        kept = np.zeros_like(ids)
        kept[within[large]] = ids[within[large]]
        foreground = replace(foreground, **{side: kept})
    return foreground, removed
