"""The command ``nnUNetv2_conflunet_simulate``."""

import argparse
from pathlib import Path

from nnunetv2_conflunet.simulation.cohort import CohortSettings, write_cohort
from nnunetv2_conflunet.simulation.lesions import LesionStatistics
from nnunetv2_conflunet.simulation.statistics import measure_dataset, statistics_table
from nnunetv2_conflunet.utilities.cluster import add_cluster, on_cluster
from nnunetv2_conflunet.utilities.commands import add_num_processes, run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import is_file_name
from nnunetv2_conflunet.utilities.nnunet_folders import RAW, nnunet_folder
from nnunetv2_conflunet.utilities.options import add_options, chosen, make_parser
from nnunetv2_conflunet.utilities.writable import require_writable


def main() -> None:
    """Entry point."""
    run_command(lambda: on_cluster(simulate, _parser().parse_args(), {RAW: "output"}))


def simulate(args: argparse.Namespace) -> None:
    """Write a simulated cohort, or print the statistics of one."""
    folder = _dataset_folder(args)
    if args.statistics:
        print(statistics_table(measure_dataset(folder)))
        return
    values = chosen(CohortSettings, args) | ({"crop_mm": None} if args.whole_brain else {})
    settings = CohortSettings(**values, statistics=LesionStatistics(**chosen(LesionStatistics, args)))
    require_writable(folder / "dataset.json")
    missed = write_cohort(folder, settings, overwrite=args.overwrite, processes=args.np)
    if missed:
        print(f"{missed} planned lesions could not be placed and were left out.")
    print(f"Wrote {settings.training_cases} training and {settings.test_cases} test cases to {folder}")


def _dataset_folder(args: argparse.Namespace) -> Path:
    """The folder to write to.

    Raises:
        InputError: nnUNet_raw is not set, the name is no file name, or the id belongs to a dataset of another name.
    """
    if args.output is not None:
        return args.output
    raw = nnunet_folder(RAW, "export it, or give the dataset's folder with -o.")
    if not 1 <= args.dataset_id <= 999:
        raise InputError(f"-d {args.dataset_id}: give a number from 1 to 999.")
    if not is_file_name(args.name):
        raise InputError(f"-n {args.name!r}: give a name without slashes, such as SimulatedLesions.")
    folder = raw / f"Dataset{args.dataset_id:03d}_{args.name}"
    others = [path.name for path in raw.glob(f"Dataset{args.dataset_id:03d}_*") if path != folder]
    if others:
        raise InputError(f"The number {args.dataset_id} belongs to {others[0]} in {raw}; choose another with -d.")
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_simulate",
        "Write a simulated cohort of FLAIR images with lesions, some of which touch, as a raw nnU-Net dataset with "
        "instancesTr and instancesTs. Needs nilearn (for its MNI152 template) but no network connection.",
    )
    dataset = parser.add_argument_group("dataset")
    dataset.add_argument("-d", "--dataset_id", type=int, default=101, help="number of the dataset in nnUNet_raw")
    dataset.add_argument("-n", "--name", default="SimulatedLesions", help="name of the dataset in nnUNet_raw")
    dataset.add_argument("-o", "--output", type=Path, help="folder of the dataset, instead of -d and -n")
    dataset.add_argument("--overwrite", action="store_true", help="replace an existing simulated cohort")
    dataset.add_argument(
        "--statistics",
        action="store_true",
        help="write nothing; print the statistics of the existing dataset next to those of real patients",
    )
    cohort = parser.add_argument_group("cohort (axes in nnU-Net's order: Z to the top, Y to the front, X to the right)")
    add_options(cohort, CohortSettings, ("training_cases", "test_cases", "spacing_mm"))
    box = cohort.add_mutually_exclusive_group()
    add_options(box, CohortSettings, ["crop_mm"])
    box.add_argument("--whole_brain", action="store_true", help="simulate the whole brain instead of a crop")
    add_options(cohort, CohortSettings, ["seed"])
    lesions = parser.add_argument_group("lesions")
    add_options(lesions, CohortSettings, ["lesions"])
    add_options(lesions, LesionStatistics)
    add_options(lesions, CohortSettings, ["lesion_free_share"])
    add_num_processes(parser, "--processes", default=1)
    add_cluster(parser)
    return parser
