"""Several evaluations side by side."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.detection import cases_left_out, cohort_of
from nnunetv2_conflunet.evaluation.cohort.results import Method
from nnunetv2_conflunet.evaluation.cohort.summary import pooled_accuracies
from nnunetv2_conflunet.evaluation.detection.metrics import Cohort
from nnunetv2_conflunet.evaluation.metrics.formulas import LOWER_IS_BETTER, RATIOS
from nnunetv2_conflunet.evaluation.report.detection import compare_detection
from nnunetv2_conflunet.evaluation.report.differences import holm, paired_difference
from nnunetv2_conflunet.utilities.array_checks import check_not_negative
from nnunetv2_conflunet.utilities.errors import InputError, join_faults, list_some

# The paper's columns. RQ equals F1, which must not count twice in Holm's correction.
PAPER_METRICS = (
    *("Precision", "Recall", "F1", "DiC", "Recall_CLU", "PQ_CLU"),
    *("DSC", "DSC_TP", "DSC_TP_CLU", "PQ", "SQ"),
)

# What is the same under every method, up to the rounding of spacings in headers.
OF_REFERENCE, REFERENCE_TOLERANCE = ("n_reference", "load_reference_mm3"), 1e-3


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods side by side.

    Attributes:
        methods: names, in the order given.
        metrics: names.
        means: metric -> (mean, std) by method, over the cases for which the metric is defined for all methods.
        n: metric -> number of these cases.
        differences: one row per metric and pair of methods, with the columns of
            :func:`.differences.paired_difference` and Holm's p_t_holm and p_wilcoxon_holm over all rows.
        accuracies: method -> its :func:`.summary.pooled_accuracies` over the cases in common; empty if a method has
            none, as in evaluations of earlier versions.
        notes: for the reader.
        detection: from :func:`.compare_detection` over the common cases; None unless every method has confidences.
    """

    methods: list[str]
    metrics: list[str]
    means: dict[str, dict[str, tuple[float, float]]]
    n: dict[str, int]
    differences: pd.DataFrame
    accuracies: dict[str, dict[str, float]]
    notes: list[str]
    detection: pd.DataFrame | None = None


def compare_methods(methods: list[Method], metrics: list[str], *, seed: int = 0) -> Comparison:
    """Compare methods over the cases that they have in common.

    Args:
        methods: two or more.
        metrics: names of the metrics.
        seed: of the bootstrap.

    Raises:
        InputError: there are fewer than two methods, settings or references differ, no case is in common, a metric is
            unknown, or the seed is negative.

    >>> from pathlib import Path
    >>> from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult
    >>> cases = {"MS_1": CaseResult("MS_1", metrics={"F1": 0.5}), "MS_2": CaseResult("MS_2", metrics={"F1": 0.7})}
    >>> table = pd.DataFrame({"F1": [0.5, 0.7]}, index=list(cases))
    >>> methods = [Method(name, Path(name), cases, table, {"settings": {}}) for name in ("CC", "ACLS")]
    >>> compare_methods(methods, ["F1"]).n
    {'F1': 2}
    """
    if len(methods) < 2:
        raise InputError("A comparison needs at least two evaluations.")
    check_not_negative(seed, "seed")
    first = methods[0]
    for method in methods[1:]:
        differing = [
            name
            for name, value in first.settings.items()
            if name != "volume_bins_mm3" and method.settings.get(name) != value
        ]
        if differing:
            raise InputError(
                f"{first.name} and {method.name} were evaluated with a different {list_some(sorted(differing))}; "
                "evaluate them with the same options."
            )
    common = sorted(set.intersection(*(set(method.cases) for method in methods)))
    if not common:
        raise InputError(f"{list_some([method.name for method in methods])} have no case in common.")
    _refuse_other_references(methods, common)
    unknown = [metric for metric in metrics if any(metric not in method.metrics for method in methods)]
    if unknown:
        raise InputError(f"There is no metric {list_some(unknown)}; use {', '.join(first.metrics)}.")
    unsuitable = [metric for metric in metrics if metric not in RATIOS and metric not in LOWER_IS_BETTER]
    if unsuitable:
        raise InputError(f"{list_some(unsuitable)} is neither better when high nor when low; compare ratios or errors.")
    means, n, differences = {}, {}, []
    # A metric named twice would count twice in Holm's correction.
    metrics = list(dict.fromkeys(metrics))
    for metric in metrics:
        values = {method.name: method.metrics.loc[common, metric].to_numpy() for method in methods}
        defined = pd.DataFrame(values).dropna()
        n[metric] = len(defined)
        means[metric] = {name: (float(defined[name].mean()), float(defined[name].std())) for name in values}
        for a, b in combinations(values, 2):
            difference = paired_difference(values[a], values[b], seed=seed)
            differences.append({"metric": metric, "first": a, "second": b, **difference})
    table = pd.DataFrame(differences)
    for test in ("p_t", "p_wilcoxon"):
        table[f"{test}_holm"] = holm(table[test].to_numpy())
    notes = [
        f"{len(method.cases) - len(common)} cases of {method.name} are not in every evaluation and are left out."
        for method in methods
        if len(method.cases) > len(common)
    ]
    notes += _without_detection(methods, common)
    accuracies = {method.name: pooled_accuracies(method.metrics.loc[common]) for method in methods}
    if not all(accuracies.values()):
        accuracies = {}
    cohorts = cohorts_of(methods, common)
    detection = compare_detection(cohorts, seed) if len(cohorts) == len(methods) else None
    names = [method.name for method in methods]
    return Comparison(names, metrics, means, n, table, accuracies, notes, detection)


def _refuse_other_references(methods: list[Method], common: list[str]) -> None:
    """Raise an InputError if cases with the same name have other references."""
    first, *others = methods
    for method in others:
        known = [name for name in OF_REFERENCE if name in first.metrics and name in method.metrics]
        expected, found = (one.metrics.loc[common, known] for one in (first, method))
        same = np.isclose(expected, found, rtol=REFERENCE_TOLERANCE, atol=0).all(axis=1)
        if not same.all():
            raise InputError(
                f"{first.name} and {method.name} were evaluated with different references of "
                f"{list_some([case for case, equal in zip(common, same, strict=True) if not equal])}: numbers or "
                "volumes of their lesions differ. Evaluate both with the same folder of references."
            )


def _without_detection(methods: list[Method], common: list[str]) -> list[str]:
    """Why FROC and AP are not compared, if some evaluations have them."""
    faults = {
        method.name: cases_left_out({case: method.cases[case].detection for case in common}) for method in methods
    }
    if all(faults.values()):
        return []
    return [
        f"FROC and AP are not compared, since {name} lacks confidences: {join_faults(of_cases)}."
        for name, of_cases in faults.items()
        if of_cases
    ]


def cohorts_of(methods: list[Method], cases: list[str] | None = None) -> dict[str, Cohort]:
    """The cohorts of the methods that have the confidences of all these cases, or of all their own, by their names."""
    stored = {
        method.name: {case: method.cases[case].detection for case in cases or sorted(method.cases)}
        for method in methods
    }
    return {name: cohort_of(list(of.values())) for name, of in stored.items() if of and not cases_left_out(of)}
