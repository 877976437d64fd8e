"""The command ``nnUNetv2_conflunet_prepare``."""

import argparse
from dataclasses import replace
from pathlib import Path

from nnunetv2_conflunet.inference.saved_outputs import SavedOutputs
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.baselines.border_core import BorderCoreSettings
from nnunetv2_conflunet.postprocessing.pipeline import UNFILTERED
from nnunetv2_conflunet.preprocessing.annotation.check import check_annotations, writable_annotations_folder
from nnunetv2_conflunet.preprocessing.annotation.kinds import SlipLimits
from nnunetv2_conflunet.preprocessing.border_core import new_dataset_folder, write_border_core_dataset
from nnunetv2_conflunet.preprocessing.configurations import plans_file, preprocessed_configurations
from nnunetv2_conflunet.preprocessing.instance_map import InstanceCheck
from nnunetv2_conflunet.preprocessing.lesion_crops import prepare_lesion_crops
from nnunetv2_conflunet.preprocessing.paper_configuration import NAME, add_paper_configuration
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.preprocessing.requested_conversion import OVERWRITE, Conversion
from nnunetv2_conflunet.preprocessing.semantic_only.components import ComponentSettings
from nnunetv2_conflunet.preprocessing.semantic_only.draft import DRAFT_METHODS, Division, write_draft
from nnunetv2_conflunet.preprocessing.semantic_only.sorting import unknown_id_of
from nnunetv2_conflunet.utilities.cluster import add_cluster, on_cluster
from nnunetv2_conflunet.utilities.commands import add_num_processes, run_command
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, RAW, dataset_name, nnunet_folder
from nnunetv2_conflunet.utilities.options import add_options, chosen, make_parser, options_of
from nnunetv2_conflunet.utilities.writable import require_writable

OF_BORDER, OF_COMPONENT, OF_DRAFT = "border_", "component_", "draft_"
DRAFT_FOLDER, SINGLE_FOLDER = "instancesTr_draft", "instancesTr_single"


def main() -> None:
    """Entry point."""
    run_command(lambda: on_cluster(prepare, _parser().parse_args(), {RAW: None, PREPROCESSED: None}))


def prepare(args: argparse.Namespace) -> None:
    """Convert if asked, check every instance map, and resample the maps for every preprocessed configuration."""
    if args.draft is not None and args.border_core is not None:
        raise InputError("--draft and --border_core each write something of their own; give one of the two.")
    if args.draft is None and (args.draft_predictions or args.draft_single_only):
        raise InputError("--draft_predictions and --draft_single_only belong to --draft; give a method.")
    if args.draft is not None and (args.draft == "watershed") == bool(args.draft_predictions):
        raise InputError("--draft acls and center_offset need --draft_predictions, --draft watershed does not.")
    dataset = RawDataset(nnunet_folder(RAW) / dataset_name(args.d))
    name, labels = dataset.folder.name, dataset.label_manager()
    for note in dataset.check_folders():
        print(note)
    found: tuple[list[PreprocessedInstances], list[str]] = [], []
    if args.draft is None and args.border_core is None:
        # What cannot be prepared is refused before the work; the paper's configuration is added after it.
        found = preprocessed_configurations(name, args.p, None if args.paper_configuration else args.c)
    limits = SlipLimits(**chosen(SlipLimits, args))
    annotations = writable_annotations_folder(args.annotations, name, args.annotation_pictures)
    if args.paper_configuration:
        require_writable(plans_file(name, args.p))
    borders = BorderCoreSettings(**chosen(BorderCoreSettings, args, OF_BORDER))
    if args.border_core is not None:
        new_dataset_folder(dataset, args.border_core)
    outputs = SavedOutputs.open(args.draft, args.draft_predictions) if args.draft_predictions else None
    conversion = Conversion(**chosen(Conversion, args))
    for note in conversion.run(dataset, ComponentSettings(**chosen(ComponentSettings, args, OF_COMPONENT)), args.np):
        print(note)

    check = InstanceCheck.of(type(dataset.reader()), labels, dataset.unknown)
    for note in check_annotations(dataset, check, limits, annotations, args.annotation_pictures, args.np):
        print(note)
    if args.draft is not None:
        return _write_draft(dataset, outputs, args)
    if args.border_core is not None:
        return _write_border_core(dataset, borders, args)
    if args.paper_configuration:
        written = add_paper_configuration(plans_file(name, args.p))
        print(f"{NAME} was {'added to' if written else 'already in'} {plans_file(name, args.p)}.")
        found = preprocessed_configurations(name, args.p, args.c)
    _resample(*found, check, args)


def _resample(
    configurations: list[PreprocessedInstances], warnings: list[str], check: InstanceCheck, args: argparse.Namespace
) -> None:
    """Bring maps to the grid of every configuration, and cut out lesions if asked."""
    for warning in warnings:
        print(f"Warning: {warning}")
    if not configurations:
        print(f"No configuration of {args.p} is preprocessed yet: run nnUNetv2_plan_and_preprocess, then train.")
    for prepared in configurations:
        print(
            f"{prepared.folder}: {len(prepared.prepare(args.np, checked=check))} maps made, the others were up to date."
        )
        if unknown := prepared.counted("n_unknown"):
            n_voxels = sum(unknown.values())
            print(f"{n_voxels} voxels in {len(unknown)} cases are of unknown instances and only train the mask.")
        if lost := prepared.counted("n_lost"):
            print(
                f"Warning: {sum(lost.values())} instances in {len(lost)} cases have no voxel on this grid and are not "
                f"learned: {list_some([f'{case} ({n})' for case, n in lost.items()])}"
            )
        if args.lesion_crops:
            n_cases = len(prepare_lesion_crops(prepared, args.np))
            print(f"Lesions of {n_cases} cases cut out to be pasted, those of the others were up to date.")


