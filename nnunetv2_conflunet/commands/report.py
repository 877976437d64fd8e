"""The command ``nnUNetv2_conflunet_report``."""

import argparse
from pathlib import Path

from nnunetv2_conflunet.evaluation.cohort.results import load_methods
from nnunetv2_conflunet.evaluation.report.report import TITLE, make_report
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import write_texts
from nnunetv2_conflunet.utilities.options import make_parser
from nnunetv2_conflunet.utilities.writable import require_writable

# The title is within the first bytes of the page.
HEAD_BYTES = 1000


def main() -> None:
    """Entry point."""
    run_command(lambda: report(_parser().parse_args()))


def report(args: argparse.Namespace) -> None:
    """Write the report of one or more evaluations."""
    methods = load_methods(args.evaluations, args.names)
    if args.n_cases < 0:
        raise InputError(f"--n_cases is {args.n_cases}; give 0 or more.")
    if args.images is not None and not args.images.is_dir():
        raise InputError(f"{args.images} is not a folder; give the folder of the images, such as imagesTs.")
    output = args.o or methods[0].folder / "report.html"
    require_writable(output)
    _refuse_foreign(output)
    write_texts({output: make_report(methods, images=args.images, n_cases=args.n_cases)})
    print(f"Wrote {output}")


def _refuse_foreign(output: Path) -> None:
    """Raise an InputError if a file holds anything but a report."""
    if not output.exists():
        return
    with output.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head and f"<title>{TITLE}".encode() not in head:
        raise InputError(f"{output} exists and is not a report by this command; name another file, or move it away.")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_report",
        "Write one self-contained HTML file with tables, figures, and the worst and best cases of the folders that "
        "nnUNetv2_conflunet_evaluate wrote.",
    )
    add = parser.add_argument
    add("evaluations", type=Path, nargs="+", help="one or more folders of evaluations")
    add("-i", "--images", type=Path, metavar="FOLDER", help="folder of the images to draw on, named as in nnU-Net")
    add("--names", nargs="+", help="names of the methods (default: the names of the folders)")
    add("--n_cases", type=int, default=2, help="number of worst and of best cases to show")
    add("-o", type=Path, metavar="FILE", help="file to write (default: report.html in the first folder)")
    return parser
