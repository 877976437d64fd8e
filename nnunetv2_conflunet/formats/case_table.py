"""Tables by which users assign something to each case."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.spreadsheets import parsed


def read_case_table(
    path: Path, cases: Iterable[str], required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, dict[str, str]]:
    """Read a table with the column `case` and others.

    Args:
        path: a CSV file, or a tab-separated one if it ends with ``.tsv``.
        cases: the cases that must be in it; further ones are ignored.
        required: columns in which every case has a text.
        optional: columns that may be absent or empty.

    Returns:
        For each case its text in each of these columns, without spaces around it; "" if there is none.

    Raises:
        InputError: the table cannot be read, or lacks a column, a case or a text, or names a case twice.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.csv").write_text("case,subject\\nms_1, 01\\n")
    ...     read_case_table(Path(folder, "a.csv"), ["ms_1"], ["subject"], ["session"])
    {'ms_1': {'subject': '01', 'session': ''}}
    """
    table = read_texts(path)
    if lacking := [name for name in ("case", *required) if name not in table]:
        raise InputError(f"{path} has no column {list_some(lacking)}, only {list_some(list(table))}.")
    rows = table.apply(lambda column: column.str.strip()).reindex(columns=["case", *required, *optional], fill_value="")
    cases = list(cases)
    rows = rows[rows["case"].isin(cases)]
    if twice := rows["case"][rows["case"].duplicated()].tolist():
        raise InputError(f"{path} has several rows for {list_some(twice)}; leave one of each.")
    found = rows.set_index("case").to_dict("index")
    if missing := [case for case in cases if case not in found]:
        raise InputError(f"{path} has no row for {list_some(missing)}; add one for each case.")
    for name in required:
        if empty := [case for case in cases if not found[case][name]]:
            raise InputError(f"{path} has nothing in the column {name} for {list_some(empty)}; fill it in.")
    return {case: found[case] for case in cases}


def read_texts(path: Path) -> pd.DataFrame:
    """Every cell of a CSV or TSV table as the text that stands in the file.

    Raises:
        InputError: the file is missing or not such a table.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; give a CSV or TSV table.")
    try:
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        return parsed(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table in UTF-8 ({error}).") from error
