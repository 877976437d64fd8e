"""The command ``nnUNetv2_conflunet_prepare``."""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet.imageio.unknown import KEY
from nnunetv2_conflunet.inference.probabilities import Probabilities
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.baselines.border_core import BorderCoreSettings
from nnunetv2_conflunet.postprocessing.pipeline import UNFILTERED
from nnunetv2_conflunet.preprocessing.annotation.cases import examine_case
from nnunetv2_conflunet.preprocessing.annotation.kinds import SlipLimits, count_slips, describe_counts
from nnunetv2_conflunet.preprocessing.annotation.report import MARKS, annotation_files, write_annotations
from nnunetv2_conflunet.preprocessing.border_core import write_border_core_dataset
from nnunetv2_conflunet.preprocessing.configurations import plans_file, preprocessed_configurations
from nnunetv2_conflunet.preprocessing.conversion import write_instances_from_labels, write_labels_from_instances
from nnunetv2_conflunet.preprocessing.instance_map import InstanceCheck
from nnunetv2_conflunet.preprocessing.lesion_crops import prepare_lesion_crops
from nnunetv2_conflunet.preprocessing.paper_configuration import NAME, add_paper_configuration
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.preprocessing.semantic_only.components import ComponentSettings
from nnunetv2_conflunet.preprocessing.semantic_only.draft import DRAFT_METHODS, write_draft
from nnunetv2_conflunet.preprocessing.semantic_only.sorting import unknown_id_of, write_sorted_components
from nnunetv2_conflunet.preprocessing.semantic_only.work_list import WORK_LIST
from nnunetv2_conflunet.utilities.array_checks import CONNECTIVITIES
from nnunetv2_conflunet.utilities.cluster import ClusterSettings, on_cluster
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, RAW, dataset_name, is_set, nnunet_folder
from nnunetv2_conflunet.utilities.options import add_options, chosen, make_parser
from nnunetv2_conflunet.utilities.writable import refuse_foreign, require_writable

OF_BORDER, OF_COMPONENT, OF_DRAFT = "border_", "component_", "draft_"
DRAFT_FOLDER = "instancesTr_draft"


def main() -> None:
    """Entry point."""
    run_command(lambda: on_cluster(prepare, _parser().parse_args(), {RAW: None, PREPROCESSED: None}))


def prepare(args: argparse.Namespace) -> None:
    """Convert if asked, check every instance map, and resample the maps for every preprocessed configuration."""
    dataset = RawDataset(nnunet_folder(RAW) / dataset_name(args.d))
    name, labels = dataset.folder.name, dataset.label_manager()
    for note in dataset.check_folders():
        print(note)
    limits, annotations = SlipLimits(**chosen(SlipLimits, args)), _annotations_folder(args, name)
    if args.paper_configuration:
        require_writable(plans_file(name, args.p))
    _convert(dataset, args)

    cases = dataset.require_instances(list(dataset.training_cases()))
    check = InstanceCheck.of(type(dataset.reader()), labels, dataset.unknown)
    look = partial(examine_case, limits=limits, views_per_kind=args.annotation_pictures, unknown=dataset.unknown)
    found = check.check(cases, args.np, look)
    print(f"{len(cases)} instance maps match their labels.")
    counts = describe_counts(count_slips(of_case.slips) for of_case in found.values())
    print(f"Annotation check: {counts or 'nothing found'}")
    if annotations is not None:
        images = {case: files[0] for case, files in dataset.training_images().items()}
        write_annotations(annotations, name, found, cases, images, check.reader, args.annotation_pictures, args.np)
        print(f"All findings: {', '.join(map(str, annotation_files(annotations)))}")
    if args.draft is not None:
        return _write_draft(dataset, args)
    if args.border_core is not None:
        return _write_border_core(dataset, args)
    if args.paper_configuration:
        written = add_paper_configuration(plans_file(name, args.p))
        print(f"{NAME} was {'added to' if written else 'already in'} {plans_file(name, args.p)}.")
    configurations, warnings = preprocessed_configurations(name, args.p, args.c)
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
            print(f"{n_voxels} voxels in {len(unknown)} cases are of unknown instances and train the mask only.")
        if lost := prepared.counted("n_lost"):
            print(
                f"Warning: {sum(lost.values())} instances in {len(lost)} cases have no voxel on this grid and are not "
                f"learned: {list_some([f'{case} ({n})' for case, n in lost.items()])}"
            )
        if args.lesion_crops:
            n_cases = len(prepare_lesion_crops(prepared, args.np))
            print(f"Lesions of {n_cases} cases cut out to be pasted, those of the others were up to date.")


def _convert(dataset: RawDataset, args: argparse.Namespace) -> None:
    """Write labels or instance maps, if asked."""
    if args.unknown_components and not args.instances_from_labels:
        raise InputError("--unknown_components says how --instances_from_labels makes the maps; give both.")
    if args.labels_from_instances:
        require_writable(*(case.label for case in dataset.training_cases().values()))
        print(f"{write_labels_from_instances(dataset, args.np, args.overwrite)} labels written.")
    if args.unknown_components:
        _sort_components(dataset, args)
    elif args.instances_from_labels:
        require_writable(*(case.instances for case in dataset.training_cases().values()))
        n = write_instances_from_labels(dataset, args.np, args.overwrite, args.connectivity)
        print(f"{n} instance maps written to {dataset.instances_folder}: each connected component is one instance.")


