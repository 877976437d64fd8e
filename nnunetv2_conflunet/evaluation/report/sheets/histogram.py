"""How large the lesions of a case are."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunetv2_conflunet.evaluation.report.figures import COLORS

# Bins of a factor of ten.
BINS_PER_DECADE = 4


def size_histogram(lesions: pd.DataFrame, is_plane: bool) -> Figure:
    """Numbers of lesions by volume, or by area in a plane, on a logarithmic axis.

    Args:
        lesions: at least one row of :func:`.lesion_table.lesion_table`.
        is_plane: whether the image is two-dimensional.

    >>> lesions = pd.DataFrame({"volume_mm3": [10.0, 20.0, 5000.0], "confluent": [False, True, True]})
    >>> size_histogram(lesions, is_plane=False).axes[0].get_xlabel()
    'volume of a lesion in mm³'
    """
    sizes = lesions["area_mm2" if is_plane else "volume_mm3"].to_numpy(float)
    confluent = lesions["confluent"].to_numpy(bool)
    edges = bin_edges(sizes)
    figure = Figure(figsize=(5, 2.8), layout="constrained")
    axes = figure.add_subplot()
    parts = {"alone": sizes[~confluent], "touching another": sizes[confluent]}
    axes.hist(
        list(parts.values()), edges.tolist(), stacked=True, label=list(parts), color=COLORS[:2], edgecolor="white"
    )
    axes.set_xscale("log")
    axes.set(xlabel="area of a lesion in mm²" if is_plane else "volume of a lesion in mm³", ylabel="lesions")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if confluent.any():
        axes.legend(frameon=False)
    return figure


def bin_edges(sizes: np.ndarray) -> np.ndarray:
    """Edges on a logarithmic axis that hold all sizes: powers of ten, and three steps between two of them.

    >>> bin_edges(np.array([9.0, 11.0])).round(2).tolist()
    [5.62, 10.0, 17.78]
    """
    steps = np.log10(sizes) * BINS_PER_DECADE
    # A size on an edge belongs to the bin above it.
    first, last = np.floor(steps.min() + 1e-9), np.floor(steps.max() + 1e-9) + 1
    return 10 ** (np.arange(first, last + 1) / BINS_PER_DECADE)
