"""The command ``nnUNetv2_conflunet_export``."""

import argparse
from pathlib import Path

from nnunetv2_conflunet.formats.export import export_folder
from nnunetv2_conflunet.formats.settings import ExportSettings
from nnunetv2_conflunet.utilities.commands import add_num_processes, report_failures, run_command
from nnunetv2_conflunet.utilities.errors import list_lines
from nnunetv2_conflunet.utilities.options import add_options, chosen, make_parser


def main() -> None:
    """Entry point."""
    run_command(lambda: export(_parser().parse_args()))


def export(args: argparse.Namespace) -> int:
    """Export a folder of instance maps; returns 1 if cases failed."""
    settings = ExportSettings(**chosen(ExportSettings, args))
    exported, failures = export_folder(args.i, args.o, settings, num_processes=args.np, overwrite=args.overwrite)
    notes = [f"{case}: {result.note}" for case, result in exported.items() if result.note]
    n_lesions = sum(result.n_lesions for result in exported.values())
    print(f"{len(exported) - len(notes)} cases with {n_lesions} lesions written to {args.o} ({settings.format}).")
    if notes:
        print(f"Not written:\n{list_lines(notes)}")
    return report_failures(failures, len(exported) + len(failures))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_export",
        "Write instance maps for other programs: ITK-SNAP, 3D Slicer, BIDS derivatives or DICOM Segmentation, with a "
        "name and a color for each lesion, and its values from the lesion table where the format has a place for them.",
    )
    add = parser.add_argument
    add("-i", type=Path, required=True, metavar="PRED", help="output of nnUNetv2_predict, or a folder of instance maps")
    add("-o", type=Path, required=True, metavar="OUT", help="output folder")
    add_options(parser, ExportSettings)
    add_num_processes(parser)
    add("--overwrite", action="store_true", help="replace files that exist")
    return parser
