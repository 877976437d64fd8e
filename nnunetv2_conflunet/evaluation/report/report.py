"""The report of evaluations: one self-contained HTML page."""

from pathlib import Path
from typing import Any

import pandas as pd
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult
from nnunetv2_conflunet.evaluation.cohort.results import LESIONS_FILE, SUMMARY_FILE, Method
from nnunetv2_conflunet.evaluation.cohort.stored_form import STRATA_COUNTS, STRATA_RATIOS, refuse_edited
from nnunetv2_conflunet.evaluation.cohort.summary import pooled_accuracies
from nnunetv2_conflunet.evaluation.detection.metrics import NAMES
from nnunetv2_conflunet.evaluation.report import figures
from nnunetv2_conflunet.evaluation.report.case_views import STATUS_COLORS, case_view
from nnunetv2_conflunet.evaluation.report.comparison import PAPER_METRICS, Comparison, cohorts_of, compare_methods
from nnunetv2_conflunet.evaluation.report.comparison_tables import FAMILY, accuracy_table, difference_table
from nnunetv2_conflunet.evaluation.report.detection import (
    comparison_table,
    detection_curves,
    detection_rows,
    detection_text,
)
from nnunetv2_conflunet.evaluation.report.tables import (
    ACCURACY_TITLE,
    PRINTED_NUMBERS,
    PRINTED_RATIOS,
    describe_settings,
    dim_of,
    in_units,
    mean_and_std,
    percent,
)
from nnunetv2_conflunet.pictures.images import images_of_cases
from nnunetv2_conflunet.pictures.pages import render_page
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.spreadsheets import read_csv

# In the text of the cases shown.
SHOWN_RATIOS, SHOWN_COUNTS = ("PQ", "F1", "DSC", "Recall_CLU"), ("TP", "FP", "FN", "n_CLU", "n_merging_predictions")
OF_CASE = (*figures.BOXED, *SHOWN_RATIOS, *SHOWN_COUNTS, *figures.COUNTS, *figures.LOADS)
KEY = (("TP", "matched prediction"), ("FP", "prediction without a match"), ("FN", "reference without a match"))
TITLE = "Lesion-level evaluation: "


def make_report(methods: list[Method], *, images: Path | None = None, channel: int = 0, n_cases: int = 2) -> str:
    """One self-contained HTML page.

    Args:
        methods: one or more evaluations, of the same cases and settings.
        images: folder of the images in nnU-Net's naming; None draws the lesions alone.
        channel: of the images, from 0.
        n_cases: number of worst and of best cases to show for each method.

    Raises:
        InputError: an evaluation was edited or cannot be compared, the reader is unknown, or an image, reference or
            prediction is missing.
    """
    for method in methods:
        refuse_edited(method.folder / SUMMARY_FILE, method.summary, method.settings, OF_CASE)
    _refuse_other_ranges(methods)
    notes, tests = [f"{method.name}: {note}" for method in methods for note in method.summary["notes"]], None
    comparison = None
    if len(methods) > 1:
        comparison = compare_methods(methods, list(PAPER_METRICS))
        notes += comparison.notes
        tests = difference_table(comparison)
    return render_page(
        __package__,
        "page.html.jinja",
        title=TITLE + ", ".join(method.name for method in methods),
        subtitle=f"nnunetv2_conflunet {methods[0].summary['version']}. {_describe(methods)}",
        notes=notes,
        metrics=_metric_table(methods),
        tests=tests,
        tests_text=f"Over the cases for which the metric is defined for both methods. {FAMILY}",
        accuracy=_accuracy_table(methods),
        accuracy_title=ACCURACY_TITLE,
        detection=_detection(methods, comparison),
        figures=_figures(methods),
        confluence=_strata_table(methods, "confluence"),
        key=[(name, STATUS_COLORS[name], text) for name, text in KEY],
        cases=[view for method in methods for view in _case_views(method, images, channel, n_cases, len(methods) > 1)],
    )


def _refuse_other_ranges(methods: list[Method]) -> None:
    """The figures have one axis for the strata of all methods."""
    ranges = {method.name: [row["stratum"] for row in method.summary["strata"]["volume"]] for method in methods}
    first, *others = ranges
    if differing := [name for name in others if ranges[name] != ranges[first]]:
        raise InputError(
            f"{first} and {list_some(differing)} were evaluated with different ranges of volumes; evaluate them with "
            "the same --volume_bins_mm3."
        )


def _describe(methods: list[Method]) -> str:
    """The settings behind the results; separately for each method if they differ, as in what was removed."""
    texts = {method.name: describe_settings(method.summary) for method in methods}
    first, *others = set(texts.values())
    return " ".join(f"{name}: {text}" for name, text in texts.items()) if others else first


def _metric_table(methods: list[Method]) -> dict[str, list]:
    names = [
        metric
        for metric in (*PRINTED_RATIOS, *PRINTED_NUMBERS)
        if all(metric in method.summary["mean"] for method in methods)
    ]
    rows = []
    for metric in names:
        cells = []
        for method in methods:
            n, n_cases = method.summary["n"][metric], method.summary["n_cases"]
            cells.append(mean_and_std(method.summary, metric) + ("" if n == n_cases else f" ({n})"))
        rows.append([in_units(metric, methods[0].summary), *cells])
    return {"header": ["metric", *(method.name for method in methods)], "rows": rows}


