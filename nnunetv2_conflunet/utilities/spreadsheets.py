"""CSV files whose names cannot act as spreadsheet formulas."""

import csv
import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_conflunet.utilities.errors import InputError

# Columns with names chosen by users.
NAMES = ("case", "first", "second")
# Spreadsheets execute cells that begin like this; a leading apostrophe makes them text (OWASP, CSV injection).
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def as_csv(table: pd.DataFrame, **options: Any) -> str:
    """The text of a CSV file, with an apostrophe before each name that a spreadsheet would execute.

    Args:
        table: its index is not written.
        options: of :meth:`pandas.DataFrame.to_csv`.

    >>> as_csv(pd.DataFrame({"case": ["=1+2", "MS_1"]}))
    "case\\n'=1+2\\nMS_1\\n"
    """
    names = [column for column in NAMES if column in table]
    # A carriage return ends a line for readers, but pandas does not quote a cell for its sake.
    ends_line = any(table[column].astype(str).str.contains("\r", regex=False).any() for column in names)
    quoting = csv.QUOTE_NONNUMERIC if ends_line else csv.QUOTE_MINIMAL
    safe = table.assign(**{column: table[column].map(_as_text) for column in names})
    return safe.to_csv(index=False, quoting=quoting, **options)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table written with :func:`as_csv` and restore the names.

    Raises:
        InputError: the file is missing or is not a table.
    """
    try:
        # "NA" is a valid name; undefined values are empty.
        table = parsed(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be read ({reason}); run nnUNetv2_conflunet_evaluate again.") from error
    return table.assign(**{column: table[column].map(_as_name) for column in NAMES if column in table})


def parsed(path: Path, **options: Any) -> pd.DataFrame:
    """:func:`pandas.read_csv`, but rows longer than the header are an error.

    pandas would take their first cells for the names of the rows, and move the others to wrong columns. A separator at
    the end of each row is passed over, unless empty cells are texts.

    Raises:
        ValueError: the file is not such a table.
        OSError: it cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, index_col=False, **options)
        except pd.errors.ParserWarning as warning:
            raise ValueError("its rows have more cells than its header") from warning


def _as_text(name: str) -> str:
    return f"'{name}" if FORMULA.match(name) else name


def _as_name(text: str) -> str:
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
