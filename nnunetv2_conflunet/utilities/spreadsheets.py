"""CSV files whose names cannot act as spreadsheet formulas."""

import re
from pathlib import Path

import pandas as pd

from nnunetv2_conflunet.utilities.errors import InputError

# Columns with names chosen by users.
NAMES = ("case", "first", "second")
# Spreadsheets execute cells that begin like this; a leading apostrophe makes them text (OWASP, CSV injection).
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each name that a spreadsheet would execute; :func:`read_csv` removes it.

    >>> without_formulas(pd.DataFrame({"case": ["=1+2", "MS_1"]}))["case"].tolist()
    ["'=1+2", 'MS_1']
    """
    return table.assign(**{column: table[column].map(_as_text) for column in NAMES if column in table})


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table written with :func:`without_formulas` and restore the names.

    Raises:
        InputError: the file is missing or is not a table.
    """
    try:
        # "NA" is a valid name; undefined values are empty.
        table = pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be read ({reason}); run nnUNetv2_conflunet_evaluate again.") from error
    return table.assign(**{column: table[column].map(_as_name) for column in NAMES if column in table})


def _as_text(name: str) -> str:
    return f"'{name}" if FORMULA.match(name) else name


def _as_name(text: str) -> str:
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
