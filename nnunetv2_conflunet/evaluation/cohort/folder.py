"""Evaluation of a folder, case by case and in parallel."""

from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult, evaluate_pair
from nnunetv2_conflunet.evaluation.cohort.pairing import Pair, Pairing
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.metrics.surfaces import require_surface_distance
from nnunetv2_conflunet.utilities.errors import InputError, join_faults, list_some
from nnunetv2_conflunet.utilities.parallel import try_cases


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
    pairing: Pairing, settings: EvaluationSettings, num_processes: int, part: slice = slice(None)
) -> list[CaseResult]:
    """Evaluate cases in parallel through joblib.

    Args:
        pairing: the cases.
        settings: how to evaluate.
        num_processes: worker processes; `joblib.parallel_config` can choose another backend.
        part: selects from the :func:`expected_pairs`.

    Returns:
        The result of each case.

    Raises:
        InputError: predictions are missing, or some pairs cannot be read or are not on the same grid; it names all.
    """
    pairs = expected_pairs(pairing, settings)[part]
    if settings.surface:
        require_surface_distance()
    cases = {pair.case: (pair, pairing.reader, settings) for pair in pairs}
    results, faults = try_cases(evaluate_pair, cases, num_processes, "Evaluating")
    if faults:
        raise InputError(join_faults(faults))
    return list(results.values())
