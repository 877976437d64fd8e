"""The report of evaluations: one self-contained HTML page."""

from pathlib import Path
from typing import Any

import pandas as pd
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunetv2_conflunet.evaluation.cohort.spreadsheets import read_csv
from nnunetv2_conflunet.evaluation.cohort.summary import LESIONS_FILE
from nnunetv2_conflunet.evaluation.report import figures
from nnunetv2_conflunet.evaluation.report.case_views import STATUS_COLOURS, case_view
from nnunetv2_conflunet.evaluation.report.comparison import PAPER_METRICS, Method, compare_methods
from nnunetv2_conflunet.evaluation.report.comparison_tables import FAMILY, difference_table
from nnunetv2_conflunet.evaluation.report.page import render_page
from nnunetv2_conflunet.evaluation.report.tables import (
    PRINTED_NUMBERS,
    PRINTED_RATIOS,
    describe_settings,
    dim_of,
    in_units,
    mean_and_std,
    percent,
)
from nnunetv2_conflunet.utilities.errors import InputError

STRATA_COLUMNS = ("n_reference", "n_prediction", "Recall", "Precision", "SQ", "PQ")
KEY = (("TP", "matched prediction"), ("FP", "prediction without a match"), ("FN", "reference without a match"))
TITLE = "Lesion-level evaluation: "


def make_report(methods: list[Method], *, images: Path | None = None, n_cases: int = 2) -> str:
    """One self-contained HTML page.

    Args:
        methods: evaluations, of the same patients and settings where there are several.
        images: folder of the images in nnU-Net's naming; the first channel is drawn. None draws the lesions alone.
        n_cases: how many of the worst and of the best patients to show for each method.

    Raises:
        InputError: evaluations that cannot be compared, an unknown reader, or an image, reference or prediction that is
            not there.
    """
    metrics = {i.name: i.metrics for i in methods}
    notes, tests = [f"{i.name}: {note}" for i in methods for note in i.summary["notes"]], None
    if len(methods) > 1:
        comparison = compare_methods(methods, list(PAPER_METRICS))
        notes += comparison.notes
        tests = dict(zip(("header", "rows"), difference_table(comparison), strict=True))
    return render_page(
        title=TITLE + ", ".join(metrics),
        subtitle=f"nnunetv2_conflunet {methods[0].summary['version']}. {_describe(methods)}",
        notes=notes,
        metrics=_metric_table(methods),
        tests=tests,
        tests_text=f"Over the cases for which both methods define the metric. {FAMILY}",
        figures=_figures(methods, metrics),
        confluence=_strata_table(methods, "confluence"),
        key=[(name, STATUS_COLOURS[name], text) for name, text in KEY],
        cases=[view for i in methods for view in _case_views(i, images, n_cases, len(methods) > 1)],
    )


def _describe(methods: list[Method]) -> str:
    """What the numbers stand on, for each method by itself where that differs, such as in what was removed."""
    texts = [describe_settings(i.summary) for i in methods]
    if len(set(texts)) == 1:
        return texts[0]
    return " ".join(f"{method.name}: {text}" for method, text in zip(methods, texts, strict=True))


def _metric_table(methods: list[Method]) -> dict[str, list]:
    names = [i for i in (*PRINTED_RATIOS, *PRINTED_NUMBERS) if all(i in method.summary["mean"] for method in methods)]
    rows = []
    for name in names:
        cells = []
        for method in methods:
            n, n_cases = method.summary["n"][name], method.summary["n_cases"]
            cells.append(mean_and_std(method.summary, name) + ("" if n == n_cases else f" ({n})"))
        rows.append([in_units(name, methods[0].summary), *cells])
    return {"header": ["metric", *(i.name for i in methods)], "rows": rows}


def _strata_table(methods: list[Method], kind: str) -> dict[str, list]:
    rows = []
    for method in methods:
        for row in method.summary["strata"][kind]:
            counts, ratios = STRATA_COLUMNS[:2], STRATA_COLUMNS[2:]
            name = row["stratum"] if len(methods) == 1 else f"{method.name}, {row['stratum']}"
            rows.append([name, *(row[i] for i in counts), *(percent(row[i]) for i in ratios)])
    return {"header": ["lesions", *STRATA_COLUMNS], "rows": rows}


def _figures(methods: list[Method], metrics: dict[str, pd.DataFrame]) -> list[dict[str, str]]:
    strata = {i.name: i.summary["strata"]["volume"] for i in methods}
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
    return [{"title": title, "source": figures.as_data_uri(i), "text": text} for title, i, text in drawn]


def _case_views(method: Method, images: Path | None, n_cases: int, several: bool) -> list[dict[str, str]]:
    lesions = read_csv(method.folder / LESIONS_FILE)
    try:
        reader = recursive_find_reader_writer_by_name(method.summary["reader"])()
    except RuntimeError as error:
        raise InputError(
            f"{method.folder} was evaluated with {method.summary['reader']}, which is no reader of nnU-Net; run "
            "nnUNetv2_conflunet_evaluate again."
        ) from error
    ranked = method.metrics["PQ"].dropna().sort_index().sort_values(kind="stable").index
    worst, best = ranked[:n_cases], ranked[max(n_cases, len(ranked) - n_cases) :][::-1]
    chosen = dict.fromkeys(worst, "worst") | dict.fromkeys(best, "best")
    entries = {i["case"]: i for i in method.summary["metric_per_case"]}
    views = []
    for case, rank in chosen.items():
        metrics = entries[case]["metrics"]
        ratios = ", ".join(f"{i} {percent(metrics[i])} %" for i in ("PQ", "F1", "DSC", "Recall_CLU"))
        counts = ", ".join(f"{i} {metrics[i]}" for i in ("TP", "FP", "FN", "n_CLU", "n_merging_predictions"))
        figure = case_view(
            entries[case], lesions[lesions["case"] == case], _image_of(case, entries[case], images), reader
        )
        title = f"{case} ({rank}{', ' + method.name if several else ''})"
        views.append({"title": title, "text": f"{ratios}; {counts}", "source": figures.as_data_uri(figure)})
    return views


def _image_of(case: str, entry: dict[str, Any], images: Path | None) -> Path | None:
    ending = Path(entry["reference_file"]).name.removeprefix(case)
    return None if images is None else images / f"{case}_0000{ending}"
