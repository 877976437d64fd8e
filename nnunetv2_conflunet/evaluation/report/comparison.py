"""Several evaluations side by side."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult
from nnunetv2_conflunet.evaluation.cohort.settings import ADDED
from nnunetv2_conflunet.evaluation.cohort.summary import SUMMARY_FILE
from nnunetv2_conflunet.evaluation.metrics.formulas import LOWER_IS_BETTER, RATIOS
from nnunetv2_conflunet.evaluation.report.differences import holm, paired_difference
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import is_file_name, read_json

# The paper's columns. RQ equals F1, which must not count twice in Holm's correction.
PAPER_METRICS = (
    *("Precision", "Recall", "F1", "DiC", "Recall_CLU", "PQ_CLU"),
    *("DSC", "DSC_TP", "DSC_TP_CLU", "PQ", "SQ"),
)


@dataclass(frozen=True, eq=False)
class Method:
    """One evaluation.

    Attributes:
        name: of the method.
        folder: of the evaluation.
        cases: the result of each case, by its id.
        metrics: one row per case, indexed by its id, and one column per metric.
        summary: the content of ``summary_instances.json``.
    """

    name: str
    folder: Path
    cases: dict[str, CaseResult]
    metrics: pd.DataFrame
    summary: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the evaluation."""
        return ADDED | self.summary["settings"]


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
        notes: for the reader.
    """

    methods: list[str]
    metrics: list[str]
    means: dict[str, dict[str, tuple[float, float]]]
    n: dict[str, int]
    differences: pd.DataFrame
    notes: list[str]


def load_methods(paths: list[Path], names: list[str] | None = None) -> list[Method]:
    """Read evaluations.

    Args:
        paths: folders with a ``summary_instances.json``, or such files.
        names: one per path. Default: the folder names, preceded by their parents' names if they coincide.

    Raises:
        InputError: a file is missing, or names coincide or differ in number from the paths.
    """
    files = [path / SUMMARY_FILE if path.is_dir() else path for path in paths]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} does not exist; run nnUNetv2_conflunet_evaluate first.")
    names = names or _folder_names([file.absolute().parent for file in files])
    if len(names) != len(files) or len(set(names)) != len(names):
        raise InputError(f"{len(files)} evaluations need as many different names, not {', '.join(names)}; use --names.")
    methods = []
    for name, file in zip(names, files, strict=True):
        content = read_json(file)
        if not _is_summary(content):
            raise InputError(f"{file} is not a summary by nnUNetv2_conflunet_evaluate.")
        cases = {entry["case"]: CaseResult.from_json(entry) for entry in content["metric_per_case"]}
        rows = {case: result.metrics for case, result in cases.items()}
        metrics = pd.DataFrame.from_dict(rows, orient="index").astype(float)
        methods.append(Method(name, file.parent, cases, metrics, content))
    return methods


def _is_summary(content: object) -> bool:
    """Whether the content has the form of a summary, with case names that are plain file names."""
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        return False
    entries = content.get("metric_per_case")
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and is_file_name(entry.get("case")) and isinstance(entry.get("metrics"), dict)
        for entry in entries
    )


def compare_methods(methods: list[Method], metrics: list[str], *, seed: int = 0) -> Comparison:
    """Compare methods over the cases that they have in common.

    Args:
        methods: two or more.
        metrics: names of the metrics.
        seed: of the bootstrap.

    Raises:
        InputError: there are fewer than two methods, settings differ, no case is in common, or a metric is unknown.

    >>> cases = {"MS_1": CaseResult("MS_1", metrics={"F1": 0.5}), "MS_2": CaseResult("MS_2", metrics={"F1": 0.7})}
    >>> table = pd.DataFrame({"F1": [0.5, 0.7]}, index=list(cases))
    >>> methods = [Method(name, Path(name), cases, table, {"settings": {}}) for name in ("CC", "ACLS")]
    >>> compare_methods(methods, ["F1"]).n
    {'F1': 2}
    """
    if len(methods) < 2:
        raise InputError("A comparison needs at least two evaluations.")
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
    unknown = [metric for metric in metrics if any(metric not in method.metrics for method in methods)]
    if unknown:
        raise InputError(f"There is no metric {list_some(unknown)}; use {', '.join(first.metrics)}.")
    unsuitable = [metric for metric in metrics if metric not in RATIOS and metric not in LOWER_IS_BETTER]
    if unsuitable:
        raise InputError(f"{list_some(unsuitable)} is neither better when high nor when low; compare ratios or errors.")
    means, n, differences = {}, {}, []
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
    return Comparison([method.name for method in methods], list(metrics), means, n, table, notes)


def _folder_names(folders: list[Path]) -> list[str]:
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [f"{folder.parent.name}/{folder.name}" for folder in folders]
