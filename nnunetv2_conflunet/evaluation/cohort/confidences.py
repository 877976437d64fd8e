"""The confidences of predicted lesions, from the lesion table beside an instance map."""

from pathlib import Path

import numpy as np
import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.pairing import Pair
from nnunetv2_conflunet.utilities.errors import InputError, join_faults, list_some
from nnunetv2_conflunet.utilities.spreadsheets import parsed

COLUMN = "confidence"
REMEDY = (
    "Prediction writes tables with the confidence of every lesion; for other maps, nnUNetv2_conflunet_instantiate "
    "--overwrite does, from a prediction made with --save_probabilities"
)


def table_of(pair: Pair) -> Path | None:
    """The lesion table beside the predicted map of a case; None without a prediction."""
    return None if pair.prediction is None else pair.prediction.parent / f"{pair.case}.csv"


def refuse_places_of_tables(files: list[Path], pairs: list[Pair]) -> None:
    """Raise an InputError if results would replace the lesion table of a case, as of one that is called ``lesions``.

    >>> refuse_places_of_tables([Path("out/lesions.csv")], [Pair("a", Path("a.nii.gz"), Path("out/a.nii.gz"))])
    """
    tables = {table.absolute() for table in map(table_of, pairs) if table is not None}
    if taken := [str(file) for file in files if file.absolute() in tables]:
        raise InputError(f"{list_some(taken)} is the place of a case's lesion table; name another folder with -o.")


def read_confidences(table: Path) -> pd.Series:
    """The confidence of each lesion in the table, by its id; NaN where it has none. Rows without an id are ignored.

    Raises:
        InputError: there is no table, it lacks a column, or it lists a lesion twice.
    """
    if not table.is_file():
        raise InputError("there is no lesion table beside the map")
    try:
        content = parsed(table)
    except (OSError, ValueError) as error:
        raise InputError(f"the lesion table cannot be read ({type(error).__name__}: {error})") from error
    if missing := [column for column in ("id", COLUMN) if column not in content]:
        raise InputError(f"the lesion table has no column {list_some(missing)}, only {list_some(list(content))}")
    content = content.dropna(subset="id")
    if content["id"].duplicated().any():
        raise InputError("the lesion table lists a lesion twice")
    confidence = pd.to_numeric(content[COLUMN], errors="coerce").astype(float)
    return pd.Series(confidence.to_numpy(), index=content["id"].to_numpy())


def confidences_of(pair: Pair, ids: np.ndarray) -> np.ndarray:
    """(P,) float64, the confidence of each predicted lesion of a case.

    Args:
        pair: the files of the case; without a prediction there are no lesions.
        ids: (P,) those of the map that count.

    Raises:
        InputError: as :func:`read_confidences`, or the table lacks a lesion of the map, or its confidence.
    """
    table = table_of(pair)
    if table is None:
        return np.zeros(0)
    confidences = read_confidences(table)
    if lacking := [int(i) for i in ids if i not in confidences.index]:
        raise InputError(f"the lesion table lacks the lesions {list_some(lacking)} of the map")
    found = confidences.loc[ids].to_numpy()
    if unsure := ids[~np.isfinite(found)].tolist():
        raise InputError(f"the lesion table has no finite confidence of the lesions {list_some(unsure)} of the map")
    return found


def refuse_without_confidences(faults: dict[str, str]) -> None:
    """Raise an InputError that names the cases without usable confidences, if there are any, and what to do.

    >>> refuse_without_confidences({})
    """
    if faults:
        raise InputError(f"FROC and AP need the confidence of every predicted lesion. {join_faults(faults)}. {REMEDY}.")


def check_tables(pairs: list[Pair]) -> None:
    """Refuse predictions whose lesion tables have no confidences before any map is read.

    Raises:
        InputError: it names the cases, what is wrong, and what to do.
    """
    faults = {}
    for pair in pairs:
        table = table_of(pair)
        try:
            if table is not None:
                read_confidences(table)
        except InputError as error:
            faults[pair.case] = str(error)
    refuse_without_confidences(faults)
