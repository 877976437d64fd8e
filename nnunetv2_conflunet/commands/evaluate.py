"""The command ``nnUNetv2_conflunet_evaluate``."""

import argparse
from pathlib import Path

import joblib
from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet.evaluation.cohort.cases import lesion_table
from nnunetv2_conflunet.evaluation.cohort.folder import evaluate_pairs, expected_pairs
from nnunetv2_conflunet.evaluation.cohort.pairing import pair_folders
from nnunetv2_conflunet.evaluation.cohort.parts import check_part, merge_parts, part_file, write_part
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.cohort.summary import result_files, summarize, write_results
from nnunetv2_conflunet.evaluation.metrics.confluence import CLU_DEFINITIONS
from nnunetv2_conflunet.evaluation.metrics.formulas import UNDEFINED_POLICIES
from nnunetv2_conflunet.evaluation.metrics.matching import MATCHING_RULES
from nnunetv2_conflunet.evaluation.report.tables import print_summary
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.writable import require_writable


def main() -> None:
    """Entry point."""
    run_command(lambda: evaluate(_parser().parse_args()))


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate a folder, or a part of it, or merge its parts; write the results and print the table."""
    settings = EvaluationSettings(
        iou_threshold=args.iou_threshold,
        matching=args.matching,
        connectivity=args.connectivity,
        clu=args.clu,
        undefined=args.undefined,
        missing="skip" if args.chill else args.missing,
        **{name: 0.0 if args.no_size_filter else getattr(args, name) for name in LIMITS},
        surface=args.surface,
        nsd_tolerance_mm=args.nsd_tolerance_mm,
        volume_bins_mm3=tuple(args.volume_bins_mm3),
    )
    check_part(args.part_id, args.num_parts)
    pairing = pair_folders(args.reference, args.prediction, args.djfile)
    output = args.o or args.prediction
    whole = args.merge or args.num_parts == 1
    require_writable(*(result_files(output) if whole else [part_file(output, args.part_id, args.num_parts)]))
    if args.merge:
        expected = [pair.case for pair in expected_pairs(pairing, settings)]
        cases = merge_parts(output, args.num_parts, settings, expected)
    else:
        cases = evaluate_pairs(pairing, settings, args.np, slice(args.part_id, None, args.num_parts))
        if not whole:
            print(
                f"Wrote {write_part(output, args.part_id, args.num_parts, settings, cases)}; --merge joins the parts."
            )
            return
    lesions = lesion_table(cases)
    summary = summarize(cases, lesions, settings, pairing)
    files = write_results(output, summary, cases, lesions)
    print_summary(summary, str(args.prediction))
    print("Wrote " + ", ".join(map(str, files)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_conflunet_evaluate",
        description="Lesion-level metrics of a folder of instance maps. Writes summary_instances.json, cases.csv and "
        "lesions.csv. The definitions are in docs/metrics.md.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = EvaluationSettings()
    add = parser.add_argument
    add("reference", type=Path, help="folder of reference instance maps, such as instancesTr")
    add("prediction", type=Path, help="output of nnUNetv2_predict, a validation folder, or a folder of instance maps")
    add("-o", type=Path, metavar="FOLDER", help="where to write; the folder PREDICTION when left out")
    add("-djfile", type=Path, metavar="FILE", help="dataset.json; searched near both folders when left out")
    add("-np", type=int, default=min(default_num_processes, joblib.cpu_count()), help="worker processes")
    add("--iou_threshold", type=float, default=defaults.iou_threshold, help="a pair matches above it")
    add("--matching", choices=tuple(MATCHING_RULES), default=defaults.matching, help="matching rule")
    add("--connectivity", type=int, choices=(6, 18, 26), default=defaults.connectivity, help="of confluent lesions")
    add("--clu", choices=CLU_DEFINITIONS, default=defaults.clu, help="definition of a confluent lesion unit")
    add("--undefined", choices=UNDEFINED_POLICIES, default=defaults.undefined, help="what undefined ratios become")
    missing = parser.add_mutually_exclusive_group()
    missing.add_argument(
        "--missing", choices=("error", "worst"), default="error", help="references without a prediction: stop, or score"
    )
    missing.add_argument("--chill", action="store_true", help="leave references without a prediction out")
    add("--min_volume_mm3", type=float, default=defaults.min_volume_mm3, help="smaller lesions are removed, both sides")
    add("--min_extent_mm", type=float, default=defaults.min_extent_mm, help="shorter lesions are removed, both sides")
    add("--min_area_mm2", type=float, default=defaults.min_area_mm2, help="in a plane, instead of the volume")
    add("--no_size_filter", action="store_true", help="keep lesions of every size")
    add("--surface", action="store_true", help="add ASD, HD95 and NSD of matched lesions")
    add("--nsd_tolerance_mm", type=float, default=defaults.nsd_tolerance_mm, help="tolerance of NSD")
    add("--volume_bins_mm3", type=float, nargs="*", default=defaults.volume_bins_mm3, help="borders of volume strata")
    add("-num_parts", type=int, default=1, help="number of parts that share the cases")
    add("-part_id", type=int, default=0, help="the part to evaluate now, from 0")
    add("--merge", action="store_true", help="join the parts that were evaluated and write the results")
    return parser
