"""Figures of an evaluation: distributions, detection by volume, agreement of counts and loads."""

import base64
import io
from collections.abc import Collection, Iterator
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

# Okabe and Ito's colors, which readers with color vision deficiencies can distinguish.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
BOXED = ("Precision", "Recall", "F1", "DSC", "DSC_TP", "PQ", "Recall_CLU", "PQ_CLU")
# Of predictions and of references.
COUNTS, LOADS = ("n_prediction", "n_reference"), ("load_prediction_mm3", "load_reference_mm3")
# Width of the boxes or bars of all methods together, relative to the distance between two ticks.
FILLED = 0.8


def box_plots(metrics: dict[str, pd.DataFrame]) -> Figure:
    """Box plots over cases: one box per method and metric, one dot per case.

    Args:
        metrics: method -> one row per case, one column per metric.

    >>> metrics = {"CC": pd.DataFrame(0.5, index=["a", "b"], columns=BOXED)}
    >>> len(box_plots(metrics).axes[0].patches)
    8
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes, width = figure.add_subplot(), FILLED / len(metrics)
    for name, color, offset in _beside_each_other(metrics):
        positions = np.arange(len(BOXED)) + offset
        values = [100 * metrics[name][metric].dropna().to_numpy() for metric in BOXED]
        drawn = axes.boxplot(
            values, positions=positions, widths=0.85 * width, showfliers=False, patch_artist=True,
            boxprops={"facecolor": color, "alpha": 0.35}, medianprops={"color": "black"},
        )  # fmt: skip
        drawn["boxes"][0].set_label(as_label(name))
        # Dots are spread sideways, so that equal values stay visible.
        for position, column in zip(positions, values, strict=True):
            spread = np.linspace(-0.25, 0.25, len(column)) * width if len(column) > 1 else np.zeros(len(column))
            axes.plot(position + spread, column, ".", color=color, markersize=4)
    axes.set_xticks(range(len(BOXED)), [f"{metric}\nn = {_counts(metrics, metric)}" for metric in BOXED])
    axes.set(ylabel="%", ylim=(-3, 103))
    axes.grid(axis="y", alpha=0.3)
    _name_methods(figure, len(metrics))
    return figure


def detection_by_volume(strata: dict[str, list[dict]]) -> Figure:
    """Recall and precision in each volume range, with the number of lesions.

    Args:
        strata: method -> rows of :func:`.summary.strata_by_volume`.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    names = [row["stratum"] for row in next(iter(strata.values()))]
    size = "area in mm²" if any(name.endswith(" mm2") for name in names) else "volume in mm³"
    names = [name.removesuffix(" mm2").removesuffix(" mm3") for name in names]
    for axes, ratio, count in zip(
        figure.subplots(1, 2, sharey=True), ("Recall", "Precision"), ("n_reference", "n_prediction"), strict=True
    ):
        for name, color, offset in _beside_each_other(strata):
            heights = [100 * np.nan_to_num(row[ratio]) for row in strata[name]]
            positions, width = np.arange(len(heights)) + offset, 0.9 * FILLED / len(strata)
            bars = axes.bar(positions, heights, width, color=color, alpha=0.7, label=as_label(name))
            axes.bar_label(bars, [str(row[count]) for row in strata[name]], fontsize=7)
        axes.set_xticks(range(len(names)), names)
        # Keep the place of ranges without lesions.
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set(xlabel=f"lesion {size}", title=f"{ratio} (number: lesions)", ylim=(0, 108))
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("%")
    _name_methods(figure, len(strata))
    return figure


def bland_altman(metrics: dict[str, pd.DataFrame], dim: int = 3) -> Figure:
    """Differences of lesion counts and loads against their means, with bias and limits of agreement (1.96 std)."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    load, per_unit = ("lesion area in mm²", 1.0) if dim == 2 else ("lesion load in mL", 1000.0)
    quantities = (
        ("number of lesions", *COUNTS, 1.0),
        (load, *LOADS, per_unit),
    )
    for axes, (quantity, predicted, referred, unit) in zip(figure.subplots(1, 2), quantities, strict=True):
        for name, color, _ in _beside_each_other(metrics):
            table = metrics[name]
            mean = (table[predicted] + table[referred]) / 2 / unit
            difference = (table[predicted] - table[referred]) / unit
            bias = difference.mean()
            axes.plot(mean, difference, "o", color=color, markersize=4, alpha=0.8, label=as_label(name))
            axes.axhline(bias, color=color, linewidth=1.2)
            if len(difference) > 1:
                for limit in (-1.96, 1.96):
                    axes.axhline(bias + limit * difference.std(), color=color, linewidth=1, linestyle="--")
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel=f"mean of prediction and reference, {quantity}", ylabel="prediction − reference")
        axes.grid(alpha=0.3)
    _name_methods(figure, len(metrics))
    return figure


def as_label(name: str) -> str:
    """A name as matplotlib shows it: dollars enclose no formula, and a leading underscore hides nothing.

    >>> as_label("a$b$"), as_label("_c")
    ('a\\\\$b\\\\$', ' _c')
    """
    return f"{' ' * name.startswith('_')}{name}".replace("$", r"\$")


def as_data_uri(figure: Figure, dpi: int = 130) -> str:
    """The figure as a PNG in a data URI, for embedding in HTML.

    >>> as_data_uri(Figure())[:22]
    'data:image/png;base64,'
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"font.size": 9}):
        figure.savefig(buffer, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _beside_each_other(methods: Collection[str]) -> Iterator[tuple[str, str, float]]:
    """Each method with its color and the offset of its boxes or bars from a tick."""
    offsets = (np.arange(len(methods)) - (len(methods) - 1) / 2) * FILLED / len(methods)
    return zip(methods, cycle(COLORS), offsets.tolist(), strict=False)


def _name_methods(figure: Figure, n_methods: int) -> None:
    """Add a legend above the axes, where it covers no data; none for a single method."""
    if n_methods > 1:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(n_methods, 4), frameon=False)


def _counts(metrics: dict[str, pd.DataFrame], metric: str) -> str:
    counts = [int(table[metric].count()) for table in metrics.values()]
    return str(counts[0]) if len(set(counts)) == 1 else "/".join(map(str, counts))
