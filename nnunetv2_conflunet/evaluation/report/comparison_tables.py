"""Comparisons as Markdown and LaTeX."""

import math

from nnunetv2_conflunet.evaluation.metrics.formulas import DISTANCES, LOWER_IS_BETTER, RATIOS
from nnunetv2_conflunet.evaluation.report.comparison import Comparison
from nnunetv2_conflunet.evaluation.report.detection import HEADING, comparison_table
from nnunetv2_conflunet.evaluation.report.tables import ACCURACY_LABELS, ACCURACY_TITLE, heading, percent

LATEX_ESCAPES = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
ACCURACIES = "Over the lesions of all cases in common, in %. For differences and tests: `--metrics accuracy_50`."
DETECTION = (
    "In %, over the cases in every evaluation. The interval is a paired bootstrap over patients; there is no test, and "
    "Holm's correction leaves these rows out."
)
FAMILY = "Holm's correction is over all comparisons in this table, separately for each test."


def markdown_tables(comparison: Comparison) -> str:
    """The means, best in bold, and the paired differences as Markdown."""
    rows = [
        [
            heading(metric),
            *(_mean(comparison, metric, name, "**{}**") for name in comparison.methods),
            str(comparison.n[metric]),
        ]
        for metric in comparison.metrics
    ]
    parts = [
        "## Mean ± standard deviation",
        "Over the cases for which the metric is defined for every method.",
        _markdown(["metric", *comparison.methods, "cases"], rows),
        "## Paired differences",
        f"Over the cases for which the metric is defined for both methods. {FAMILY}",
        _markdown(**difference_table(comparison)),
    ]
    if comparison.accuracies:
        parts += [f"## {ACCURACY_TITLE}", ACCURACIES, _markdown(**accuracy_table(comparison.accuracies))]
    if comparison.detection is not None:
        parts += [f"## {HEADING}", DETECTION, _markdown(**comparison_table(comparison.detection))]
    parts += comparison.notes
    return "\n\n".join(parts) + "\n"


def difference_table(comparison: Comparison) -> dict[str, list]:
    """``header`` and ``rows`` of the paired differences and their tests."""
    header = ["metric", "methods", "cases", "difference [95 % interval]", "t-test", "Holm", "Wilcoxon", "Holm"]
    rows = [
        [
            heading(row["metric"]),
            f"{row['first']} - {row['second']}",
            str(row["n"]),
            _interval(row),
            *(_p_value(row[test]) for test in ("p_t", "p_t_holm", "p_wilcoxon", "p_wilcoxon_holm")),
        ]
        for row in comparison.differences.to_dict("records")
    ]
    return {"header": header, "rows": rows}


def accuracy_table(accuracies: dict[str, dict[str, float]]) -> dict[str, list]:
    """``header`` and ``rows`` of AP without confidence, one column per method, from :attr:`.Comparison.accuracies`."""
    rows = [
        [label, *(percent(of_method[name]) for of_method in accuracies.values())]
        for name, label in ACCURACY_LABELS.items()
    ]
    return {"header": ["IoU", *accuracies], "rows": rows}


def latex_table(comparison: Comparison) -> str:
    r"""The means, best in bold, as a LaTeX table for the package booktabs."""
    rows = [["Method", *(_latex(heading(metric)) for metric in comparison.metrics)]]
    for name in comparison.methods:
        means = [_mean(comparison, metric, name, r"\textbf{{{}}}") for metric in comparison.metrics]
        rows.append([_latex(name), *(mean.replace("±", r"$\pm$").replace("–", "--") for mean in means)])
    rows.append(["Cases", *(str(comparison.n[metric]) for metric in comparison.metrics)])
    header, *lines, cases = [" & ".join(row) + r" \\" for row in rows]
    body = [r"\toprule", header, r"\midrule", *lines, r"\midrule", cases, r"\bottomrule"]
    columns = "l" + "c" * len(comparison.metrics)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"]) + "\n"


def _best(comparison: Comparison, metric: str) -> set[str]:
    """The methods with the best printed mean, all of them at a tie."""
    printed = {name: float(_value(mean, metric)) for name, (mean, _) in comparison.means[metric].items()}
    defined = [value for value in printed.values() if not math.isnan(value)]
    best = (min if metric in LOWER_IS_BETTER else max)(defined, default=math.nan)
    return {name for name, value in printed.items() if value == best}


def _mean(comparison: Comparison, metric: str, method: str, bold: str) -> str:
    mean, std = comparison.means[metric][method]
    if math.isnan(mean):
        return "–"
    text = _value(mean, metric) if math.isnan(std) else f"{_value(mean, metric)} ± {_value(std, metric)}"
    return bold.format(text) if method in _best(comparison, metric) else text


def _value(value: float, metric: str) -> str:
    decimals = 2 if metric in DISTANCES else 1
    # Adding 0 turns -0.0 into 0.0.
    return f"{round(100 * value if metric in RATIOS else value, decimals) + 0.0:.{decimals}f}"


def _interval(row: dict) -> str:
    if math.isnan(row["difference"]):
        return "–"
    difference, low, high = (_value(row[name], row["metric"]) for name in ("difference", "low", "high"))
    return difference if math.isnan(row["low"]) else f"{difference} [{low}, {high}]"


def _p_value(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [[_one_line(text).replace("|", r"\|") for text in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    cells = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _latex(text: str) -> str:
    return _one_line(text).translate(LATEX_ESCAPES)


def _one_line(text: str) -> str:
    """The text without line breaks, which a name may have and which end the row of a table."""
    return " ".join(text.split())
