"""How well `nnUNetv2_conflunet_prepare --unknown_components` finds the components that are one lesion.

    python benchmarks/unknown_components.py MAPS [MAPS ...]

Each folder holds instance maps (NIfTI) whose lesions are known. Their connected components (26 neighbors) are judged by
shape alone, and the verdict is compared with the number of lesions in each. Seconds are those of one process.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from tqdm import tqdm

from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.preprocessing.conversion import label_components
from nnunetv2_conflunet.preprocessing.semantic_only.components import ComponentSettings
from nnunetv2_conflunet.preprocessing.semantic_only.work_list import component_table
from nnunetv2_conflunet.utilities.options import add_options, chosen

COLUMNS = (
    "maps",
    "components (of several lesions)",
    "of these known",
    "precision, %",
    "recall, %",
    "precision by volume, %",
    "recall by volume, %",
    "volume known, %",
    "seconds per map, median (most)",
)


def judged(file: Path, settings: ComponentSettings) -> tuple[pd.DataFrame, float]:
    """The components of one map, with `is_single`, and the seconds that judging them took."""
    instances, properties = read_instances(file, SimpleITKIO())
    start = time.process_time()
    components = label_components((instances > 0).astype(np.uint8), foreground_labels=(1,))
    geometry = Geometry.from_properties(components.shape, properties)
    table = component_table(file.name, components, geometry, settings)
    seconds = time.process_time() - start
    inside = instances > 0
    pairs = np.unique(np.stack([components[inside], instances[inside]]), axis=1)
    ids, n_lesions = np.unique(pairs[0], return_counts=True)
    return table.assign(is_single=n_lesions[np.searchsorted(ids, table["component"])] == 1), seconds


def row(folder: Path, settings: ComponentSettings) -> str:
    """One row of the table of results."""
    files = sorted(folder.glob("*.nii.gz"))
    results = [judged(file, settings) for file in tqdm(files, desc=folder.name)]
    table, seconds = pd.concat([table for table, _ in results]), [seconds for _, seconds in results]
    known, single, volume = table["known"], table["is_single"], table["volume_mm3"]
    both = known & single
    cells = [
        f"{folder}",
        f"{len(table)} ({(~single).sum()})",
        f"{(known & ~single).sum()}",
        f"{100 * both.sum() / known.sum():.1f}",
        f"{100 * both.sum() / single.sum():.1f}",
        f"{100 * volume[both].sum() / volume[known].sum():.1f}",
        f"{100 * volume[both].sum() / volume[single].sum():.1f}",
        f"{100 * volume[known].sum() / volume.sum():.1f}",
        f"{np.median(seconds):.2f} ({max(seconds):.2f})",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="MAPS")
    add_options(parser, ComponentSettings)
    args = parser.parse_args()
    settings = ComponentSettings(**chosen(ComponentSettings, args))
    rows = [row(folder, settings) for folder in args.folders]
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
