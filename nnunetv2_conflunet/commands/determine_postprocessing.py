"""The command ``nnUNetv2_conflunet_determine_postprocessing``."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
from nnunetv2.configuration import default_num_processes
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_conflunet.evaluation.cohort.settings import Settings
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS
from nnunetv2_conflunet.tuning.determine import (
    RECORD_FILE,
    TABLE_FILE,
    TuningSettings,
    default_grid,
    determine_postprocessing,
)
from nnunetv2_conflunet.tuning.model_folder import ModelFolder
from nnunetv2_conflunet.tuning.scoring import METRICS
from nnunetv2_conflunet.tuning.search import AREAS_PIXELS, SEARCHED, WITHOUT_EFFECT, Grid
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.nnunet_folders import RESULTS, dataset_name, nnunet_folder


def main() -> None:
    """Entry point."""
    run_command(lambda: _command(_parser().parse_args()))


def _command(args: argparse.Namespace) -> None:
    model = _model_folder(args)
    settings = TuningSettings(
        metric=args.metric,
        grid=replace(default_grid(ModelFolder(model)), **{k: v for k, v in vars(args).items() if k in SEARCHED}),
        scoring=Settings(iou_threshold=args.iou_threshold, **{name: getattr(args, f"score_{name}") for name in LIMITS}),
        with_stock_postprocessing=not args.ignore_stock_postprocessing,
        with_merging=not args.no_merging,
        seed=args.seed,
    )
    record = determine_postprocessing(model, args.f, args.ref, settings, num_processes=args.np, dry_run=args.dry_run)
    print("\n".join(describe(record)))
    if args.dry_run:
        print("Nothing was written (--dry_run).")
    else:
        print(f"Wrote {model / RECORD_FILE} and {TABLE_FILE}; plans.json holds the settings that prediction reads.")


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


def _model_folder(args: argparse.Namespace) -> Path:
    if args.i is not None:
        return args.i
    if args.d is None:
        raise InputError("Name the model: its folder with -i, or -d, -c, -tr and -p as for nnUNetv2_train.")
    nnunet_folder(RESULTS, "export it, or name the model's folder with -i.")
    return Path(get_output_folder(dataset_name(args.d), args.tr, args.p, args.c))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_conflunet_determine_postprocessing",
        description="Find the threshold, window, prominence, consistency and size filter that suit a model's "
        "cross-validation best, and store them in its plans.json, where prediction reads them. Writes "
        f"{RECORD_FILE} and {TABLE_FILE}. Folds must have been validated with --npz.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    grid, scoring = Grid(), Settings()
    add = parser.add_argument
    add("-i", type=Path, metavar="MODEL_FOLDER", help="the model, instead of -d, -c, -tr and -p")
    add("-d", metavar="DATASET", help="dataset name or id")
    add("-c", default="3d_fullres", metavar="CONFIGURATION", help="configuration")
    add("-tr", default="nnUNetTrainerConfLUNet", metavar="TRAINER", help="trainer")
    add("-p", default="nnUNetPlans", metavar="PLANS", help="plans")
    add("-f", nargs="+", default=["0", "1", "2", "3", "4"], metavar="FOLD", help="folds")
    add("-ref", type=Path, metavar="FOLDER", help="reference instance maps; the dataset's instancesTr when left out")
    add("--metric", default=METRICS[0], help=f"what to maximise the mean of: {' or '.join(METRICS)}")
    areas = " ".join(map(str, AREAS_PIXELS))
    for name, meaning in (
        ("heatmap_threshold", "lowest values of a center"),
        ("window_mm", "widths in which a center is the highest voxel"),
        ("min_prominence", "shares of its height by which a center rises above the way to a higher one"),
        ("min_consistency", "times that a center's own offset ends farther from others than from itself"),
        ("min_volume_mm3", "smallest volumes of an instance, in volumes,"),
        ("min_extent_mm", "smallest extents of an instance"),
        ("min_area_mm2", "smallest areas of an instance, in planes,"),
    ):
        values = f"{areas} pixels" if name == "min_area_mm2" else " ".join(f"{i:g}" for i in getattr(grid, name))
        given = {"default": argparse.SUPPRESS, "help": f"{meaning} to try (default: {values})"}
        add(f"--{name}", type=float, nargs="+", metavar="X", **given)
    add("--iou_threshold", type=float, default=scoring.iou_threshold, help="a pair of lesions matches above it")
    for name in LIMITS:
        add(f"--score_{name}", type=float, default=getattr(scoring, name), help="the evaluation's own size filter")
    add("--ignore_stock_postprocessing", action="store_true", help="tune on masks as they were predicted")
    add("--no_merging", action="store_true", help="do not learn when touching pieces are one lesion")
    add("--seed", type=int, default=0, help="of the bootstrap over cases")
    add("-np", type=int, default=min(default_num_processes, joblib.cpu_count()), help="worker processes")
    add("--dry_run", action="store_true", help="say what is best and write nothing")
    return parser
