"""Several evaluations side by side."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.settings import ADDED
from nnunetv2_conflunet.evaluation.cohort.summary import SUMMARY_FILE
from nnunetv2_conflunet.evaluation.metrics.formulas import LOWER_IS_BETTER, RATIOS
from nnunetv2_conflunet.evaluation.report.paired import holm, paired_comparison
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import is_file_name, read_json

# The paper's columns. RQ is F1, which must not count twice in Holm's family.
PAPER_METRICS = (
    *("Precision", "Recall", "F1", "DiC", "Recall_CLU", "PQ_CLU"),
    *("DSC", "DSC_TP", "DSC_TP_CLU", "PQ", "SQ"),
)


@dataclass(frozen=True, eq=False)
class Method:
    """One evaluation.

    Attributes:
        name: of the method.
        folder: that holds the evaluation.
        metrics: one row a case, named by it, one column a metric.
        summary: the content of ``summary_instances.json``.
    """

    name: str
    folder: Path
    metrics: pd.DataFrame
    summary: dict

    @property
    def settings(self) -> dict:
        """What the evaluation was made with."""
        return ADDED | self.summary["settings"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods side by side.

    Attributes:
        methods: names, in the order given.
        metrics: names.
        means: metric -> (mean, std) by method, over the patients for which all methods define the metric.
        n: metric -> number of these patients.
        pairs: one row for each metric and pair of methods, with the columns of :func:`.paired.paired_comparison` and
            Holm's p_t_holm and p_wilcoxon_holm over all rows.
        notes: what a reader must know.
    """

    methods: list[str]
    metrics: list[str]
    means: dict[str, dict[str, tuple[float, float]]]
    n: dict[str, int]
    pairs: pd.DataFrame
    notes: list[str]


def load_methods(paths: list[Path], names: list[str] | None = None) -> list[Method]:
    """Read evaluations.

    Args:
        paths: folders with a ``summary_instances.json``, or such files.
        names: one a path. Default: the folders' names, with their parents' where these coincide.

    Raises:
        InputError: a missing file, names that coincide or do not fit in number.
    """
    files = [i / SUMMARY_FILE if i.is_dir() else i for i in paths]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} does not exist; run nnUNetv2_conflunet_evaluate first.")
    names = names or _folder_names([i.absolute().parent for i in files])
    if len(names) != len(files) or len(set(names)) != len(names):
        raise InputError(f"{len(files)} evaluations need as many different names, not {', '.join(names)}; use --names.")
    methods = []
    for name, file in zip(names, files, strict=True):
        content = read_json(file)
        if not _is_summary(content):
            raise InputError(f"{file} is no summary of nnUNetv2_conflunet_evaluate.")
        rows = {i["case"]: i["metrics"] for i in content["metric_per_case"]}
        metrics = pd.DataFrame.from_dict(rows, orient="index").astype(float)
        methods.append(Method(name, file.parent, metrics, content))
    return methods


def _is_summary(content: object) -> bool:
    """Whether a file has the form of a summary, with cases whose names lead to no other folder."""
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        return False
    entries = content.get("metric_per_case")
    return isinstance(entries, list) and all(
        isinstance(i, dict) and is_file_name(i.get("case")) and isinstance(i.get("metrics"), dict) for i in entries
    )


def compare_methods(methods: list[Method], metrics: list[str], *, seed: int = 0) -> Comparison:
    """Compare methods over the patients that all of them have.

    Args:
        methods: two or more.
        metrics: names of the metrics.
        seed: of the bootstrap.

    Raises:
        InputError: fewer than two methods, the settings differ, no patient is common, or a metric is unknown.
    """
    if len(methods) < 2:
        raise InputError("A comparison needs at least two evaluations.")
    first = methods[0]
    for method in methods[1:]:
        differing = [
            k for k, value in first.settings.items() if k != "volume_bins_mm3" and method.settings.get(k) != value
        ]
        if differing:
            raise InputError(
                f"{first.name} and {method.name} were evaluated with another {list_some(sorted(differing))}; evaluate "
                "them with the same options."
            )
    common = sorted(set.intersection(*(set(i.metrics.index) for i in methods)))
    if not common:
        raise InputError(f"{list_some([i.name for i in methods])} have no case in common.")
    unknown = [i for i in metrics if any(i not in method.metrics for method in methods)]
    if unknown:
        raise InputError(f"There is no metric {list_some(unknown)}; there are {', '.join(first.metrics)}.")
    unsuitable = [i for i in metrics if i not in RATIOS and i not in LOWER_IS_BETTER]
    if unsuitable:
        raise InputError(f"{list_some(unsuitable)} is neither better high nor low; compare ratios or errors.")
    values = {i.name: i.metrics.loc[common] for i in methods}
    means, n = {}, {}
    for metric in metrics:
        side_by_side = pd.DataFrame({name: table[metric] for name, table in values.items()}).dropna()
        n[metric] = len(side_by_side)
        means[metric] = {name: (float(side_by_side[name].mean()), float(side_by_side[name].std())) for name in values}
    pairs = pd.DataFrame(
        {
            "metric": metric,
            "first": a,
            "second": b,
            **paired_comparison(values[a][metric], values[b][metric], seed=seed),
        }
        for metric in metrics
        for a, b in combinations(values, 2)
    )
    for test in ("p_t", "p_wilcoxon"):
        pairs[f"{test}_holm"] = holm(pairs[test].to_numpy())
    notes = [
        f"{len(i.metrics) - len(common)} cases of {i.name} are not in every evaluation and are left out."
        for i in methods
        if len(i.metrics) > len(common)
    ]
    return Comparison(list(values), list(metrics), means, n, pairs, notes)


def _folder_names(folders: list[Path]) -> list[str]:
    names = [i.name for i in folders]
    return names if len(set(names)) == len(names) else [f"{i.parent.name}/{i.name}" for i in folders]
