"""The command ``nnUNetv2_conflunet_instantiate``."""

import argparse
from pathlib import Path

from nnunetv2_conflunet.inference.instantiate_folder import SETTINGS_FILE, instantiate_folder
from nnunetv2_conflunet.inference.model_settings import ModelPlans
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS
from nnunetv2_conflunet.utilities.cluster import add_cluster, on_cluster
from nnunetv2_conflunet.utilities.commands import add_num_processes, report_failures, run_command
from nnunetv2_conflunet.utilities.options import add_options, chosen, make_parser

# Counts in each case's report that the command adds up and prints.
SUMMED = (
    "n_instances",
    "n_instances_without_center",
    "n_voxels_reattached",
    "n_instances_removed",
    "n_voxels_removed",
    "n_instances_below_confidence",
)
OF_CENTER_OFFSET = ("pieces", "heatmap_threshold", "window_mm", "min_prominence", "min_consistency", "top_k")


def main() -> None:
    """Entry point."""
    run_command(lambda: on_cluster(instantiate_predictions, _parser().parse_args()))


def instantiate_predictions(args: argparse.Namespace) -> int:
    """Make the instances of a folder of predictions; returns 1 if cases failed."""
    model = _settings_of_model(PredictionFolder.open(args.i, args.heads), args.settings_from)
    without = {"merge": None} if args.no_merging else {}
    settings = InstantiationSettings.from_dict(model.to_dict() | chosen(InstantiationSettings, args) | without)
    print(", ".join(f"{name} {value}" for name, value in settings.to_dict().items()))
    reports, failures = instantiate_folder(
        args.i, args.o, settings, heads=args.heads, num_processes=args.np, overwrite=args.overwrite
    )
    total = {key: sum(report.get(key, 0) for report in reports.values()) for key in SUMMED}
    print(
        f"{len(reports)} cases, {total['n_instances']} instances, {total['n_instances_without_center']} of them "
        f"without a center. {total['n_voxels_reattached']} voxels were cut off and joined a neighbor. The size filter "
        f"removed {total['n_instances_removed']} instances ({total['n_voxels_removed']} voxels)."
        + (f" {total['n_instances_below_confidence']} were below min_confidence." if settings.min_confidence else "")
    )
    return report_failures(failures, len(reports) + len(failures))


def _settings_of_model(prediction: PredictionFolder, settings_from: Path | None) -> InstantiationSettings:
    """The settings in the plans.json of the prediction or of the named model."""
    if settings_from is None:
        if not prediction.plans:
            print(
                f"There is no plans.json near {prediction.folder}, so options not given here take their "
                "default values; use --settings_from to take the settings of a model, or of one of its predictions."
            )
        return prediction.settings()
    return ModelPlans(settings_from).settings().instantiation


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_instantiate",
        "Make instance maps and lesion tables from semantic predictions without running the network. Finished cases "
        "are skipped. Settings not given here come from the model that made the predictions, or from the defaults if "
        f"it has none; {SETTINGS_FILE} in the output folder records the settings used.",
    )
    add = parser.add_argument
    text = "output of nnUNetv2_predict --save_probabilities; masks for cc or watershed"
    add("-i", type=Path, required=True, metavar="PRED", help=text)
    add("-o", type=Path, required=True, metavar="OUT", help="output folder, different from PRED")
    text = "prediction with the heads, if -i holds postprocessed or ensembled masks"
    add("--heads", type=Path, metavar="PRED", help=text)
    add(
        "--settings_from", type=Path, metavar="MODEL", help="take the settings of this model, or of a prediction by one"
    )
    groups = {}
    for title, names in (
        ("settings of all methods", ("method", "connectivity", *LIMITS, "min_confidence")),
        ("settings of center_offset", OF_CENTER_OFFSET),
        ("settings of acls", ("acls_preset",)),
        ("settings of watershed", ("h_maxima_mm",)),
    ):
        groups[names] = parser.add_argument_group(title)
        add_options(groups[names], InstantiationSettings, names, instead="the model's")
    text = "leave touching pieces as they are, even if the model has a rule that merges them"
    groups[OF_CENTER_OFFSET].add_argument("--no_merging", action="store_true", help=text)
    add_num_processes(parser)
    add_cluster(parser)
    add("--overwrite", action="store_true", help="redo every case, and replace maps not written by this command")
    return parser
