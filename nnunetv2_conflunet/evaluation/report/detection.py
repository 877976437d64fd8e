"""FROC and average precision in tables and figures, and their comparison between methods."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nnunetv2_conflunet.evaluation.cohort.detection import LEFT_OUT
from nnunetv2_conflunet.evaluation.detection.curves import FALSE_POSITIVE_RATES
from nnunetv2_conflunet.evaluation.detection.metrics import NAMES, RATE_NAMES, Cohort, paired_differences
from nnunetv2_conflunet.evaluation.report.figures import COLORS, as_label
from nnunetv2_conflunet.evaluation.report.tables import percent

# What a comparison tests; the sensitivities at single rates are in the evaluations.
COMPARED = tuple(name for name in NAMES if not name.startswith("Sensitivity"))
HEADING = "Detection over confidence"


def detection_rows(summary: dict) -> list[list[str]]:
    """Name, value and interval in % of each detection metric of a summary; no rows where they are left out.

    >>> detection_rows({"detection": {"metrics": {"FROC": {"value": 0.5, "low": 0.25, "high": math.nan}}}})
    [['FROC', '50.0', '25.0 to –']]
    """
    found = summary.get("detection", {}).get("metrics", {})
    return [
        [name, percent(row["value"]), f"{percent(row['low'])} to {percent(row['high'])}"] for name, row in found.items()
    ]


def detection_text(summary: dict) -> str:
    """How the detection metrics were made, or why they are left out; empty for an earlier version's summary.

    >>> detection_text({})
    ''
    """
    stored = summary.get("detection", {})
    if "metrics" not in stored:
        return stored.get(LEFT_OUT, "")
    return (
        f"FROC: mean sensitivity at {RATE_NAMES[0]} to {RATE_NAMES[-1]} false positives a patient, IoU > "
        f"{stored['iou_threshold']:g}; AP@t: average precision, IoU > t. {stored['n_patients']} patients; 95 % "
        f"bootstrap intervals over patients, {stored['n_resamples']} resamples."
    )


def print_detection(summary: dict) -> None:
    """Print the detection metrics of a folder, or why they are left out."""
    console, text = Console(), detection_text(summary)
    if rows := detection_rows(summary):
        table = Table("metric", title=f"{HEADING}, %", caption=escape(text), caption_justify="left")
        for column in ("value", "95 % interval"):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    elif text:
        console.print(f"Note: {text}", highlight=False, markup=False)


def compare_detection(cohorts: dict[str, Cohort], seed: int = 0) -> pd.DataFrame:
    """The detection metrics of every two methods on the same patients.

    Args:
        cohorts: method -> its cohort; all of the same cases in the same order.
        seed: of the bootstrap.

    Returns:
        One row per metric of :data:`COMPARED` and pair of methods: metric, first, second, and the columns of
        :func:`.paired_differences`.
    """
    rows = []
    for a, b in combinations(cohorts, 2):
        found = paired_differences(cohorts[a], cohorts[b], seed)
        rows += [{"metric": name, "first": a, "second": b, **found[name]} for name in COMPARED]
    table = pd.DataFrame(rows)
    return table.sort_values("metric", key=lambda names: names.map(COMPARED.index), kind="stable", ignore_index=True)


def comparison_table(detection: pd.DataFrame) -> dict[str, list]:
    """``header`` and ``rows`` of :func:`compare_detection`, in %."""
    header = ["metric", "methods", "patients", "first", "second", "difference [95 % interval]"]
    rows = []
    for row in detection.to_dict("records"):
        ends = "" if math.isnan(row["low"]) else f" [{percent(row['low'])}, {percent(row['high'])}]"
        values = percent(row["mean_first"]), percent(row["mean_second"]), percent(row["difference"]) + ends
        rows.append([row["metric"], f"{row['first']} - {row['second']}", str(row["n"]), *values])
    return {"header": header, "rows": rows}


def detection_curves(cohorts: dict[str, Cohort]) -> Figure:
    """FROC and precision over sensitivity, all lesions as lines and confluent ones as dashes.

    Args:
        cohorts: method -> its cohort.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    froc, precision = figure.subplots(1, 2)
    for position, (name, cohort) in enumerate(cohorts.items()):
        curves = cohort.froc.curves(np.ones((1, cohort.n_patients)))
        for suffix, line in (("", "-"), ("_CLU", "--")):
            style = {"color": COLORS[position % len(COLORS)], "linestyle": line, "linewidth": 1.4}
            label = as_label(name) + (", confluent lesions" if suffix else "")
            sensitivity = 100 * curves.sensitivity(suffix)[0]
            false = curves.false_positives()[0]
            # The curve starts without predictions; the last value holds up to the right end.
            reached, found = np.append(0, false), np.append(0, sensitivity)
            end = max(FALSE_POSITIVE_RATES[-1], reached[-1])
            froc.step(np.append(reached, end), np.append(found, found[-1]), where="post", label=label, **style)
            precision.step(sensitivity, 100 * curves.precision(suffix)[0], where="pre", **style)
    low, high = FALSE_POSITIVE_RATES[0], FALSE_POSITIVE_RATES[-1]
    froc.set_xscale("log", base=2)
    froc.set_xticks(FALSE_POSITIVE_RATES, RATE_NAMES)
    froc.set(xlim=(low, high), xlabel="false positives per patient", ylabel="sensitivity in %", title="FROC")
    precision.set(xlim=(0, 102), xlabel="sensitivity in %", ylabel="precision in %", title="Precision over sensitivity")
    for axes in (froc, precision):
        axes.set_ylim(0, 102)
        axes.grid(alpha=0.3)
    figure.legend(*froc.get_legend_handles_labels(), loc="outside upper center", ncols=min(2 * len(cohorts), 4))
    return figure
