"""The command ``nnUNetv2_conflunet_prepare``."""

import argparse
from pathlib import Path

from nnunetv2.configuration import default_num_processes
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.preprocessing.check_instances import InstanceCheck
from nnunetv2_conflunet.preprocessing.conversion import write_instances_from_labels, write_labels_from_instances
from nnunetv2_conflunet.preprocessing.paper_configuration import NAME, add_paper_configuration
from nnunetv2_conflunet.preprocessing.preprocessed import PreparedCase, PreprocessedInstances
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.preprocessing.refusals import refuse_other_unit, refuse_unsupported
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, RAW, dataset_name, nnunet_folder
from nnunetv2_conflunet.utilities.writable import require_writable


def main() -> None:
    """Entry point."""
    run_command(lambda: prepare(_parser().parse_args()))


def prepare(args: argparse.Namespace) -> None:
    """Convert where asked, check every instance map, and bring them to every preprocessed configuration."""
    dataset = RawDataset(nnunet_folder(RAW) / dataset_name(args.d))
    labels = dataset.label_manager()
    for note in dataset.check_folders():
        print(note)
    if args.paper_configuration:
        require_writable(_plans_file(dataset.folder.name, args.p))
    if args.labels_from_instances:
        require_writable(*(i.label for i in dataset.training_cases().values()))
        print(f"{write_labels_from_instances(dataset, args.np, args.overwrite)} labels written.")
    if args.instances_from_labels:
        require_writable(*(i.instances for i in dataset.training_cases().values()))
        n = write_instances_from_labels(dataset, args.np, args.overwrite, args.connectivity)
        print(f"{n} instance maps written to {dataset.instances_folder}: each connected component is one instance.")

    cases = dataset.require_instances(list(dataset.training_cases()))
    check = InstanceCheck.of(type(dataset.reader()), labels)
    check.check(cases, args.np)
    print(f"{len(cases)} instance maps fit their labels.")
    if args.paper_configuration:
        _add_paper_configuration(dataset.folder.name, args.p)
    configurations = _preprocessed_configurations(dataset.folder.name, args.p, args.c)
    if not configurations:
        print(f"No configuration of {args.p} is preprocessed yet: run nnUNetv2_plan_and_preprocess, then train.")
    for prepared in configurations:
        _report(prepared, prepared.prepare(args.np, checked=check))


def _add_paper_configuration(dataset: str, plans_name: str) -> None:
    plans_file = _plans_file(dataset, plans_name)
    written = add_paper_configuration(plans_file)
    print(f"{NAME} was {'added to' if written else 'already in'} {plans_file}.")


def _plans_file(dataset: str, plans_name: str) -> Path:
    return nnunet_folder(PREPROCESSED) / dataset / f"{plans_name}.json"


def _preprocessed_configurations(dataset: str, plans_name: str, names: list[str] | None) -> list[PreprocessedInstances]:
    if not nnUNet_preprocessed.is_set() or not (Path(nnUNet_preprocessed) / dataset / f"{plans_name}.json").is_file():
        if names:
            raise InputError(f"{dataset} has no plans {plans_name} in nnUNet_preprocessed; plan and preprocess first.")
        return []
    folder = Path(nnUNet_preprocessed) / dataset
    plans = PlansManager(str(folder / f"{plans_name}.json"))
    if plans.dataset_name != dataset:
        raise InputError(
            f"{folder / plans_name}.json is of {plans.dataset_name}, and nnU-Net looks for what is preprocessed and "
            f"trained under that name. Rename the folders of {dataset} back, or delete the one in nnUNet_preprocessed "
            "and repeat nnUNetv2_plan_and_preprocess."
        )
    dataset_json = read_json(folder / "dataset.json")
    unknown = sorted(set(names or []) - set(plans.available_configurations))
    if unknown:
        raise InputError(f"{plans_name} has no configuration {unknown[0]}; it has {plans.available_configurations}.")
    found = {}
    for name in names or plans.available_configurations:
        try:
            refuse_unsupported(plans, name, dataset_json)
        except InputError:
            if names:
                raise
            continue
        prepared = PreprocessedInstances(plans, name, dataset_json)
        if names or prepared.source_folder.is_dir():
            found.setdefault(prepared.folder, prepared)
            _say_other_unit(plans, name)
    return list(found.values())


def _report(prepared: PreprocessedInstances, made: list[PreparedCase]) -> None:
    print(f"{prepared.folder}: {len(made)} maps made, the others were up to date.")
    lost = prepared.lost()
    if lost:
        print(
            f"Warning: {sum(lost.values())} instances in {len(lost)} cases have no voxel on this grid and are not "
            f"learned: {list_some([f'{case} ({n})' for case, n in lost.items()])}"
        )


def _say_other_unit(plans: PlansManager, configuration: str) -> None:
    """Say what a training would refuse; a trainer of one's own may have lengths that suit the spacing."""
    try:
        refuse_other_unit(plans, configuration)
    except InputError as error:
        print(f"Warning: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_conflunet_prepare",
        description="Check the instance maps of a dataset and bring them to the grid of its preprocessed cases. "
        "Training does the same by itself where this has not been done.",
    )
    parser.add_argument("-d", required=True, help="dataset, by id or name")
    parser.add_argument("-p", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument("-c", nargs="+", help="configurations (default: every one that is preprocessed)")
    parser.add_argument(
        "-np", type=int, default=default_num_processes, help="number of processes (default: %(default)s)"
    )
    parser.add_argument(
        "--paper_configuration",
        action="store_true",
        help=f"also write the configuration {NAME}, with patch, batch and network of the paper, into the plans",
    )
    parser.add_argument(
        "--labels_from_instances", action="store_true", help="first write labelsTr as the support of instancesTr"
    )
    parser.add_argument(
        "--instances_from_labels",
        action="store_true",
        help="first write instancesTr as the connected components of labelsTr",
    )
    parser.add_argument(
        "--connectivity", type=int, choices=(6, 18, 26), default=26, help="of those components (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="let the two options above replace existing files")
    return parser


if __name__ == "__main__":
    main()