def _accuracy_table(methods: list[Method]) -> dict[str, list] | None:
    accuracies = {method.name: pooled_accuracies(method.metrics) for method in methods}
    return accuracy_table(accuracies) if all(accuracies.values()) else None


def _detection(methods: list[Method], comparison: Comparison | None) -> dict[str, Any]:
    """Texts, tables and figure of the detection over confidence; nothing where no evaluation has it."""
    by_text: dict[str, list[str]] = {}
    for method in methods:
        by_text.setdefault(detection_text(method.summary), []).append(method.name)
    named = [f"{', '.join(names)}: {text}" for text, names in by_text.items() if text]
    texts = named if len(by_text) > 1 else [text for text in by_text if text]
    cohorts = cohorts_of(methods)
    if not cohorts:
        return {"texts": texts}
    rows = {
        method.name: {row[0]: f"{row[1]} ({row[2]})" for row in detection_rows(method.summary)} for method in methods
    }
    header = ["metric, % (95 % interval)", *(name for name in rows if rows[name])]
    table = {"header": header, "rows": [[name, *(of[name] for of in rows.values() if of)] for name in NAMES]}
    tests = None
    if comparison is not None and comparison.detection is not None:
        tests = comparison_table(comparison.detection)
    source = figures.as_data_uri(detection_curves(cohorts))
    return {"texts": texts, "table": table, "tests": tests, "source": source}


def _strata_table(methods: list[Method], kind: str) -> dict[str, list]:
    rows = []
    for method in methods:
        for row in method.summary["strata"][kind]:
            name = row["stratum"] if len(methods) == 1 else f"{method.name}, {row['stratum']}"
            counts, ratios = (row[column] for column in STRATA_COUNTS), (percent(row[ratio]) for ratio in STRATA_RATIOS)
            rows.append([name, *counts, *ratios])
    return {"header": ["lesions", *STRATA_COUNTS, *STRATA_RATIOS], "rows": rows}


def _figures(methods: list[Method]) -> list[dict[str, str]]:
    metrics = {method.name: method.metrics for method in methods}
    strata = {method.name: method.summary["strata"]["volume"] for method in methods}
    drawn = (
        (
            "Cases",
            figures.box_plots(metrics),
            "Box: quartiles and median; whiskers: the last case within 1.5 interquartile ranges; dots: cases.",
        ),
        (
            in_units("Detection by lesion volume", methods[0].summary),
            figures.detection_by_volume(strata),
            "Pooled over the lesions of all cases; recall of reference lesions, precision of predicted ones.",
        ),
        (
            "Agreement of counts and loads (Bland and Altman)",
            figures.bland_altman(metrics, dim_of(methods[0].summary)),
            "Line: mean difference; dashes: limits of agreement, 1.96 standard deviations around it.",
        ),
    )
    return [{"title": title, "source": figures.as_data_uri(figure), "text": text} for title, figure, text in drawn]


def _case_views(method: Method, images: Path | None, channel: int, n_cases: int, several: bool) -> list[dict[str, str]]:
    table = method.folder / LESIONS_FILE
    lesions = read_csv(table)
    try:
        reader = recursive_find_reader_writer_by_name(method.summary["reader"])()
    except RuntimeError as error:
        raise InputError(
            f"{method.folder} was evaluated with {method.summary['reader']}, which is not a reader of nnU-Net; run "
            "nnUNetv2_conflunet_evaluate again."
        ) from error
    ranked = method.metrics["PQ"].dropna().sort_index().sort_values(kind="stable").index
    worst, best = ranked[:n_cases], ranked[max(n_cases, len(ranked) - n_cases) :][::-1]
    views = []
    for name, rank in (dict.fromkeys(worst, "worst") | dict.fromkeys(best, "best")).items():
        case, of_case = method.cases[name], _lesions_of(method.cases[name], lesions, table)
        ratios = ", ".join(f"{metric} {percent(case.metrics[metric])} %" for metric in SHOWN_RATIOS)
        counts = ", ".join(f"{metric} {case.metrics[metric]}" for metric in SHOWN_COUNTS)
        ending = Path(case.reference_file).name.removeprefix(name)
        background = None if images is None else (images_of_cases(images, [name], ending)[name], channel)
        figure = case_view(case, of_case, background, reader)
        title = f"{name} ({rank}{', ' + method.name if several else ''})"
        views.append({"title": title, "text": f"{ratios}; {counts}", "source": figures.as_data_uri(figure)})
    return views


def _lesions_of(case: CaseResult, lesions: pd.DataFrame, table: Path) -> pd.DataFrame:
    """The rows of a case, which must be as many as were counted."""
    if {"case", "side", "id", "status"} <= {*lesions}:
        rows = lesions[lesions["case"] == case.case]
        n_rows = [int((rows["side"] == side).sum()) for side in ("reference", "prediction")]
        if n_rows == [case.metrics["n_reference"], case.metrics["n_prediction"]]:
            return rows
    raise InputError(
        f"{table} does not hold the lesions of case {case.case} that were evaluated; was it edited, or saved by a "
        "spreadsheet program? Run nnUNetv2_conflunet_evaluate again, or show no cases with --n_cases 0."
    )
