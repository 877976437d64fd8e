"""The command ``nnUNetv2_conflunet_instantiate``: instances of a folder of predictions, without the network."""

import argparse
import sys
from pathlib import Path

import joblib
from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet.inference.instantiate_folder import SETTINGS_FILE, instantiate_folder
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.postprocessing.acls import PRESETS
from nnunetv2_conflunet.postprocessing.settings import METHODS, InstantiationSettings
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json

# What the account of a case says of the size filter and of pieces that were joined.
SUMMED = (
    "n_instances",
    "n_instances_without_center",
    "n_voxels_reattached",
    "n_instances_removed",
    "n_voxels_removed",
)


def main() -> None:
    """Entry point."""
    run_command(_command)


def _command() -> int:
    args = _parser().parse_args()
    folder, heads = Path(args.i), Path(args.heads) if args.heads else None
    chosen = {key: value for key, value in vars(args).items() if key in _OPTIONS and value is not None}
    values = _settings_of_model(PredictionFolder.open(folder, heads), args.settings_from).to_dict() | chosen
    settings = InstantiationSettings.from_dict(values)
    print(", ".join(f"{name} {value}" for name, value in settings.to_dict().items()))
    accounts, failures = instantiate_folder(
        folder, Path(args.o), settings, heads=heads, num_processes=args.np, overwrite=args.overwrite
    )
    total = {key: sum(account[key] for account in accounts.values()) for key in SUMMED}
    print(
        f"{len(accounts)} cases, {total['n_instances']} instances, {total['n_instances_without_center']} of them "
        f"without a center. {total['n_voxels_reattached']} voxels were cut off and joined a neighbour. The size filter "
        f"removed {total['n_instances_removed']} instances ({total['n_voxels_removed']} voxels)."
    )
    if failures:
        print(f"Error: {len(failures)} of {len(accounts) + len(failures)} cases failed:", file=sys.stderr)
        for case, reason in failures.items():
            print(f"  {case}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _settings_of_model(prediction: PredictionFolder, settings_from: Path | None) -> InstantiationSettings:
    """The settings that the plans.json of the prediction, or of the named model, holds."""
    if settings_from is None:
        if not prediction.plans:
            print(
                f"There is no plans.json near {prediction.folder}, so what is not given here has its default value; "
                "--settings_from names a model, or a prediction of it, whose settings to take."
            )
        return prediction.settings()
    plans_file = settings_from / "plans.json"
    if not plans_file.is_file():
        raise InputError(f"{plans_file} does not exist; give a model folder, or the output of nnUNetv2_predict.")
    return ModelSettings.from_plans(read_json(plans_file)).instantiation


_OPTIONS = InstantiationSettings.__dataclass_fields__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_conflunet_instantiate",
        description="Make instance maps and lesion tables of semantic predictions, without running the network. Cases "
        "that are done are left alone. Settings not given here are those of the model that predicted, and the defaults "
        f"where it has none; {SETTINGS_FILE} in the output folder says which were used.",
    )
    add = parser.add_argument
    add("-i", required=True, metavar="PRED", help="output of nnUNetv2_predict --save_probabilities, or masks (cc)")
    add("-o", required=True, metavar="OUT", help="output folder, another than PRED")
    add("--heads", metavar="PRED", help="the prediction with the heads, where -i has postprocessed or ensembled masks")
    add("--settings_from", type=Path, metavar="MODEL", help="model, or prediction of it, whose settings to take")
    add("-m", dest="method", choices=METHODS, help="method; the model's when left out (center_offset)")
    add("--heatmap_threshold", type=float, help="center_offset: lowest value of a center (default 0.1)")
    add("--window_mm", type=float, help="center_offset: width in which a center is the highest voxel (default 3)")
    add(
        "--min_prominence",
        type=float,
        help="center_offset: share of its height by which a center rises above the way to a higher one (default 0)",
    )
    add(
        "--min_consistency",
        type=float,
        help="center_offset: times that a center's own offset ends farther from others than from itself (default 0)",
    )
    add("--top_k", type=int, help="center_offset: keep this many centers a case (default: all)")
    add("--acls_preset", choices=tuple(PRESETS), help="acls: whose form (default lou2021)")
    add("--connectivity", type=int, help="6, 18 or 26 neighbours; in a plane 4, 8, 8 (default 26)")
    add("--min_volume_mm3", type=float, help="in a volume: remove smaller instances; 0 keeps all (default 14)")
    add("--min_extent_mm", type=float, help="remove instances shorter along any axis; 0 keeps all (default 3)")
    add("--min_area_mm2", type=float, help="in a plane: remove smaller instances; 0 keeps all (default 0)")
    add("-np", type=int, default=min(default_num_processes, joblib.cpu_count()), help="processes (default %(default)s)")
    add("--overwrite", action="store_true", help="make every case again, and replace maps that something else wrote")
    return parser
