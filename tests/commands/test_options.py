"""The options of every command: their names, defaults, types and choices are what scripts rely on."""

import argparse
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import joblib
import pytest
from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet.utilities.commands import number_of_processes
from nnunetv2_conflunet.utilities.options import add_options, as_text, chosen, make_parser, option, options_of

PROCESSES = min(default_num_processes, joblib.cpu_count())
CLUSTER = ("cluster", "--cluster", None)
# Name of the value, spellings, default, type, choices, number of arguments.
OPTIONS = {
    "path": [],
    "prepare": [
        ("d", "-d", None),
        ("p", "-p", "nnUNetPlans"),
        ("c", "-c", None, None, None, "+"),
        ("np", "-np", PROCESSES, number_of_processes),
        CLUSTER,
        ("paper_configuration", "--paper_configuration", False, None, None, 0),
        ("lesion_crops", "--lesion_crops", False, None, None, 0),
        ("labels_from_instances", "--labels_from_instances", False, None, None, 0),
        ("instances_from_labels", "--instances_from_labels", False, None, None, 0),
        ("connectivity", "--connectivity", 26, int, (6, 18, 26)),
        ("unknown_components", "--unknown_components", False, None, None, 0),
        ("component_max_diameter_mm", "--component_max_diameter_mm", 10.0, float),
        ("component_min_solidity", "--component_min_solidity", 0.9, float),
        ("component_h_maxima_mm", "--component_h_maxima_mm", 0.5, float),
        ("draft", "--draft", None, None, ("watershed", "acls", "center_offset")),
        ("draft_folder", "--draft_folder", None, Path),
        ("draft_predictions", "--draft_predictions", None, Path, None, "+"),
        ("draft_single_only", "--draft_single_only", False, None, None, 0),
        ("draft_h_maxima_mm", "--draft_h_maxima_mm", 0.5, float),
        ("draft_acls_preset", "--draft_acls_preset", "lou2021", None, ("lou2021", "dworkin2018")),
        ("overwrite", "--overwrite", False, None, None, 0),
        ("border_core", "--border_core", None, int),
        ("border_thickness_mm", "--border_thickness_mm", 1.0, float),
        ("annotations", "--annotations", None, Path),
        ("annotation_pictures", "--annotation_pictures", 15, int),
        ("min_volume_mm3", "--min_volume_mm3", 14.0, float),
        ("min_extent_mm", "--min_extent_mm", 3.0, float),
        ("min_area_mm2", "--min_area_mm2", 0.0, float),
        ("far_apart_mm", "--far_apart_mm", 30.0, float),
    ],
    "instantiate": [
        ("i", "-i", None, Path),
        ("o", "-o", None, Path),
        ("heads", "--heads", None, Path),
        ("settings_from", "--settings_from", None, Path),
        ("method", "-m", None, None, ("center_offset", "cc", "acls", "watershed", "border_core")),
        ("pieces", "--pieces", None, None, ("offsets", "climbing")),
        ("heatmap_threshold", "--heatmap_threshold", None, float),
        ("window_mm", "--window_mm", None, float),
        ("min_prominence", "--min_prominence", None, float),
        ("min_consistency", "--min_consistency", None, float),
        ("top_k", "--top_k", None, int),
        ("acls_preset", "--acls_preset", None, None, ("lou2021", "dworkin2018")),
        ("h_maxima_mm", "--h_maxima_mm", None, float),
        ("connectivity", "--connectivity", None, int),
        ("min_volume_mm3", "--min_volume_mm3", None, float),
        ("min_extent_mm", "--min_extent_mm", None, float),
        ("min_area_mm2", "--min_area_mm2", None, float),
        ("min_confidence", "--min_confidence", None, float),
        ("no_merging", "--no_merging", False, None, None, 0),
        ("np", "-np", PROCESSES, number_of_processes),
        CLUSTER,
        ("overwrite", "--overwrite", False, None, None, 0),
    ],
    "determine_postprocessing": [
        ("i", "-i", None, Path),
        ("d", "-d", None),
        ("c", "-c", "3d_fullres"),
        ("tr", "-tr", "nnUNetTrainerConfLUNet"),
        ("p", "-p", "nnUNetPlans"),
        ("f", "-f", ["0", "1", "2", "3", "4"], None, None, "+"),
        ("ref", "-ref", None, Path),
        ("metric", "--metric", "PQ"),
        ("heatmap_threshold", "--heatmap_threshold", argparse.SUPPRESS, float, None, "+"),
        ("window_mm", "--window_mm", argparse.SUPPRESS, float, None, "+"),
        ("min_prominence", "--min_prominence", argparse.SUPPRESS, float, None, "+"),
        ("min_consistency", "--min_consistency", argparse.SUPPRESS, float, None, "+"),
        ("min_volume_mm3", "--min_volume_mm3", argparse.SUPPRESS, float, None, "+"),
        ("min_extent_mm", "--min_extent_mm", argparse.SUPPRESS, float, None, "+"),
        ("min_area_mm2", "--min_area_mm2", argparse.SUPPRESS, float, None, "+"),
        ("min_confidence", "--min_confidence", argparse.SUPPRESS, float, None, "*"),
        ("iou_threshold", "--iou_threshold", 0.1, float),
        ("score_min_volume_mm3", "--score_min_volume_mm3", 14.0, float),
        ("score_min_extent_mm", "--score_min_extent_mm", 3.0, float),
        ("score_min_area_mm2", "--score_min_area_mm2", 0.0, float),
        ("ignore_stock_postprocessing", "--ignore_stock_postprocessing", False, None, None, 0),
        ("no_merging", "--no_merging", False, None, None, 0),
        ("seed", "--seed", 0, int),
        ("np", "-np", PROCESSES, number_of_processes),
        CLUSTER,
        ("dry_run", "--dry_run", False, None, None, 0),
    ],
    "evaluate": [
        ("reference", "", None, Path),
        ("prediction", "", None, Path),
        ("o", "-o", None, Path),
        ("djfile", "-djfile", None, Path),
        ("np", "-np", PROCESSES, number_of_processes),
        CLUSTER,
        ("iou_threshold", "--iou_threshold", 0.1, float),
        ("matching", "--matching", "paper", None, ("paper", "isbi2024", "greedy", "hungarian")),
        ("connectivity", "--connectivity", 26, int, (6, 18, 26)),
        ("clu", "--clu", "shared", None, ("shared", "eq3", "published")),
        ("undefined", "--undefined", "nan", None, ("nan", "worst", "authors")),
        ("beta", "--beta", None, float),
        ("froc", "--froc", False, None, None, 0),
        ("missing", "--missing", "error", None, ("error", "worst")),
        ("chill", "--chill", False, None, None, 0),
        ("min_volume_mm3", "--min_volume_mm3", 14.0, float),
        ("min_extent_mm", "--min_extent_mm", 3.0, float),
        ("min_area_mm2", "--min_area_mm2", 0.0, float),
        ("no_size_filter", "--no_size_filter", False, None, None, 0),
        ("surface", "--surface", False, None, None, 0),
        ("nsd_tolerance_mm", "--nsd_tolerance_mm", 1.0, float),
        ("volume_bins_mm3", "--volume_bins_mm3", (30.0, 100.0, 300.0, 1000.0), float, None, "*"),
        ("num_parts", "-num_parts", 1, int),
        ("part_id", "-part_id", 0, int),
        ("merge", "--merge", False, None, None, 0),
    ],
    "compare": [
        ("evaluations", "", None, Path, None, "+"),
        ("names", "--names", None, None, None, "+"),
        ("metrics", "--metrics", None, None, None, "+"),
        ("seed", "--seed", 0, int),
        ("o", "-o", None, Path),
    ],
    "report": [
        ("evaluations", "", None, Path, None, "+"),
        ("images", "-i/--images", None, Path),
        ("channel", "--channel", 0, int),
        ("names", "--names", None, None, None, "+"),
        ("n_cases", "--n_cases", 2, int),
        ("cases", "--cases", None, None, None, "+"),
        ("o", "-o", None, Path),
        ("np", "-np", PROCESSES, number_of_processes),
    ],
    "export": [
        ("i", "-i", None, Path),
        ("o", "-o", None, Path),
        ("format", "--format", "itksnap", None, ("itksnap", "slicer", "bids", "dicomseg")),
        ("names", "--names", None, Path),
        ("pattern", "--pattern", None),
        ("series", "--series", None, Path),
        ("np", "-np", PROCESSES, number_of_processes),
        ("overwrite", "--overwrite", False, None, None, 0),
    ],
    "simulate": [
        ("dataset_id", "-d/--dataset_id", 101, int),
        ("name", "-n/--name", "SimulatedLesions"),
        ("output", "-o/--output", None, Path),
        ("overwrite", "--overwrite", False, None, None, 0),
        ("statistics", "--statistics", False, None, None, 0),
        ("training_cases", "--training_cases", 20, int),
        ("test_cases", "--test_cases", 6, int),
        ("spacing_mm", "--spacing", (1.0, 1.0, 1.0), float, None, 3),
        ("crop_mm", "--crop", (96.0, 112.0, 96.0), float, None, 3),
        ("whole_brain", "--whole_brain", False, None, None, 0),
        ("seed", "--seed", 0, int),
        ("lesions", "--lesions", None, float),
        ("dispersion", "--dispersion", 1.4, float),
        ("confluent_share", "--confluent_share", 0.2, float),
        ("near_miss_share", "--near_miss_share", 0.1, float),
        ("lesion_free_share", "--lesion_free_share", 0.0, float),
        ("np", "-np/--processes", 1, number_of_processes),
        CLUSTER,
    ],
}
REQUIRED = {
    "prepare": {"d"},
    "instantiate": {"i", "o"},
    "evaluate": {"reference", "prediction"},
    "compare": {"evaluations"},
    "report": {"evaluations"},
    "export": {"i", "o"},
}


