"""The files of an evaluation, written and read back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult, case_table
from nnunetv2_conflunet.evaluation.cohort.settings import ADDED
from nnunetv2_conflunet.evaluation.cohort.stored_form import is_comparable
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import json_text, read_json, write_texts
from nnunetv2_conflunet.utilities.spreadsheets import as_csv

SUMMARY_FILE, CASES_FILE, LESIONS_FILE = "summary_instances.json", "cases.csv", "lesions.csv"


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


def result_files(folder: Path) -> list[Path]:
    """The files of :func:`write_results`."""
    return [folder / name for name in (SUMMARY_FILE, CASES_FILE, LESIONS_FILE)]


def write_results(folder: Path, summary: dict, cases: list[CaseResult], lesions: pd.DataFrame) -> list[Path]:
    """Write ``summary_instances.json``, ``cases.csv`` and ``lesions.csv``: all of them or none."""
    # The summary, which marks an evaluation, comes last.
    summary_file, *table_files = files = result_files(folder)
    tables = (as_csv(table) for table in (case_table(cases), lesions))
    write_texts({**dict(zip(table_files, tables, strict=True)), summary_file: json_text(summary)})
    return files


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
        if not is_comparable(content):
            raise InputError(f"{file} is not a summary by nnUNetv2_conflunet_evaluate.")
        cases = {entry["case"]: CaseResult.from_json(entry) for entry in content["metric_per_case"]}
        rows = {case: result.metrics for case, result in cases.items()}
        metrics = pd.DataFrame.from_dict(rows, orient="index").astype(float)
        methods.append(Method(name, file.parent, cases, metrics, content))
    return methods


def _folder_names(folders: list[Path]) -> list[str]:
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [f"{folder.parent.name}/{folder.name}" for folder in folders]
