"""A semi-synthetic cohort on real anatomy: see docs/open_ms_cohort.md.

    python benchmarks/open_ms_cohort.py DATA OUT --training_cases 20 --test_cases 6 -np 2
    python benchmarks/open_ms_cohort.py DATA OUT --statistics --picture cohort.png

DATA holds gold/ and flair/ of the open MS database (Lesjak et al. 2017, CC-BY, in MNI space); OUT becomes a raw dataset
of nnU-Net with instancesTr and instancesTs, and with one real case in imagesReal and labelsReal.
"""

import argparse
from pathlib import Path

from open_ms.cohort import write_real_cohort
from open_ms.contrast import cohort_signals, contrast_table, patient_signals
from open_ms.data import OpenMS
from open_ms.picture import draw_picture

from nnunetv2_conflunet.simulation.cohort import CohortSettings
from nnunetv2_conflunet.simulation.lesions import LesionStatistics
from nnunetv2_conflunet.simulation.statistics import measure_dataset, statistics_table
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError

CROP_MM = (96.0, 112.0, 96.0)


def main() -> None:
    args = parse()
    data = OpenMS.at(args.data)
    if not (args.statistics or args.picture):
        write(args, data)
    if args.statistics:
        print(statistics_table(measure_dataset(args.out)))
        print()
        print(contrast_table(cohort_signals(args.out), patient_signals(data)))
    if args.picture:
        draw_picture(args.out, data, args.picture)
        print(f"Wrote {args.picture}")


def write(args: argparse.Namespace, data: OpenMS) -> None:
    if args.processes < 1:
        raise InputError(f"-np {args.processes}: give at least one process.")
    settings = CohortSettings(
        training_cases=args.training_cases,
        test_cases=args.test_cases,
        crop_mm=None if args.whole_brain else tuple(args.crop),
        statistics=LesionStatistics(confluent_share=args.confluent_share, near_miss_share=0.02),
        seed=args.seed,
    )
    missed = write_real_cohort(data, args.out, settings, overwrite=args.overwrite, processes=args.processes)
    if missed:
        print(f"{missed} planned lesions could not be placed and were left out.")
    print(f"Wrote {settings.training_cases} training and {settings.test_cases} test cases to {args.out}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--training_cases", type=int, default=20, metavar="N")
    parser.add_argument("--test_cases", type=int, default=6, metavar="N")
    box = parser.add_mutually_exclusive_group()
    box.add_argument("--crop", type=float, nargs=3, default=CROP_MM, metavar=("Z", "Y", "X"), help="mm")
    box.add_argument("--whole_brain", action="store_true")
    parser.add_argument("--confluent_share", type=float, default=0.1, help="of the lesions outside sheets")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing cohort")
    parser.add_argument("-np", "--processes", type=int, default=1, metavar="N")
    parser.add_argument("--statistics", action="store_true", help="write no dataset; measure the existing one")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="write no dataset; draw the existing one")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
