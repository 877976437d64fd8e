"""What a search for settings found, in words."""

from typing import Any

from nnunetv2_conflunet.tuning.scoring import METRICS
from nnunetv2_conflunet.tuning.search import SEARCHED, WITHOUT_EFFECT
from nnunetv2_conflunet.utilities.errors import list_some


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
    found = _difference(record, metric)
    lines.append(
        {
            "default is best": "No point of the grid is better than the default, which stays.",
            "default within the noise": f"{found}: the default is as good within the noise, and stays.",
            "tuned": f"{found}: the best point is the choice.",
        }[record["decision"]]
    )
    if record["ends_reached"]:
        lines.append(f"The best {' and '.join(record['ends_reached'])} ends its list; a wider list may hold better.")
    return [*lines, *describe_merging(record["merging"], metric), *_describe_confidence(record["confidence"], metric)]


def describe_merging(merging: dict[str, Any] | None, metric: str) -> list[str]:
    """What was found about merging, in words, from the record of :func:`.choose_merging`; nothing for None."""
    if merging is None:
        return []
    pairs = "; ".join(
        f"pieces by {pieces}: {of['n_pairs']} pairs that touch, {of['n_pairs_of_one_lesion']} of them of one lesion"
        for pieces, of in merging["tried"].items()
    )
    if merging["decision"] == "too few pairs":
        return [f"{pairs}: too few to learn when to merge them."]
    best = merging["best"]
    what = f"pieces by {best['pieces']}"
    if best["rule"]:
        what += f" merged above {best['rule']['threshold']:g}"
    decision = {
        "no merging is best": "The trainer's rule stays" if merging["rule_without"] else "Nothing is merged",
        "merging": f"{_difference(merging, metric)}: learned, and the choice",
    }[merging["decision"]]
    return [
        f"Learning when to merge, scored on cases held out: {pairs}.",
        f"without it {_metrics(merging['without'])}; connected components "
        f"{_metrics(merging['connected_components'])}; best, {what}, {_metrics(best)}.",
        f"{decision}.",
    ]


def _describe_confidence(confidence: dict[str, Any] | None, metric: str) -> list[str]:
    """What was found about the least confidence; nothing for None."""
    if confidence is None:
        return []
    if lacking := confidence.get("cases_without_probabilities"):
        return [f"min_confidence was not tuned: {len(lacking)} cases have no probabilities ({list_some(lacking, 3)})."]
    if confidence["best"] == confidence["default"]:
        return [f"min_confidence {confidence['best']:g}, the trainer's, is best and stays."]
    found = _difference(confidence, metric)
    what = "the choice" if confidence["chosen"] == confidence["best"] else "as good as the trainer's within the noise"
    return [f"min_confidence {confidence['best']:g}: {found}: {what}."]


def _difference(record: dict[str, Any], metric: str) -> str:
    low, high = record["interval_95"]
    return f"{metric} {record['difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f} over cases)"


def _values(settings: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {settings[name]:g}" for name in names)


def _metrics(point: dict[str, Any]) -> str:
    return ", ".join(f"{name} {point[name]:.4f}" for name in METRICS)