@pytest.mark.parametrize("command", OPTIONS)
def test_options_are_as_they_were(command):
    parser = import_module(f"nnunetv2_conflunet.commands.{command}")._parser()
    found = {
        action.dest: (
            "/".join(action.option_strings),
            tuple(action.default) if action.type is float and isinstance(action.default, list) else action.default,
            action.type,
            action.choices and tuple(action.choices),
            action.nargs,
        )
        for action in parser._actions[1:]
    }
    expected = {name: (*row, *(None,) * (5 - len(row))) for name, *row in OPTIONS[command]}
    assert found == expected
    assert {action.dest for action in parser._actions if action.required} == REQUIRED.get(command, set())


@pytest.mark.parametrize("command", OPTIONS)
def test_help_shows_every_default_and_no_empty_one(command):
    parser = import_module(f"nnunetv2_conflunet.commands.{command}")._parser()
    text = parser.format_help()
    assert text.startswith(f"usage: nnUNetv2_conflunet_{command} ")
    assert "None" not in text and "False" not in text and "SUPPRESS" not in text
    assert all(action.help for action in parser._actions)
    for action in parser._actions:
        if action.default not in (None, False, argparse.SUPPRESS):
            assert f"(default: {as_text(action.default)})" in " ".join(text.split())


@dataclass(frozen=True)
class Settings:
    method: str = option("fast", "the method", flag="-m", choices=("fast", "slow"))
    window_mm: float = option(3.0, "width", metavar="MM")
    n: int | None = option(None, "number")
    bins: tuple[float, ...] = option((1.0, 2.0), "borders")
    crop: tuple[float, float] | None = option((4.0, 5.0), "size")
    surface: bool = option(False, "add surfaces")
    internal: int = 7


