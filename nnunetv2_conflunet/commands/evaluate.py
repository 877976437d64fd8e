"""The command ``nnUNetv2_conflunet_evaluate``."""

import argparse
from dataclasses import replace
from pathlib import Path

from nnunetv2_conflunet.evaluation.cohort.cases import evaluate_pairs, expected_pairs, lesion_table
from nnunetv2_conflunet.evaluation.cohort.confidences import (
    check_tables,
    refuse_places_of_tables,
    refuse_without_confidences,
)
from nnunetv2_conflunet.evaluation.cohort.detection import cases_left_out
from nnunetv2_conflunet.evaluation.cohort.pairing import pair_folders
from nnunetv2_conflunet.evaluation.cohort.parts import check_part, merge_parts, part_file, write_part
from nnunetv2_conflunet.evaluation.cohort.results import result_files, write_results
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.cohort.summary import summarize
from nnunetv2_conflunet.evaluation.report.detection import print_detection
from nnunetv2_conflunet.evaluation.report.tables import print_summary
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS
from nnunetv2_conflunet.utilities.cluster import add_cluster, on_cluster
from nnunetv2_conflunet.utilities.commands import add_num_processes, run_command
from nnunetv2_conflunet.utilities.options import add_options, chosen, make_parser
from nnunetv2_conflunet.utilities.writable import require_writable


def main() -> None:
    """Entry point."""
    run_command(lambda: on_cluster(evaluate, _parser().parse_args()))


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate a folder, or a part of it, or merge its parts; write the results and print the table."""
    values = chosen(EvaluationSettings, args)
    if args.chill:
        values["missing"] = "skip"
    if args.no_size_filter:
        values |= dict.fromkeys(LIMITS, 0.0)
    settings = EvaluationSettings(**values)
    check_part(args.part_id, args.num_parts)
    pairing = pair_folders(args.reference, args.prediction, args.djfile)
    settings = replace(settings, unknown=pairing.unknown)
    output = args.o or args.prediction
    whole = args.merge or args.num_parts == 1
    refuse_places_of_tables(result_files(output), pairing.pairs)
    require_writable(*(result_files(output) if whole else [part_file(output, args.part_id, args.num_parts)]))
    pairs = expected_pairs(pairing, settings)
    if args.froc:
        check_tables(pairs)
    if args.merge:
        cases = merge_parts(output, args.num_parts, settings, pairs)
    else:
        cases = evaluate_pairs(pairs[args.part_id :: args.num_parts], pairing.reader, settings, args.np)
    if args.froc:
        refuse_without_confidences(cases_left_out({case.case: case.detection for case in cases}))
    if not whole:
        print(f"Wrote {write_part(output, args.part_id, args.num_parts, settings, cases)}; --merge joins the parts.")
        return
    lesions = lesion_table(cases)
    summary = summarize(cases, lesions, settings, pairing)
    files = write_results(output, summary, cases, lesions)
    print_summary(summary, str(args.prediction))
    print_detection(summary)
    print("Wrote " + ", ".join(map(str, files)))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "nnUNetv2_conflunet_evaluate",
        "Compute lesion-level metrics of a folder of instance maps. Writes summary_instances.json, cases.csv and "
        "lesions.csv. docs/metrics.md defines the metrics.",
    )
    add = parser.add_argument
    add("reference", type=Path, help="folder of reference instance maps, such as instancesTr")
    add("prediction", type=Path, help="output of nnUNetv2_predict, a validation folder, or a folder of instance maps")
    add("-o", type=Path, metavar="FOLDER", help="output folder (default: the folder of the predictions)")
    add("-djfile", type=Path, metavar="FILE", help="dataset.json (default: the one found near either folder)")
    add_num_processes(parser)
    add_cluster(parser)
    add_options(parser, EvaluationSettings, ("iou_threshold", "matching", "connectivity", "clu", "undefined", "beta"))
    add("--froc", action="store_true", help="end if predictions lack the lesion tables that FROC and AP need")
    missing = parser.add_mutually_exclusive_group()
    add_options(missing, EvaluationSettings, ["missing"])
    missing.add_argument("--chill", action="store_true", help="leave out references without a prediction")
    limits = parser.add_argument_group("size filter, of references and predictions")
    add_options(limits, EvaluationSettings, LIMITS)
    limits.add_argument("--no_size_filter", action="store_true", help="keep lesions of every size")
    add_options(parser, EvaluationSettings, ("surface", "nsd_tolerance_mm", "volume_bins_mm3"))
    parts = parser.add_argument_group("evaluation in parts, such as cluster jobs")
    parts.add_argument("-num_parts", type=int, default=1, help="number of parts that share the cases")
    parts.add_argument("-part_id", type=int, default=0, help="part to evaluate now, counted from 0")
    parts.add_argument("--merge", action="store_true", help="merge the parts and write the results")
    return parser
