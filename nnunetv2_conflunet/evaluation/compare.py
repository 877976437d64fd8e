"""The command ``nnUNetv2_conflunet_compare``."""

import argparse
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from nnunetv2_conflunet.evaluation.comparison_tables import LOWER_IS_BETTER, latex_table, markdown_tables
from nnunetv2_conflunet.evaluation.metrics import RATIOS
from nnunetv2_conflunet.evaluation.paired import holm, paired_comparison
from nnunetv2_conflunet.evaluation.summary import SUMMARY_FILE
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import atomic_path, read_json

# The paper's columns. RQ is F1, which must not count twice in Holm's family.
PAPER_METRICS = (
    *("Precision", "Recall", "F1", "DiC", "Recall_CLU", "PQ_CLU"),
    *("DSC", "DSC_TP", "DSC_TP_CLU", "PQ", "SQ"),
)


@dataclass(frozen=True, eq=False)
class Method:
    """One evaluation: its name, its metrics by case (rows) and the settings that made them."""

    name: str
    metrics: pd.DataFrame
    settings: dict


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


def main() -> None:
    """Entry point."""
    run_command(lambda: compare(_parser().parse_args()))


def compare(args: argparse.Namespace) -> None:
    """Compare evaluations, print the tables and write them where asked."""
    methods = load_methods(args.evaluations, args.names)
    comparison = compare_methods(methods, args.metrics or list(PAPER_METRICS), seed=args.seed)
    text = markdown_tables(comparison)
    print(text)
    if args.o is None:
        return
    for name, content in (
        ("comparison.md", text),
        ("comparison.tex", latex_table(comparison)),
        ("comparison.csv", comparison.pairs.to_csv(index=False)),
    ):
        with atomic_path(args.o / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(f"Wrote comparison.md, comparison.tex and comparison.csv to {args.o}")


def load_methods(paths: list[Path], names: list[str] | None = None) -> list[Method]:
    """Read evaluations.

    Args:
        paths: folders with a ``summary_instances.json``, or such files.
        names: one a path. Default: the folders' names, with their parents' where these coincide.

    Raises:
        InputError: fewer than two evaluations, a missing file, names that coincide or do not fit in number.
    """
    if len(paths) < 2:
        raise InputError("A comparison needs at least two evaluations.")
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
        if not {"metric_per_case", "settings"} <= set(content):
            raise InputError(f"{file} is no summary of nnUNetv2_conflunet_evaluate.")
        rows = {i["case"]: i["metrics"] for i in content["metric_per_case"]}
        methods.append(Method(name, pd.DataFrame.from_dict(rows, orient="index").astype(float), content["settings"]))
    return methods


def compare_methods(methods: list[Method], metrics: list[str], *, seed: int = 0) -> Comparison:
    """Compare methods over the patients that all of them have.

    Args:
        methods: two or more.
        metrics: names of the metrics.
        seed: of the bootstrap.

    Raises:
        InputError: the settings differ, no patient is common, or a metric is unknown.
    """
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
        raise InputError(f"{list_some([i.name for i in methods])} have no patient in common.")
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
        f"{len(i.metrics) - len(common)} patients of {i.name} are not in every evaluation and are left out."
        for i in methods
        if len(i.metrics) > len(common)
    ]
    return Comparison(list(values), list(metrics), means, n, pairs, notes)


def _folder_names(folders: list[Path]) -> list[str]:
    names = [i.name for i in folders]
    return names if len(set(names)) == len(names) else [f"{i.parent.name}/{i.name}" for i in folders]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_conflunet_compare",
        description="Methods side by side, from the folders that nnUNetv2_conflunet_evaluate wrote: means, paired "
        "differences with a 95 % bootstrap interval over patients, paired t-test, Wilcoxon signed-rank test, and "
        "Holm's correction over all tests of the table.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("evaluations", type=Path, nargs="+", help="two or more evaluated folders")
    parser.add_argument("--names", nargs="+", help="names of the methods; the folders' names when left out")
    parser.add_argument("--metrics", nargs="+", help="metrics to compare; the paper's when left out")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="write Markdown, LaTeX and CSV tables there")
    return parser