def _write_draft(dataset: RawDataset, outputs: SavedOutputs | None, args: argparse.Namespace) -> None:
    folder = args.draft_folder or dataset.folder / (SINGLE_FOLDER if args.draft_single_only else DRAFT_FOLDER)
    if folder.resolve() in [prediction.resolve() for prediction in args.draft_predictions or ()]:
        raise InputError(f"{folder} holds a prediction, which drafts would replace. Name another --draft_folder.")
    settings = replace(UNFILTERED, method=args.draft, **chosen(InstantiationSettings, args, OF_DRAFT))
    division = Division(settings, single_only=args.draft_single_only, connectivity=args.connectivity)
    if outputs is not None:
        division = replace(division, outputs_of=outputs.of_case)
        if args.draft == "center_offset":
            division = replace(division, settings=outputs.settings())
    made, unknown = write_draft(dataset, folder, division, args.np, args.overwrite), unknown_id_of(dataset)
    print(f"DRAFT of {made.n_cases} cases written to {folder}.")
    if args.draft_single_only:
        print(
            f"{args.draft} leaves {made.n_proposed} of {made.n_components} unknown components undivided. These have an "
            f"id of their own now, the others still have {unknown}. Look at the largest of them, then copy the files "
            f"to {dataset.instances_folder}."
        )
    else:
        print(
            f"{args.draft} divides {made.n_components} unknown components into {made.n_proposed} instances. Nobody has "
            f"checked these: correct every one, give the id {unknown} to what you cannot tell, and only then copy the "
            f"files to {dataset.instances_folder}."
        )


def _write_border_core(dataset: RawDataset, settings: BorderCoreSettings, args: argparse.Namespace) -> None:
    folder, counts = write_border_core_dataset(dataset, args.border_core, settings, args.np)
    print(
        f"{folder} written: {counts.n_lesions} lesions with a border of {settings.thickness_mm:g} mm. {counts.n_thin} "
        f"are too thin for it and keep their innermost voxels as core; the cores of {counts.n_split} are in several "
        f"pieces.\nTrain stock nnU-Net on it: nnUNetv2_plan_and_preprocess -d {args.border_core}, then nnUNetv2_train."
    )


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_prepare",
        "Check the instance maps of a dataset and resample them to the grid of its preprocessed cases. Training does "
        "this automatically if it has not been done.",
    )
    add = parser.add_argument
    add("-d", required=True, help="id or name of the dataset")
    add("-p", default="nnUNetPlans", help="name of the plans")
    add("-c", nargs="+", help="configurations (default: all that are preprocessed)")
    add_num_processes(parser)
    add_cluster(parser)
    text = "folder for the findings about annotations (default: annotation_check in the dataset's preprocessed folder)"
    add("--annotations", type=Path, metavar="FOLDER", help=text)
    add("--annotation_pictures", type=int, default=15, help="findings of each kind that are shown on the page")
    add_options(parser, SlipLimits)
    text = f"also write the configuration {NAME}, with patch, batch and network of the paper, into the plans"
    add("--paper_configuration", action="store_true", help=text)
    text = "also cut out the lesions that trainers with pasting use; otherwise, training does it"
    add("--lesion_crops", action="store_true", help=text)
    add_options(parser, Conversion, [name for name in options_of(Conversion) if name != OVERWRITE])
    add_options(parser, ComponentSettings, prefix=OF_COMPONENT)
    add_options(parser, Conversion, [OVERWRITE])
    draft = parser.add_argument_group("draft: a proposed division of unknown instances, to be corrected by hand")
    text = "instead write copies of the maps in which this method divides the unknown instances"
    draft.add_argument("--draft", choices=DRAFT_METHODS, help=text)
    text = f"where the drafts go (default: {DRAFT_FOLDER}, or {SINGLE_FOLDER}, in the dataset's raw folder)"
    draft.add_argument("--draft_folder", type=Path, metavar="FOLDER", help=text)
    text = "predictions of the training cases with --save_probabilities, or validation folders of folds with --npz"
    draft.add_argument("--draft_predictions", type=Path, nargs="+", metavar="FOLDER", help=text)
    text = "give an id only to whole components that the method does not divide; the others stay unknown"
    draft.add_argument("--draft_single_only", action="store_true", help=text)
    add_options(draft, InstantiationSettings, ["h_maxima_mm", "acls_preset"], prefix=OF_DRAFT)
    text = "instead write a dataset with this id, whose labels are cores and borders of the lesions, for stock nnU-Net"
    borders = parser.add_argument_group("border-core dataset")
    borders.add_argument("--border_core", type=int, metavar="NEW_ID", help=text)
    add_options(borders, BorderCoreSettings, prefix=OF_BORDER)
    return parser