def _sort_components(dataset: RawDataset, args: argparse.Namespace) -> None:
    settings, declared = ComponentSettings(**chosen(ComponentSettings, args, OF_COMPONENT)), dataset.unknown
    found = write_sorted_components(dataset, settings, args.np, args.overwrite, args.connectivity)
    print(
        f"Instance maps written to {dataset.instances_folder}.\n{found.known} look like one lesion each and have an id."
    )
    print(f"{found.unknown} may be several lesions and have the id of unknown instances, {unknown_id_of(dataset)}.")
    if dataset.unknown != declared:
        print(f'"{KEY}": {{"unknown": {dataset.unknown}}} was added to {dataset.folder / "dataset.json"}.')
    print(f"They are listed in {dataset.folder / WORK_LIST}, the largest first.")


def _write_draft(dataset: RawDataset, args: argparse.Namespace) -> None:
    settings = replace(UNFILTERED, method=args.draft, **chosen(InstantiationSettings, args, OF_DRAFT))
    if (args.draft == "acls") != bool(args.draft_probabilities):
        raise InputError("--draft acls divides by --draft_probabilities, and --draft watershed reads none.")
    folder = args.draft_folder or dataset.folder / DRAFT_FOLDER
    probability_of = Probabilities.open(args.draft_probabilities).of_case if args.draft_probabilities else None
    made = write_draft(dataset, folder, settings, args.np, args.overwrite, probability_of)
    print(
        f"DRAFT of {made.n_cases} cases written to {folder}: {args.draft} divides {made.n_components} unknown "
        f"components into {made.n_proposed} instances. Nobody has seen these: correct every one, give back the id "
        f"{unknown_id_of(dataset)} to what you cannot tell, and only then copy the files to {dataset.instances_folder}."
    )


def _write_border_core(dataset: RawDataset, args: argparse.Namespace) -> None:
    settings = BorderCoreSettings(**chosen(BorderCoreSettings, args, OF_BORDER))
    folder, counts = write_border_core_dataset(dataset, args.border_core, settings, args.np)
    print(
        f"{folder} written: {counts.n_lesions} lesions with a border of {settings.thickness_mm:g} mm. {counts.n_thin} "
        f"are too thin for it and keep their innermost voxels as core; the cores of {counts.n_split} are in several "
        f"pieces.\nTrain stock nnU-Net on it: nnUNetv2_plan_and_preprocess -d {args.border_core}, then nnUNetv2_train."
    )


def _annotations_folder(args: argparse.Namespace, dataset: str) -> Path | None:
    """Where to write the findings about annotations; None if no folder is known."""
    if args.annotation_pictures < 0:
        raise InputError(f"--annotation_pictures is {args.annotation_pictures}; give 0 or more.")
    folder = args.annotations
    if folder is None and is_set(PREPROCESSED):
        folder = nnunet_folder(PREPROCESSED) / dataset / "annotation_check"
    if folder is None:
        print("nnUNet_preprocessed is not set, so findings about annotations are not written; name a --annotations.")
        return None
    require_writable(*annotation_files(folder))
    for file, mark in zip(annotation_files(folder), MARKS, strict=True):
        refuse_foreign(file, mark, "an annotation check by this command")
    return folder


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
    add("-np", type=int, default=default_num_processes, help="number of worker processes")
    add_options(parser, ClusterSettings)
    text = "folder for the findings about annotations (default: annotation_check in the dataset's preprocessed folder)"
    add("--annotations", type=Path, metavar="FOLDER", help=text)
    add("--annotation_pictures", type=int, default=15, help="findings of each kind that are shown on the page")
    add_options(parser, SlipLimits)
    text = f"also write the configuration {NAME}, with patch, batch and network of the paper, into the plans"
    add("--paper_configuration", action="store_true", help=text)
    text = "also cut out the lesions that trainers with pasting paste, which training does if it has not been done"
    add("--lesion_crops", action="store_true", help=text)
    add("--labels_from_instances", action="store_true", help="first write labelsTr: the foreground of instancesTr")
    text = "first write instancesTr: the connected components of labelsTr"
    add("--instances_from_labels", action="store_true", help=text)
    text = "neighbors that count as connected in these components"
    add("--connectivity", type=int, choices=CONNECTIVITIES[3], default=26, help=text)
    text = "with --instances_from_labels: components that do not look like one lesion get the id of unknown instances"
    add("--unknown_components", action="store_true", help=text)
    add_options(parser, ComponentSettings, prefix=OF_COMPONENT)
    text = "let --labels_from_instances, --instances_from_labels and --draft replace existing files"
    add("--overwrite", action="store_true", help=text)
    draft = parser.add_argument_group("draft of a division of unknown instances, to be corrected by hand")
    text = "instead write drafts of the maps with unknown instances, in which this method has divided them"
    draft.add_argument("--draft", choices=DRAFT_METHODS, help=text)
    text = f"where the drafts go (default: {DRAFT_FOLDER} in the dataset's raw folder)"
    draft.add_argument("--draft_folder", type=Path, metavar="FOLDER", help=text)
    text = "for acls: predictions of the training cases with probabilities, such as the validation folders of all folds"
    draft.add_argument("--draft_probabilities", type=Path, nargs="+", metavar="FOLDER", help=text)
    add_options(draft, InstantiationSettings, ["h_maxima_mm", "acls_preset"], prefix=OF_DRAFT)
    text = "instead write a dataset with this id, whose labels are cores and borders of the lesions, for stock nnU-Net"
    borders = parser.add_argument_group("border-core dataset")
    borders.add_argument("--border_core", type=int, metavar="NEW_ID", help=text)
    add_options(borders, BorderCoreSettings, prefix=OF_BORDER)
    return parser
