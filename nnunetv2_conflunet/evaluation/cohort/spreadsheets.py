"""CSV files in which no name is a formula to a spreadsheet."""

import re
from pathlib import Path

import pandas as pd

from nnunetv2_conflunet.utilities.errors import InputError

# The columns that hold what users named.
NAMES = ("case", "first", "second")
# Spreadsheets run a cell that begins so, and show one that begins with an apostrophe as text (OWASP, CSV injection).
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before each name that a spreadsheet would run; :func:`read_csv` takes it away.

    >>> without_formulas(pd.DataFrame({"case": ["=1+2", "MS_1"]}))["case"].tolist()
    ["'=1+2", 'MS_1']
    """
    return table.assign(**{column: table[column].map(_as_text) for column in NAMES if column in table})


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table that was written by :func:`without_formulas`, with the true names.

    Raises:
        InputError: the file is missing or is no table.
    """
    try:
        # "NA" is a name; what is undefined is empty.
        table = pd.read_csv(path, dtype=dict.fromkeys(NAMES, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} cannot be read ({reason}); run nnUNetv2_conflunet_evaluate again.") from error
    return table.assign(**{column: table[column].map(_as_name) for column in NAMES if column in table})


def _as_text(name: str) -> str:
    return f"'{name}" if FORMULA.match(name) else name


def _as_name(text: str) -> str:
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
