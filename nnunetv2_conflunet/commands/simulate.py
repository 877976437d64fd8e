"""The command nnUNetv2_conflunet_simulate."""

import argparse
from pathlib import Path

from nnunetv2_conflunet.simulation.cohort import CohortSettings, write_cohort
from nnunetv2_conflunet.simulation.lesions import COUNT_DISPERSION, MEAN_LESIONS, LesionStatistics
from nnunetv2_conflunet.simulation.statistics import measure_dataset, statistics_table
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.nnunet_folders import RAW, nnunet_folder
from nnunetv2_conflunet.utilities.writable import require_writable

AXES = ("Z", "Y", "X")


def main() -> None:
    """Entry point of ``nnUNetv2_conflunet_simulate``."""
    run_command(_simulate)


def _simulate() -> None:
    arguments = _parser().parse_args()
    folder = _dataset_folder(arguments)
    if arguments.statistics:
        print(statistics_table(measure_dataset(folder)))
        return
    settings = CohortSettings(
        training_cases=arguments.training_cases,
        test_cases=arguments.test_cases,
        spacing_mm=tuple(arguments.spacing),
        crop_mm=None if arguments.whole_brain else tuple(arguments.crop),
        lesions=arguments.lesions,
        lesion_free_share=arguments.lesion_free_share,
        statistics=LesionStatistics(
            dispersion=arguments.dispersion,
            confluent_share=arguments.confluent_share,
            near_miss_share=arguments.near_miss_share,
        ),
        seed=arguments.seed,
    )
    if arguments.processes < 1:
        raise InputError(f"-np {arguments.processes}: give at least one process.")
    require_writable(folder / "dataset.json")
    missed = write_cohort(folder, settings, overwrite=arguments.overwrite, processes=arguments.processes)
    if missed:
        print(f"{missed} planned lesions found no place and were left out.")
    print(f"Wrote {settings.training_cases} training and {settings.test_cases} test cases to {folder}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_conflunet_simulate",
        description="Write a simulated cohort of FLAIR images with lesions, some of which touch, as a raw dataset of "
        "nnU-Net with instancesTr and instancesTs. Needs nilearn (its MNI152 template), no network.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    place = parser.add_argument_group("where")
    place.add_argument("-d", "--dataset_id", type=int, default=101, help="number of the dataset in nnUNet_raw")
    place.add_argument("-n", "--name", default="SimulatedLesions", help="name of the dataset in nnUNet_raw")
    place.add_argument("-o", "--output", type=Path, help="folder of the dataset, instead of -d and -n")
    place.add_argument("--overwrite", action="store_true", help="replace the dataset that is there")
    text = "write nothing, print the figures of the dataset that is there beside those of patients"
    place.add_argument("--statistics", action="store_true", help=text)
    cohort = parser.add_argument_group("cohort (axes in nnU-Net's order: Z to the top, Y to the front, X to the right)")
    cohort.add_argument("--training_cases", type=int, default=20, metavar="N", help="cases in imagesTr")
    cohort.add_argument("--test_cases", type=int, default=6, metavar="N", help="cases in imagesTs")
    _add_triple(cohort, "--spacing", [1.0, 1.0, 1.0], "voxel size in mm; 3 1 1 is 3 mm slices")
    box = cohort.add_mutually_exclusive_group()
    _add_triple(box, "--crop", [96.0, 112.0, 96.0], "size in mm of the box around the ventricles")
    box.add_argument("--whole_brain", action="store_true", help="the whole brain instead of a crop")
    cohort.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    lesions = parser.add_argument_group("lesions")
    count_help = (
        f"mean number in a patient who has any; by default {MEAN_LESIONS:g} a whole brain, in a crop their share"
    )
    lesions.add_argument("--lesions", type=float, metavar="MEAN", help=count_help)
    lesions.add_argument("--dispersion", type=float, default=COUNT_DISPERSION, help="of the negative binomial number")
    _add_share(lesions, "--confluent_share", 0.2, "share of the lesions that touch another one")
    _add_share(lesions, "--near_miss_share", 0.1, "share of the lesions put one voxel beside another; chance adds more")
    _add_share(lesions, "--lesion_free_share", 0.0, "share of the patients that have no lesion")
    parser.add_argument("-np", "--processes", type=int, default=1, metavar="N", help="number of processes")
    return parser


def _add_triple(group: argparse._ActionsContainer, option: str, default: list[float], text: str) -> None:
    group.add_argument(option, type=float, nargs=3, default=default, metavar=AXES, help=text)


def _add_share(group: argparse._ActionsContainer, option: str, default: float, text: str) -> None:
    group.add_argument(option, type=float, default=default, metavar="SHARE", help=text)


def _dataset_folder(arguments: argparse.Namespace) -> Path:
    """The folder to write to.

    Raises:
        InputError: nnUNet_raw is not set, or the id belongs to a dataset of another name.
    """
    if arguments.output is not None:
        return arguments.output
    raw = nnunet_folder(RAW, "export it, or give the dataset's folder with -o.")
    if not 1 <= arguments.dataset_id <= 999:
        raise InputError(f"-d {arguments.dataset_id}: give a number from 1 to 999.")
    folder = raw / f"Dataset{arguments.dataset_id:03d}_{arguments.name}"
    others = [path.name for path in raw.glob(f"Dataset{arguments.dataset_id:03d}_*") if path != folder]
    if others:
        raise InputError(f"The number {arguments.dataset_id} belongs to {others[0]} in {raw}; choose another with -d.")
    return folder


if __name__ == "__main__":
    main()
