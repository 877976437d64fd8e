"""The command ``nnUNetv2_conflunet_compare``."""

import argparse
from pathlib import Path

import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.results import load_methods
from nnunetv2_conflunet.evaluation.report.comparison import PAPER_METRICS, compare_methods
from nnunetv2_conflunet.evaluation.report.comparison_tables import latex_table, markdown_tables
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.files import write_texts
from nnunetv2_conflunet.utilities.options import make_parser
from nnunetv2_conflunet.utilities.spreadsheets import as_csv
from nnunetv2_conflunet.utilities.writable import require_writable

FILES = "comparison.md", "comparison.tex", "comparison.csv"


def main() -> None:
    """Entry point."""
    run_command(lambda: compare(_parser().parse_args()))


def compare(args: argparse.Namespace) -> None:
    """Compare evaluations, print the tables, and write them if an output folder is given."""
    methods = load_methods(args.evaluations, args.names)
    if args.o is not None:
        require_writable(*(args.o / name for name in FILES))
    comparison = compare_methods(methods, args.metrics or list(PAPER_METRICS), seed=args.seed)
    text = markdown_tables(comparison)
    print(text)
    if args.o is None:
        return
    table = comparison.differences
    if comparison.detection is not None:
        table = pd.concat([table, comparison.detection], ignore_index=True)
    contents = text, latex_table(comparison), as_csv(table)
    write_texts({args.o / name: content for name, content in zip(FILES, contents, strict=True)})
    print(f"Wrote {FILES[0]}, {FILES[1]} and {FILES[2]} to {args.o}")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_compare",
        "Compare methods side by side, from the folders that nnUNetv2_conflunet_evaluate wrote: means, paired "
        "differences with 95 % bootstrap intervals over cases, paired t-tests and Wilcoxon signed-rank tests. The "
        "p-values of each test are corrected by Holm's method over all comparisons in the table. FROC and AP are "
        "compared where every evaluation has them.",
    )
    add = parser.add_argument
    add("evaluations", type=Path, nargs="+", help="two or more folders of evaluations")
    add("--names", nargs="+", help="names of the methods (default: the names of the folders)")
    add("--metrics", nargs="+", help="metrics to compare (default: those of the paper)")
    add("--seed", type=int, default=0, help="seed of the bootstrap")
    add("-o", type=Path, metavar="FOLDER", help="folder to write Markdown, LaTeX and CSV tables to")
    return parser
