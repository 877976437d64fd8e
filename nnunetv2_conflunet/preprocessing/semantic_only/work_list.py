"""The work list: unknown components of all cases, the largest first, with a position to look at."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.pictures.sections import FILE_AXES
from nnunetv2_conflunet.preprocessing.semantic_only.components import Components, ComponentSettings
from nnunetv2_conflunet.utilities.spreadsheets import as_csv

WORK_LIST = "unknown_components.csv"
# The first columns, by which a file is recognized as a work list.
FIRST_COLUMNS = ("case", "component", "n_voxels", "volume_mm3", "area_mm2")


def component_table(case: str, components: np.ndarray, geometry: Geometry, settings: ComponentSettings) -> pd.DataFrame:
    """One row for each component of a case.

    Args:
        case: its name.
        components: (X, Y, Z) ids in nnU-Net's axis order, 0 is background.
        geometry: the grid of that array.
        settings: what looks like one lesion.

    Returns:
        The columns `case`, `component` (its id), `n_voxels`, `volume_mm3` (NaN in a plane), `area_mm2` (NaN in a
        volume), `diameter_mm`, `solidity`, `n_maxima`, `known` (whether it looks like one lesion), `why_unknown` (what
        it fails, in words), its center of mass in voxels of the file (`voxel_i/j/k`) and in mm (`world_x/y/z_mm`), and
        `world_convention`, see :class:`Geometry`.

    >>> corner = np.array([[[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 2]]])
    >>> geometry = Geometry.from_properties(corner.shape, {"spacing": (1.0, 1.0, 1.0)})
    >>> component_table("a", corner, geometry, ComponentSettings())[["component", "why_unknown"]].values.tolist()
    [[1, 'solidity'], [2, '']]
    """
    found = Components.measure(components, geometry.spacing_mm, settings.h_maxima_mm)
    faults, nothing = found.faults(settings), np.full(len(found.ids), np.nan)
    voxels, world_mm = geometry.to_file_index(found.center), geometry.to_world_mm(found.center)
    why = [" ".join(name for name in faults if faults[name][i]) for i in range(len(found.ids))]
    columns = {
        "case": np.full(len(found.ids), case, dtype=object),
        "component": found.ids,
        "n_voxels": found.n_voxels,
        "volume_mm3": nothing if geometry.is_plane else found.size,
        "area_mm2": found.size if geometry.is_plane else nothing,
        "diameter_mm": found.diameter_mm,
        "solidity": found.solidity,
        "n_maxima": found.n_maxima,
        "known": found.look_single(settings),
        "why_unknown": np.array(why, dtype=object),
        **{f"voxel_{axis}": voxels[:, i] for i, axis in enumerate(FILE_AXES)},
        **{f"world_{axis}_mm": world_mm[:, i] for i, axis in enumerate("xyz")},
        "world_convention": np.full(len(found.ids), geometry.world, dtype=object),
    }
    return pd.DataFrame(columns)


def joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The tables of all cases as one."""
    tables = list(tables)
    # Columns of empty tables have no types.
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def how_many(table: pd.DataFrame, known: bool) -> str:
    """Number and volume, in planes area, of the known or the unknown components in a table, in words.

    >>> table = pd.DataFrame({"volume_mm3": [900.0, 350.0], "area_mm2": np.nan, "known": [True, False]})
    >>> how_many(table, known=True)
    '1 components (0.9 mL)'
    """
    chosen = table[table["known"] == known]
    is_plane = table["area_mm2"].notna().any()
    size = f"{chosen['area_mm2'].sum():.0f} mm2" if is_plane else f"{chosen['volume_mm3'].sum() / 1000:.1f} mL"
    return f"{len(chosen)} components ({size})"


def work_list(table: pd.DataFrame) -> str:
    """The text of the work list: the unknown components in a table, the largest first."""
    unknown = table[~table["known"]].drop(columns="known")
    size = unknown["volume_mm3"].fillna(unknown["area_mm2"])
    order = pd.DataFrame({"size": -size, "case": unknown["case"], "component": unknown["component"]})
    listed = unknown.loc[order.sort_values(["size", "case", "component"]).index]
    return as_csv(listed, float_format="%.7g", na_rep="NaN")
