"""The command ``nnUNetv2_conflunet_report``."""

import argparse
from collections.abc import Callable
from pathlib import Path

from nnunetv2_conflunet.evaluation.cohort.results import SUMMARY_FILE, load_methods
from nnunetv2_conflunet.evaluation.report.report import TITLE as EVALUATION_TITLE
from nnunetv2_conflunet.evaluation.report.report import make_report
from nnunetv2_conflunet.evaluation.report.sheets.prediction import TITLE as PREDICTION_TITLE
from nnunetv2_conflunet.evaluation.report.sheets.prediction import find_prediction, make_sheets
from nnunetv2_conflunet.utilities.commands import add_num_processes, run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import write_texts
from nnunetv2_conflunet.utilities.options import make_parser
from nnunetv2_conflunet.utilities.writable import refuse_foreign, require_writable


def main() -> None:
    """Entry point."""
    run_command(lambda: report(_parser().parse_args()))


def report(args: argparse.Namespace) -> None:
    """Write the report of one or more evaluations, or the contact sheets of a prediction."""
    if args.images is not None and not args.images.is_dir():
        raise InputError(f"{args.images} is not a folder; give the folder of the images, such as imagesTs.")
    if args.channel < 0:
        raise InputError(f"--channel is {args.channel}; channels are counted from 0.")
    folder, *others = args.evaluations
    is_prediction = not others and folder.is_dir() and not (folder / SUMMARY_FILE).is_file()
    output = args.o or (folder if folder.is_dir() else folder.parent) / "report.html"
    title, make = _sheets(args) if is_prediction else _evaluations(args)
    require_writable(output)
    refuse_foreign(output, f"<title>{title}", "a report by this command")
    write_texts({output: make()})
    print(f"Wrote {output}")


def _evaluations(args: argparse.Namespace) -> tuple[str, Callable[[], str]]:
    """Title and maker of the page."""
    methods = load_methods(args.evaluations, args.names)
    if args.n_cases < 0:
        raise InputError(f"--n_cases is {args.n_cases}; give 0 or more.")
    if args.cases is not None:
        raise InputError(
            "--cases is for a prediction; of evaluations, --n_cases of the worst and best cases are shown."
        )
    return EVALUATION_TITLE, lambda: make_report(
        methods, images=args.images, channel=args.channel, n_cases=args.n_cases
    )


def _sheets(args: argparse.Namespace) -> tuple[str, Callable[[], str]]:
    """Title and maker of the page."""
    if args.names is not None:
        raise InputError(f"--names is for evaluations; {args.evaluations[0]} holds no {SUMMARY_FILE}.")
    found = find_prediction(args.evaluations[0], args.images, args.cases)
    return PREDICTION_TITLE, lambda: make_sheets(found, args.channel, args.np)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_report",
        "Write one self-contained HTML file. Of folders that nnUNetv2_conflunet_evaluate wrote: tables, figures, and "
        "the worst and best cases. Of a prediction: for each case its largest and its touching lesions in three "
        "planes, a table of all lesions, and a histogram of their sizes.",
    )
    add = parser.add_argument
    text = "one or more folders of evaluations; or one prediction, the output of nnUNetv2_predict"
    add("evaluations", type=Path, nargs="+", metavar="FOLDER", help=text)
    add("-i", "--images", type=Path, metavar="FOLDER", help="folder of the images to draw on, named as in nnU-Net")
    add("--channel", type=int, default=0, help="channel of the images to draw on")
    add("--names", nargs="+", help="evaluations: names of the methods (default: the names of the folders)")
    add("--n_cases", type=int, default=2, help="evaluations: number of worst and of best cases to show")
    add("--cases", nargs="+", help="prediction: the cases to show (default: all)")
    add("-o", type=Path, metavar="FILE", help="file to write (default: report.html in the first folder)")
    add_num_processes(parser)
    return parser