def parsed(*arguments, **how):
    parser = make_parser("command", "Does it.")
    add_options(parser, Settings, **how)
    return parser.parse_args(arguments)


def test_only_options_are_options():
    assert "internal" not in options_of(Settings)
    with pytest.raises(SystemExit):
        parsed("--internal", "8")


def test_what_is_left_out_has_the_default_of_its_field():
    assert Settings(**chosen(Settings, parsed())) == Settings()


def test_what_is_given_has_the_type_of_its_field():
    args = parsed("-m", "slow", *["--window_mm", "2", "--n", "3", "--bins", "9", "--crop", "1", "2", "--surface"])
    assert Settings(**chosen(Settings, args)) == Settings("slow", 2.0, 3, (9.0,), (1.0, 2.0), True)
    assert chosen(Settings, parsed("--bins"))["bins"] == ()


@pytest.mark.parametrize("wrong", ["-m other", "--window_mm wide", "--n 1.5", "--crop 1"])
def test_what_does_not_fit_a_field_is_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed(*wrong.split())
    assert f"argument {wrong.split()[0]}" in capsys.readouterr().err


def test_options_of_a_model_are_none_when_left_out():
    args = parsed("--n", "3", names=["window_mm", "n", "crop"], instead="the model's")
    assert chosen(Settings, args) == {"n": 3}


def test_help_of_options_of_a_model_names_both_defaults():
    parser = make_parser("command", "Does it.")
    add_options(parser, Settings, ["window_mm", "n"], instead="the model's")
    text = " ".join(parser.format_help().split())
    assert "width (default: the model's, else 3)" in text and "number (default: the model's, else all)" in text


def test_a_prefix_parts_two_uses_of_a_field():
    parser = make_parser("command", "Does it.")
    add_options(parser, Settings, ["window_mm"])
    add_options(parser, Settings, ["window_mm"], prefix="score_")
    args = parser.parse_args(["--score_window_mm", "8"])
    assert chosen(Settings, args) == {"window_mm": 3.0}
    assert chosen(Settings, args, "score_") == {"window_mm": 8.0}


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
@pytest.mark.parametrize("command", [command for command, rows in OPTIONS.items() if "np" in {row[0] for row in rows}])
def test_there_is_at_least_one_process(command, number, capsys):
    with pytest.raises(SystemExit):
        import_module(f"nnunetv2_conflunet.commands.{command}")._parser().parse_args([f"-np={number}"])
    assert f"'{number}' is no number of processes; give 1 or more" in capsys.readouterr().err


def test_the_path_is_printed_only_without_options(monkeypatch, capsys):
    main = import_module("nnunetv2_conflunet.commands.path").main
    monkeypatch.setattr("sys.argv", ["nnUNetv2_conflunet_path"])
    main()
    assert (Path(capsys.readouterr().out.strip()) / "nnunetv2_conflunet_trainers.py").is_file()
    for given, status, shown in (("-h", 0, "usage: nnUNetv2_conflunet_path"), ("--unknown", 2, "")):
        monkeypatch.setattr("sys.argv", ["nnUNetv2_conflunet_path", given])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr().out
        assert stopped.value.code == status and printed.startswith(shown) and "nnunet_ext\n" not in printed
