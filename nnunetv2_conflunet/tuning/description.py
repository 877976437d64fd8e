"""What a search for settings found, in words."""

from typing import Any

from nnunetv2_conflunet.tuning.scoring import METRICS
from nnunetv2_conflunet.tuning.search import SEARCHED, WITHOUT_EFFECT


def describe(record: dict[str, Any]) -> list[str]:
    """The lines that tell a user what was found, from what :func:`.determine_postprocessing` returned."""
    metric, default, best = record["metric"], record["default"], record["best"]
    shown = [name for name in SEARCHED if name != WITHOUT_EFFECT[record["dim"]]]
    applied = "".join(f" after nnU-Net's {i['function']}" for i in record["stock_postprocessing"])
    lines = [
        f"{record['n_cases']} cases of folds {' '.join(record['folds'])}{applied}.",
        f"default: {_values(default['settings'], shown)}: mean {_metrics(default)}",
        f"best:    {_values(best['settings'], shown)}: mean {_metrics(best)}",
        f"Cases held out from the choice: mean {metric} {record['held_out']:.4f}.",
    ]
    low, high = record["interval_95"]
    found = f"{metric} {record['difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f} over cases)"
    lines.append(
        {
            "default is best": "No point of the grid is better than the default, which stays.",
            "default within the noise": f"{found}: the default is as good within the noise, and stays.",
            "tuned": f"{found}: the best point is the choice.",
        }[record["decision"]]
    )
    if record["ends_reached"]:
        lines.append(f"The best {' and '.join(record['ends_reached'])} ends its list; a wider list may hold better.")
    return [*lines, *_describe_merging(record["merging"], metric)]


def _describe_merging(merging: dict[str, Any] | None, metric: str) -> list[str]:
    if merging is None:
        return []
    pairs = f"{merging['n_pairs']} pairs of touching pieces, {merging['n_pairs_of_one_lesion']} of them of one lesion"
    if merging["decision"] == "too few pairs":
        return [f"Merging: {pairs}: too few to learn when to merge them."]
    low, high = merging["interval_95"]
    found = f"{metric} {merging['difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f} over cases)"
    means = f"without {_metrics(merging['without'])}; best {_metrics(merging['best'])}"
    decision = {
        "no merging is best": "nothing is merged",
        "no merging within the noise": f"{found}: as good within the noise, nothing is merged",
        "merging": f"{found}: learned, and the choice",
    }[merging["decision"]]
    return [f"Merging, on cases held out: {pairs}; {means}. {decision}."]


def _values(settings: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {settings[name]:g}" for name in names)


def _metrics(point: dict[str, Any]) -> str:
    return ", ".join(f"{name} {point[name]:.4f}" for name in METRICS)
