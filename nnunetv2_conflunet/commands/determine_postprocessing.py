"""The command ``nnUNetv2_conflunet_determine_postprocessing``."""

import argparse
from dataclasses import replace
from pathlib import Path

from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS
from nnunetv2_conflunet.tuning.description import describe
from nnunetv2_conflunet.tuning.determine import (
    RECORD_FILE,
    TABLE_FILE,
    TuningSettings,
    default_grid,
    determine_postprocessing,
)
from nnunetv2_conflunet.tuning.model_folder import ModelFolder
from nnunetv2_conflunet.tuning.scoring import METRICS
from nnunetv2_conflunet.tuning.search import AREAS_PIXELS, SEARCHED, Grid
from nnunetv2_conflunet.utilities.cluster import add_cluster, on_cluster
from nnunetv2_conflunet.utilities.commands import add_num_processes, run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.nnunet_folders import RAW, RESULTS, dataset_name, nnunet_folder
from nnunetv2_conflunet.utilities.options import add_options, as_text, chosen, make_parser, options_of


def main() -> None:
    """Entry point."""
    # Options -ref and -i replace these folders.
    run_command(lambda: on_cluster(determine, _parser().parse_args(), {RAW: "ref", RESULTS: "i"}))


def determine(args: argparse.Namespace) -> None:
    """Determine a model's settings and print the outcome."""
    model = _model_folder(args)
    tried = {name: values for name, values in vars(args).items() if name in SEARCHED}
    settings = TuningSettings(
        metric=args.metric,
        grid=replace(default_grid(ModelFolder(model)), **tried),
        scoring=EvaluationSettings(iou_threshold=args.iou_threshold, **chosen(EvaluationSettings, args, "score_")),
        with_stock_postprocessing=not args.ignore_stock_postprocessing,
        with_merging=not args.no_merging,
        seed=args.seed,
        **({"min_confidence": args.min_confidence} if "min_confidence" in args else {}),
    )
    record = determine_postprocessing(model, args.f, args.ref, settings, num_processes=args.np, dry_run=args.dry_run)
    print("\n".join(describe(record)))
    if args.dry_run:
        print("Nothing was written (--dry_run).")
    else:
        print(f"Wrote {model / RECORD_FILE} and {TABLE_FILE}; plans.json holds the settings that prediction reads.")


def _model_folder(args: argparse.Namespace) -> Path:
    if args.i is not None:
        return args.i
    if args.d is None:
        raise InputError("Specify the model: its folder with -i, or -d, -c, -tr and -p as for nnUNetv2_train.")
    nnunet_folder(RESULTS, "export it, or name the model's folder with -i.")
    return Path(get_output_folder(dataset_name(args.d), args.tr, args.p, args.c))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_determine_postprocessing",
        "Find the threshold, window, prominence, consistency and size filter that work best in a model's "
        "cross-validation, and store them in its plans.json, where prediction reads them. Writes "
        f"{RECORD_FILE} and {TABLE_FILE}. Folds must have been validated with --npz.",
    )
    add = parser.add_argument
    add("-i", type=Path, metavar="MODEL_FOLDER", help="folder of the model, instead of -d, -c, -tr and -p")
    add("-d", metavar="DATASET", help="name or id of the dataset")
    add("-c", default="3d_fullres", metavar="CONFIGURATION", help="configuration")
    add("-tr", default="nnUNetTrainerConfLUNet", metavar="TRAINER", help="trainer")
    add("-p", default="nnUNetPlans", metavar="PLANS", help="plans")
    add("-f", nargs="+", default=["0", "1", "2", "3", "4"], metavar="FOLD", help="folds")
    add("-ref", type=Path, metavar="FOLDER", help="reference instance maps (default: instancesTr of the dataset)")
    add("--metric", default=METRICS[0], help=f"metric whose mean to maximize: {' or '.join(METRICS)}")
    tried = parser.add_argument_group("values to try")
    known, grid = options_of(InstantiationSettings), Grid()
    for name in SEARCHED:
        # For 2D images the grid depends on the pixel size.
        values = f"{as_text(AREAS_PIXELS)} pixels" if name == "min_area_mm2" else as_text(getattr(grid, name))
        text = f"{known[name].metadata['help']} (default: {values})"
        tried.add_argument(f"--{name}", type=float, nargs="+", metavar="X", default=argparse.SUPPRESS, help=text)
    text = (
        f"{known['min_confidence'].metadata['help']}; tried last (default: {as_text(TuningSettings().min_confidence)})"
    )
    tried.add_argument("--min_confidence", type=float, nargs="*", metavar="X", default=argparse.SUPPRESS, help=text)
    evaluation = parser.add_argument_group("evaluation of each combination, with its own size filter")
    add_options(evaluation, EvaluationSettings, ["iou_threshold"])
    add_options(evaluation, EvaluationSettings, LIMITS, prefix="score_")
    add("--ignore_stock_postprocessing", action="store_true", help="tune on the masks as predicted")
    text = "do not learn when touching pieces are one lesion, and store the trainer's own rule"
    add("--no_merging", action="store_true", help=text)
    add("--seed", type=int, default=0, help="seed of the bootstrap over cases")
    add_num_processes(parser)
    add_cluster(parser)
    add("--dry_run", action="store_true", help="print the best settings and write nothing")
    return parser
