"""Comparisons as Markdown and LaTeX."""

import math
from collections.abc import Callable

from nnunetv2_conflunet.evaluation.metrics.formulas import DISTANCES, LOWER_IS_BETTER, RATIOS
from nnunetv2_conflunet.evaluation.report.comparison import Comparison

LATEX_ESCAPES = {i: "\\" + i for i in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
FAMILY = "Holm's correction is over all comparisons of this table, for each test by itself."


def markdown_tables(comparison: Comparison) -> str:
    """The means, best in bold, and the paired tests as Markdown."""
    header = ["metric", *comparison.methods, "cases"]
    rows = [
        [
            _heading(i),
            *(_mean(comparison, i, name, _markdown_bold) for name in comparison.methods),
            str(comparison.n[i]),
        ]
        for i in comparison.metrics
    ]
    parts = [
        "## Mean ± standard deviation",
        "Over the cases for which every method defines the metric.",
        _markdown(header, rows),
        "## Paired differences",
        f"Over the cases for which both methods define the metric. {FAMILY}",
        _markdown(*difference_table(comparison)),
        *comparison.notes,
    ]
    return "\n\n".join(parts) + "\n"


def difference_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the paired differences and their tests."""
    header = ["metric", "methods", "cases", "difference [95 % interval]", "t-test", "Holm", "Wilcoxon", "Holm"]
    rows = [
        [
            _heading(row["metric"]),
            f"{row['first']} - {row['second']}",
            str(row["n"]),
            _interval(row),
            *(_p_value(row[i]) for i in ("p_t", "p_t_holm", "p_wilcoxon", "p_wilcoxon_holm")),
        ]
        for row in comparison.pairs.to_dict("records")
    ]
    return header, rows


def latex_table(comparison: Comparison) -> str:
    r"""The means, best in bold, as a LaTeX table for the package booktabs."""
    columns = "l" + "c" * len(comparison.metrics)
    header = " & ".join(["Method", *(_latex(_heading(i)) for i in comparison.metrics)])
    lines = [
        " & ".join([_latex(name), *(_latex_mean(comparison, i, name) for i in comparison.metrics)]) + r" \\"
        for name in comparison.methods
    ]
    cases = " & ".join(["Cases", *(str(comparison.n[i]) for i in comparison.metrics)])
    body = [r"\toprule", header + r" \\", r"\midrule", *lines, r"\midrule", cases + r" \\", r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *body, r"\end{tabular}"]) + "\n"


def _heading(metric: str) -> str:
    return f"{metric} (%)" if metric in RATIOS else metric


def _best(comparison: Comparison, metric: str) -> set[str]:
    """The methods with the best mean as it is printed, all of them at a tie."""
    printed = {name: float(_value(mean, metric)) for name, (mean, _) in comparison.means[metric].items()}
    defined = [i for i in printed.values() if not math.isnan(i)]
    if not defined:
        return set()
    best = (min if metric in LOWER_IS_BETTER else max)(defined)
    return {name for name, value in printed.items() if value == best}


def _mean(comparison: Comparison, metric: str, method: str, bold: Callable[[str], str]) -> str:
    mean, std = comparison.means[metric][method]
    if math.isnan(mean):
        return "–"
    text = _value(mean, metric) if math.isnan(std) else f"{_value(mean, metric)} ± {_value(std, metric)}"
    return bold(text) if method in _best(comparison, metric) else text


def _value(value: float, metric: str) -> str:
    decimals = 2 if metric in DISTANCES else 1
    # Adding 0 makes -0.0 what it is.
    return f"{round(100 * value if metric in RATIOS else value, decimals) + 0.0:.{decimals}f}"


def _interval(row: dict) -> str:
    if math.isnan(row["difference"]):
        return "–"
    difference, low, high = (_value(row[i], row["metric"]) for i in ("difference", "low", "high"))
    return difference if math.isnan(row["low"]) else f"{difference} [{low}, {high}]"


def _p_value(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [[i.replace("|", r"\|") for i in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * i for i in widths])
    cells = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _markdown_bold(text: str) -> str:
    return f"**{text}**"


def _latex(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(i, i) for i in text)


def _latex_mean(comparison: Comparison, metric: str, method: str) -> str:
    text = _mean(comparison, metric, method, lambda i: rf"\textbf{{{i}}}")
    return text.replace("±", r"$\pm$").replace("–", "--")
