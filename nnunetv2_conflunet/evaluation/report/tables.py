"""Tables for the terminal."""

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nnunetv2_conflunet.evaluation.cohort.settings import ADDED
from nnunetv2_conflunet.evaluation.metrics.accuracy import ACCURACIES, MEAN_ACCURACY
from nnunetv2_conflunet.evaluation.metrics.formulas import DISTANCES, F_BETA, RATIOS
from nnunetv2_conflunet.evaluation.metrics.published import FURTHER, FURTHER_RATIOS
from nnunetv2_conflunet.evaluation.metrics.unknown import OF_UNKNOWN
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS, SizeLimits

# Ratios in the order of the paper's table, followed by additional ones.
PRINTED_RATIOS = (
    *("Precision", "Recall", "F1", "Recall_CLU", "Precision_CLU", "F1_CLU"),
    *("DSC", "nDSC", "DSC_TP", "DSC_TP_CLU", "PQ", "SQ", "RQ", "PQ_CLU", "NSD", *F_BETA, *FURTHER_RATIOS),
)
PRINTED_NUMBERS = (
    *("DiC", "count_difference", "n_reference", "n_prediction", "TP", "FP", "FN", "n_CLU", "TP_CLU"),
    *(f"n_CLU{suffix}" for suffix in FURTHER),
    *("n_merging_predictions", "n_merged_references", "n_split_references", "n_splitting_predictions"),
    *("load_reference_mm3", "load_prediction_mm3", "load_error_mm3", "FP_volume_mm3", "FN_volume_mm3"),
    *DISTANCES,
    *OF_UNKNOWN,
)

ACCURACY_TITLE = "AP without confidence: TP / (TP + FP + FN) by IoU"
ACCURACY_LABELS = {name: f"{threshold:.2f}" for name, threshold in ACCURACIES.items()} | {MEAN_ACCURACY: "mean"}


def percent(value: float | None) -> str:
    """A ratio in %, or a dash where it is undefined.

    >>> percent(0.5), percent(-0.0004), percent(math.nan)
    ('50.0', '0.0', '–')
    """
    return "–" if value is None or math.isnan(value) else number(100.0 * value)


def number(value: float | None, decimals: int = 1) -> str:
    """A number with its decimals, an integer without, or a dash where it is undefined.

    >>> number(1234.56), number(3)
    ('1,234.6', '3')
    """
    if value is None or math.isnan(value):
        return "–"
    # Adding 0 turns -0.0 into 0.0.
    return f"{value}" if isinstance(value, int) else f"{round(value, decimals) + 0.0:,.{decimals}f}"


def printed(name: str, value: float) -> str:
    """The value of a metric as printed in tables: ratios in %, distances with two decimals."""
    if name in RATIOS:
        return percent(value)
    return number(value, 2 if name in DISTANCES else 1)


def heading(metric: str) -> str:
    """The name of a metric with its unit."""
    return f"{metric} (%)" if metric in RATIOS else metric


def mean_and_std(summary: dict, name: str) -> str:
    """``mean ± std`` of a metric as the paper prints it, a dash where it is undefined."""
    mean, std = printed(name, summary["mean"][name]), printed(name, summary["std"][name])
    return mean if mean == "–" else f"{mean} ± {std}"


def dim_of(summary: dict) -> int:
    """Number of image axes in an evaluation; an earlier version did not store it."""
    return summary.get("dim", 3)


def in_units(text: str, summary: dict) -> str:
    """A name or heading, with area instead of volume for 2D images."""
    return text.replace("mm3", "mm2").replace("mm³", "mm²").replace("volume", "area") if dim_of(summary) == 2 else text


def print_summary(summary: dict, title: str) -> None:
    """Print the metrics of a folder, its strata and its notes."""
    console = Console()
    table = Table("metric", title=escape(title), caption=describe_settings(summary), caption_justify="left")
    for column in ("mean ± std", "cases", "pooled"):
        table.add_column(column, justify="right")
    for names in (PRINTED_RATIOS, PRINTED_NUMBERS):
        for name in (known for known in names if known in summary["mean"]):
            label = in_units(heading(name), summary)
            pooled = printed(name, summary["pooled"][name]) if name in summary["pooled"] else ""
            table.add_row(label, mean_and_std(summary, name), str(summary["n"][name]), pooled)
        table.add_section()
    console.print(table)
    header, rows = accuracy_rows(summary)
    if rows:
        title = f"{ACCURACY_TITLE}, %"
        table = Table(title=title, min_width=len(title))
        for name in header:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for kind, rows in summary["strata"].items():
        console.print(_strata(in_units(kind, summary), rows))
    for note in summary["notes"]:
        console.print(f"Note: {note}", highlight=False, markup=False)


def accuracy_rows(summary: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of AP without confidence by IoU; an evaluation of an earlier version has no row."""
    rows = []
    for name, label in ACCURACY_LABELS.items():
        if name in summary["mean"]:
            per_case, n = mean_and_std(summary, name), str(summary["n"][name])
            rows.append([label, percent(summary["pooled"][name]), per_case, n])
    return ["IoU", "pooled", "mean ± std", "cases"], rows


def _strata(kind: str, rows: list[dict]) -> Table:
    table = Table(f"lesions by {kind}", title="Pooled over the lesions of all cases, %")
    ratios, counts = ("Recall", "Precision", "PQ"), ("n_reference", "n_prediction")
    for column in (*ratios, *counts):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["stratum"], *(percent(row[ratio]) for ratio in ratios), *(str(row[count]) for count in counts)
        )
    return table


def describe_settings(summary: dict) -> str:
    """The settings behind a summary, in one line."""
    settings = ADDED | summary["settings"]
    limits = SizeLimits(**{name: settings[name] for name in LIMITS}).describe(dim_of(summary))
    connectivity = "6 and 26" if settings["clu"] == "published" else settings["connectivity"]
    removed = ", ".join(f"{report['n_instances_removed']} of the {side}" for side, report in summary["removed"].items())
    return (
        f"{summary['n_cases']} cases; matching '{settings['matching']}', IoU > {settings['iou_threshold']:g}; CLU "
        f"'{settings['clu']}', connectivity {connectivity}; undefined ratios '{settings['undefined']}'; "
        + (f"beta {settings['beta']:g}; " if settings["beta"] is not None else "")
        + (f"instances below {limits} removed: {removed}." if summary["removed"] else "no size filter.")
    )
