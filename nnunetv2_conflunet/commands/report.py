"""The command ``nnUNetv2_conflunet_report``."""

import argparse
from pathlib import Path

from nnunetv2_conflunet.evaluation.report.comparison import load_methods
from nnunetv2_conflunet.evaluation.report.report import TITLE, make_report
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import write_texts
from nnunetv2_conflunet.utilities.writable import require_writable

# Within these the title of a page stands.
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
    page = make_report(methods, images=args.images, n_cases=args.n_cases)
    write_texts({output: page})
    print(f"Wrote {output}")


def _refuse_foreign(output: Path) -> None:
    """Raise an InputError where a file with other content stands."""
    if not output.exists():
        return
    with output.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head and f"<title>{TITLE}".encode() not in head:
        raise InputError(f"{output} exists and is no report of this command; name another file, or move it away.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_conflunet_report",
        description="One self-contained HTML file with the tables, figures and worst and best cases of the folders "
        "that nnUNetv2_conflunet_evaluate wrote.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("evaluations", type=Path, nargs="+", help="one or more evaluated folders")
    parser.add_argument("-i", "--images", type=Path, metavar="FOLDER", help="images in nnU-Net's naming, to draw on")
    parser.add_argument("--names", nargs="+", help="names of the methods; the folders' names when left out")
    parser.add_argument("--n_cases", type=int, default=2, help="cases to show from either end")
    parser.add_argument("-o", type=Path, metavar="FILE", help="the file; report.html in the first folder when left out")
    return parser
