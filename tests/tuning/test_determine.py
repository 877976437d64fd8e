"""The choice on whole model folders whose best settings are known."""

import importlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from support import (
    dataset_json,
    end_validation,
    file_system,
    files_of,
    nnunet_environment,
    run,
    said_of_a_full_disk,
    small_plans,
    write_nifti,
)

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.inference.instantiate_folder import instantiate_folder
from nnunetv2_conflunet.inference.model_settings import SETTINGS_KEY, UNTUNED_KEY, ModelSettings
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.tuning import Grid, TuningSettings, determine_postprocessing
from nnunetv2_conflunet.tuning.description import describe
from nnunetv2_conflunet.tuning.determine import default_grid
from nnunetv2_conflunet.tuning.model_folder import ModelFolder
from nnunetv2_conflunet.tuning.search import SEARCHED
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json, write_json

pytestmark = pytest.mark.slow

determine_module = importlib.import_module("nnunetv2_conflunet.tuning.determine")
DEFAULT = InstantiationSettings()
# A wider window, prominence and consistency would remove false peaks, too.
GRID = Grid(
    heatmap_threshold=(0.1, 0.45, 0.8),
    window_mm=(3,),
    min_prominence=(0,),
    min_consistency=(0,),
    min_volume_mm3=(14, 30),
    min_extent_mm=(3,),
)


def determine(model, references, folds=("0", "1"), grid=GRID, dry_run=False, **settings):
    settings = TuningSettings(grid=grid, **settings)
    return determine_postprocessing(model, list(folds), references, settings, num_processes=1, dry_run=dry_run)


def stored(model):
    return json.loads((model / "plans.json").read_text())[SETTINGS_KEY]


def chosen(record):
    return InstantiationSettings(**record["chosen"])


def mean_at(model, settings, metric="PQ"):
    table = pd.read_csv(model / "instance_postprocessing.csv")
    for name in SEARCHED:
        table = table[table[name] == getattr(settings, name)]
    (row,) = table.to_dict("records")
    return row[f"{metric}_mean"]


def test_fields_of_the_settings_can_be_given_by_name(tmp_path, toys, references):
    """As docs/tuning.md shows; None stands for the default."""
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(4)])
    by_name = determine_postprocessing(
        model, ["0", "1"], references, metric="F1", grid=GRID, scoring=None, num_processes=1, dry_run=True
    )
    assert by_name == determine(model, references, metric="F1", dry_run=True)


@pytest.mark.parametrize("metric", ["PQ", "F1"])
def test_the_threshold_above_false_and_below_true_peaks(tmp_path, toys, references, metric):
    # False peaks of 0.3 divide every lesion; at 0.8 no peak is left, so touching lesions are one.
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(4)])
    record = determine(model, references, metric=metric)
    assert chosen(record) == replace(DEFAULT, heatmap_threshold=0.45)
    assert (record["decision"], record["n_cases"]) == ("tuned", 4)
    assert record["best"]["PQ"] == record["best"]["F1"] == record["held_out"] == 1
    assert mean_at(model, replace(DEFAULT, heatmap_threshold=0.45)) == 1
    # Two of four lesions at best: each pair is one instance.
    assert mean_at(model, replace(DEFAULT, heatmap_threshold=0.8), "F1") == pytest.approx(2 * 2 / (4 + 2))


@pytest.mark.parametrize("name, values", [("window_mm", (3.0, 9.0, 17.0)), ("min_prominence", (0.0, 0.45, 0.99))])
def test_the_middle_value_parts_false_peaks_from_lesions(tmp_path, toys, references, name, values):
    # The second peak of every lesion lies 3 mm aside, the neighbor 7 mm; the ridge to it falls by 0.39 of its height,
    # that to the neighbor by 0.989.
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.55) for _ in range(4)])
    record = determine(model, references, grid=replace(GRID, heatmap_threshold=(0.1,), **{name: values}))
    assert chosen(record) == replace(DEFAULT, **{name: values[1]})
    assert record["best"]["PQ"] == 1
    assert mean_at(model, DEFAULT) < 1 and mean_at(model, replace(DEFAULT, **{name: values[2]})) < 1


def test_the_size_filter_between_false_and_true_lesions(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(false_lesion=True) for _ in range(4)])
    record = determine(model, references, grid=replace(GRID, heatmap_threshold=(0.1,), min_volume_mm3=(14, 30, 500)))
    assert chosen(record) == replace(DEFAULT, min_volume_mm3=30.0)
    # Four true and one false lesion of 20 mm3, all matched ones perfect.
    assert mean_at(model, DEFAULT) == pytest.approx(2 * 4 / (5 + 4))
    assert mean_at(model, replace(DEFAULT, min_volume_mm3=30.0)) == 1
    # All lesions have 257 mm3. The limits that are tried do not act on the reference.
    assert mean_at(model, replace(DEFAULT, min_volume_mm3=500.0)) == 0


def test_limits_below_those_of_the_scoring_change_nothing(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(false_lesion=True) for _ in range(3)])
    grid = replace(GRID, heatmap_threshold=(0.1,), min_volume_mm3=(0, 14), min_extent_mm=(0, 3))
    record = determine(model, references, grid=grid, scoring=EvaluationSettings(min_volume_mm3=30))
    assert record["best"]["PQ"] == 1 and chosen(record) == DEFAULT
    assert (pd.read_csv(model / "instance_postprocessing.csv")["PQ_mean"] == 1).all()


def test_perfect_heads_keep_the_default(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene() for _ in range(3)])
    before = (model / "plans.json").read_text()
    record = determine(model, references)
    assert record["decision"] == "default is best" and chosen(record) == DEFAULT
    assert json.loads((model / "plans.json").read_text()) == json.loads(before)
    assert "default, which stays" in "\n".join(describe(record))


def test_the_default_stays_within_the_noise(tmp_path, toys, references):
    # The third patient has faint true peaks, which only the default finds.
    cases = [toys.scene(spurious=0.3), toys.scene(spurious=0.3), toys.scene(heights=(0.2, 0.25, 0.3, 0.35))]
    model = toys.write_model(tmp_path, cases)
    record = determine(model, references)
    assert record["best"]["settings"]["heatmap_threshold"] == 0.45 and record["difference"] > 0
    assert record["interval_95"][0] <= 0 <= record["interval_95"][1]
    assert record["decision"] == "default within the noise"
    assert chosen(record) == DEFAULT
    assert stored(model)["instantiation"] == DEFAULT.to_dict() and UNTUNED_KEY not in stored(model)
    assert "as good within the noise" in "\n".join(describe(record))


def test_a_trainers_own_default_is_the_one_to_beat_and_keeps_its_other_settings(tmp_path, toys, references):
    own = InstantiationSettings(heatmap_threshold=0.2, connectivity=18)
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(3)], own)
    record = determine(model, references)
    assert record["default"]["settings"] == own.to_dict()
    assert 0.2 in record["grid"]["heatmap_threshold"]
    assert chosen(record) == replace(own, heatmap_threshold=0.45)


def test_prediction_and_the_command_read_the_choice(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(3)])
    others = {k: v for k, v in json.loads((model / "plans.json").read_text()).items() if k != SETTINGS_KEY}
    settings = chosen(determine(model, references))
    plans = json.loads((model / "plans.json").read_text())
    assert {k: v for k, v in plans.items() if k != SETTINGS_KEY} == others
    assert (plans[SETTINGS_KEY]["alpha"], plans[SETTINGS_KEY]["sigma_mm"]) == (20, 2)
    assert ModelSettings.from_plans(plans).instantiation == settings
    validation = PredictionFolder.open(model / "fold_0" / "validation")
    assert validation.settings() == settings
    reports, _ = instantiate_folder(validation.folder, tmp_path / "out", validation.settings(), num_processes=1)
    assert [i["n_instances"] for i in reports.values()] == [4, 4]


def test_tuning_again_starts_from_the_trainers_settings(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(3)])
    first = determine(model, references)
    assert stored(model)[UNTUNED_KEY] == DEFAULT.to_dict()
    assert determine(model, references) == first
    for i in range(3):
        toys.write_case(tmp_path, i % 2, f"case{i}", toys.scene())
    assert determine(model, references)["default"]["settings"] == DEFAULT.to_dict()
    assert stored(model)["instantiation"] == DEFAULT.to_dict() and UNTUNED_KEY not in stored(model)


def test_a_trainer_keeps_a_choice_that_was_tuned_from_its_settings(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(3)])
    mine = ModelSettings.of_trainer(DEFAULT, alpha=5.0)

    def kept_of(settings, plans_file=model / "plans.json"):
        return settings.keeping_tuning_of(ModelSettings.from_model(plans_file))

    assert kept_of(mine) == mine
    assert kept_of(mine, model / "none.json") == mine
    settings = chosen(determine(model, references))
    kept = {"alpha": 5.0, "instantiation": settings.to_dict(), UNTUNED_KEY: DEFAULT.to_dict()}
    assert kept_of(mine).stored == kept
    other = ModelSettings.of_trainer(InstantiationSettings(window_mm=5.0), alpha=5.0)
    assert kept_of(other) == other
    # As an earlier version stored it, which had fewer settings.
    plans = read_json(model / "plans.json")
    for key in ("instantiation", UNTUNED_KEY):
        del plans[SETTINGS_KEY][key]["min_consistency"]
    write_json(plans, model / "plans.json")
    assert kept_of(mine).stored == kept


def test_a_dry_run_writes_nothing(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(3)])
    before = {i: i.stat().st_mtime_ns for i in model.rglob("*")}
    assert determine(model, references, dry_run=True)["decision"] == "tuned"
    assert {i: i.stat().st_mtime_ns for i in model.rglob("*")} == before


@pytest.mark.parametrize("name", ["instance_postprocessing.csv", "instance_postprocessing.json", "plans.json"])
def test_files_are_whole_or_as_they_were(tmp_path, toys, references, monkeypatch, name):
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(3)])
    (model / name).write_bytes(older := (model / "plans.json").read_bytes())
    replace_file = os.replace

    def failing(source, target):
        if os.path.basename(target) == name:
            raise OSError("disk full")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(InputError, match=r"cannot be written completely \(disk full\)"):
        determine(model, references)
    assert (model / name).read_bytes() == (model / "plans.json").read_bytes() == older
    assert [i.name for i in model.iterdir() if i.name.startswith(".")] == [".plans.lock"]


def test_the_table_holds_every_point(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(), toys.scene(spurious=0.3), toys.scene(empty=True)])
    record = determine(model, references)
    table = pd.read_csv(model / "instance_postprocessing.csv")
    assert len(table) == 3 * 1 * 2 * 1
    row = table[(table["heatmap_threshold"] == 0.45) & (table["window_mm"] == 3)].iloc[0]
    # The patient without lesions, of whom none are predicted, has no metric.
    assert (row["PQ_mean"], row["PQ_std"], row["PQ_n"], row["F1_n"]) == (1, 0, 2, 2)
    assert json.loads((model / "instance_postprocessing.json").read_text()) == record
    assert record["cases"] == ["case0", "case1", "case2"] and record["reference"] == str(references)


@pytest.mark.parametrize("typed", ["0_1", "1_0"])
def test_a_postprocessing_of_stock_nnunet_comes_first(tmp_path, toys, references, typed):
    made = toys.scene(false_lesion=True)
    # One lesion, and a false one that stock postprocessing takes away.
    made.reference[made.reference > 1] = 0
    made.segmentation[(made.reference == 0) & (np.arange(toys.shape[0])[:, None, None] > 3)] = 0
    model = toys.write_model(tmp_path, [made] * 2)
    without = determine(model, references)
    assert without["stock_postprocessing"] == [] and mean_at(model, DEFAULT) == pytest.approx(2 / 3)
    (model / "crossval_results_folds_0").mkdir()
    (model / "crossval_results_folds_0" / "postprocessing.pkl").write_bytes(b"of other folds")
    folder = model / f"crossval_results_folds_{typed}"
    folder.mkdir()
    content = [remove_all_but_largest_component_from_segmentation], [{"labels_or_regions": [1]}]
    (folder / "postprocessing.pkl").write_bytes(pickle.dumps(content))
    record = determine(model, references)
    assert mean_at(model, DEFAULT) == 1
    assert "after nnU-Net's remove_all_but_largest_component_from_segmentation" in describe(record)[0]
    assert determine(model, references, with_stock_postprocessing=False) == without
    (folder / "postprocessing.pkl").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"postprocessing\.pkl cannot be read"):
        determine(model, references)


class Program:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


STOCK = remove_all_but_largest_component_from_segmentation


@pytest.mark.parametrize(
    "content",
    [
        lambda path: Program(path),
        lambda path: ([Program(path)], [{}]),
        lambda path: ([Path.touch], [{"self": path}]),
        lambda path: ([STOCK], [{"unknown": 1}]),
        lambda path: ([STOCK], []),
        lambda path: ([STOCK], 3),
        lambda path: ([3], [{}]),
        lambda path: 3,
    ],
)
def test_nothing_but_nnunets_own_postprocessing_is_unpickled(tmp_path, toys, references, content):
    model = toys.write_model(tmp_path, [toys.scene()] * 2)
    folder, ran = model / "crossval_results_folds_0_1", tmp_path / "was run"
    folder.mkdir()
    (folder / "postprocessing.pkl").write_bytes(pickle.dumps(content(ran)))
    with pytest.raises(InputError, match=r"postprocessing\.pkl cannot be read \(.*; determine nnU-Net's postproc"):
        determine(model, references)
    assert not ran.exists()


def edit_plans(change):
    def break_(model, references):
        plans = json.loads((model / "plans.json").read_text())
        change(plans)
        (model / "plans.json").write_text(json.dumps(plans))

    return break_


def cut_heads(model, references):
    path = model / "fold_0" / "validation" / "instances" / "case0.npz"
    path.write_bytes(path.read_bytes()[:100])


def twice(model, references):
    source = model / "fold_0" / "validation" / "case0.nii.gz"
    (model / "fold_1" / "validation" / source.name).write_bytes(source.read_bytes())
    end_validation(model / "fold_1" / "validation")


def begin_again(model, references):
    source = model / "fold_1" / "validation" / "case1.nii.gz"
    source.with_name("case3.nii.gz").write_bytes(source.read_bytes())


def other_grid(model, references):
    write_nifti(np.ones((5, 6, 7), np.uint16), references / "case1.nii.gz")


def rename_reference(model, references):
    (references / "case1.nii.gz").rename(references / "case1.NII.GZ")


def rename_prediction(model, references):
    path = model / "fold_1" / "validation" / "case1.nii.gz"
    path.rename(path.with_name("case1.NII.GZ"))


def break_plans(model, references):
    (model / "plans.json").write_text('{"conflunet": {')


def no_lesions(model, references):
    for path in references.iterdir():
        write_nifti(np.zeros((20, 24, 32), np.uint16), path)


def test_a_fold_that_is_given_twice_counts_once(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(), toys.scene()])
    assert determine(model, references, folds=["0", "1", "0"], dry_run=True)["cases"] == ["case0", "case1"]


@pytest.mark.parametrize(
    "break_, options, message",
    [
        (None, {"metric": "Dice"}, "no metric 'Dice' to tune for; use one of PQ, F1"),
        (None, {"folds": ("0", "2")}, r"fold_2/validation does not exist; train fold 2 with --npz"),
        (None, {"grid": replace(GRID, window_mm=(-1,))}, "window_mm is -1.0; it must be a positive number"),
        (lambda model, _: (model / "plans.json").unlink(), {}, "plans.json does not exist; give a model folder"),
        (edit_plans(lambda plans: plans.pop(SETTINGS_KEY)), {}, "only models of ConfLUNet trainers have heads"),
        (edit_plans(lambda plans: plans[SETTINGS_KEY]["instantiation"].update(method="cc")), {}, "only center_offset"),
        (
            lambda model, _: (model / "fold_1" / "validation" / "instances" / "case1.npz").unlink(),
            {},
            r"1 of 2 validation cases have no heads: .*case1\.npz\. Validate again: nnUNetv2_train with --val --npz",
        ),
        (cut_heads, {}, r"case0: .*case0\.npz cannot be read"),
        (lambda _, references: (references / "case1.nii.gz").unlink(), {}, "has no instance map of case1; -ref names"),
        (rename_reference, {}, r"has no instance map of case1; -ref .*: case1\.NII\.GZ \(ends with \.NII\.GZ\)"),
        (rename_prediction, {}, r"holds no file that ends with \.nii\.gz; .* case1\.NII\.GZ \(ends with \.NII\.GZ\)"),
        (break_plans, {}, r"plans\.json is not valid JSON"),
        (edit_plans(lambda plans: plans["configurations"].clear()), {}, r"cannot use the configurations of .*plans"),
        (edit_plans(lambda plans: plans.update(configurations={"2d": 5})), {}, "cannot use the configurations of"),
        (edit_plans(dict.clear), {}, r"plans\.json is not a file of plans by nnU-Net: it has no dataset_name"),
        (
            lambda model, _: (model / "fold_1" / "validation" / "summary.json").unlink(),
            {},
            r"fold_1/validation lacks the summary\.json that nnU-Net writes last.*nnUNetv2_train with --val --npz",
        ),
        (begin_again, {}, r"fold_1/validation differs in case3 from the summary\.json that nnU-Net writes last"),
        (other_grid, {}, "case1: .*does not lie on the grid of"),
        (twice, {}, "Case case0 is in .*fold_0/validation and in .*fold_1/validation"),
        (no_lesions, {}, "has a lesion of at least 14 mm3 and 3 mm; nothing can be tuned"),
    ],
)
def test_bad_input_is_named(tmp_path, toys, references, break_, options, message):
    model = toys.write_model(tmp_path, [toys.scene(), toys.scene()])
    if break_ is not None:
        break_(model, references)
    with pytest.raises(InputError, match=message):
        determine(model, references, **options)
    assert not list(model.glob("instance_postprocessing.*"))


def test_a_model_folder_that_cannot_be_written_is_named_before_the_work(tmp_path, toys, references, monkeypatch):
    with file_system(tmp_path / "results", "size=4m") as results:
        model = toys.write_model(tmp_path, [toys.scene(), toys.scene()])
        subprocess.run(["mount", "-o", "remount,ro", results], check=True)
        determine(model, references, dry_run=True)
        monkeypatch.setattr(determine_module, "score_cases", None)
        with pytest.raises(InputError, match=r"Nothing can be written to .*Read-only file system"):
            determine(model, references)


def test_the_command(tmp_path, toys):
    model = toys.write_model(tmp_path, [toys.scene(spurious=0.3) for _ in range(3)])
    (tmp_path / "raw" / toys.dataset / "dataset.json").write_text(json.dumps(dataset_json()))
    environment = nnunet_environment(tmp_path)
    main = "from nnunetv2_conflunet.commands.determine_postprocessing import main; main()"
    python = os.path.basename(sys.executable)
    grid = "--heatmap_threshold 0.1 0.45 --window_mm 3 --min_prominence 0 --min_consistency 0"
    options = ["-f", 0, 1, *grid.split(), "-np", 1]
    result = run([python, "-c", main, "-d", 1, *options], environment)
    assert "mean PQ 1.0000, F1 1.0000" in result.stdout and "the best point is the choice" in result.stdout
    assert "The best heatmap_threshold ends its list" in result.stdout
    assert stored(model)["instantiation"]["heatmap_threshold"] == 0.45
    result = run([python, "-c", main, "-i", model, *options[:3], "--metric", "Dice"], environment, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: There is no metric 'Dice' to tune for; use one of PQ, F1.\n"


@pytest.mark.parametrize(
    "arguments, variables, message",
    [
        ((), {}, "Specify the model: its folder with -i, or -d"),
        (("-d", "7"), {"nnUNet_results": None}, "nnUNet_results is not set"),
        (("-d", "7"), {}, "7"),
        (("-i", "MODEL"), {"nnUNet_raw": None}, "nnUNet_raw is not set; name the folder of the reference"),
        (("-i", "MODEL", "-ref", "none"), {}, "none is not a folder; name the folder of the reference"),
    ],
)
def test_arguments_that_name_nothing(tmp_path, toys, monkeypatch, capsys, arguments, variables, message):
    from nnunetv2_conflunet.commands.determine_postprocessing import main

    model = toys.write_model(tmp_path, [toys.scene(), toys.scene()])
    for name, value in ({"nnUNet_results": str(tmp_path / "results"), "nnUNet_raw": str(tmp_path / "raw"),
                         "nnUNet_preprocessed": str(tmp_path / "preprocessed")} | variables).items():  # fmt: skip
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    arguments = [str(model) if i == "MODEL" else i for i in arguments]
    monkeypatch.setattr(sys, "argv", ["command", *arguments, "-f", "0", "1", "-np", "1"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error


def write_planes(base, n_cases=4):
    """A model of two-dimensional images with pixels of 0.5 mm, and their references.

    Each case has two squares of 10 x 10 pixels that are found, and a false speck of 7 x 7.
    """
    model = base / "results" / "Dataset001_Small" / "nnUNetTrainerConfLUNet__nnUNetPlans__2d"
    reference, prediction = np.zeros((2, 40, 50), np.uint16)
    reference[2:12, 2:12], reference[20:30, 20:30] = 1, 2
    prediction[:] = reference > 0
    prediction[30:37, 2:9] = 1
    for i in range(n_cases):
        validation = model / f"fold_{i % 2}" / "validation"
        write_nifti(prediction, validation / f"case{i}.nii.gz", (0.5, 0.5))
        write_nifti(reference, base / "references" / f"case{i}.nii.gz", (0.5, 0.5))
        end_validation(validation)
        (validation / "instances").mkdir(exist_ok=True)
        np.savez_compressed(
            validation / "instances" / f"case{i}.npz",
            heatmap=np.zeros((1, 40, 50), np.float16),
            offsets_mm=np.zeros((2, 1, 40, 50), np.float16),
            crop=np.array([(0, 1), (0, 40), (0, 50)]),
        )
    settings = {"instantiation": DEFAULT.to_dict()}
    plans = small_plans(dim=2, spacing_mm=(0.5, 0.5)) | {SETTINGS_KEY: settings}
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset_json()))
    return model, base / "references"


def test_planes_are_tuned_by_areas_of_their_pixels(tmp_path):
    model, references = write_planes(tmp_path)
    assert default_grid(ModelFolder(model)).min_area_mm2 == (0, 9 / 4, 20 / 4, 40 / 4)
    grid = replace(default_grid(ModelFolder(model)), heatmap_threshold=(0.1,), window_mm=(3,), min_prominence=(0,))
    # A speck of 7 x 7 pixels is 12.25 mm2 large, more than 40 of them.
    grid = replace(grid, min_consistency=(0,), min_extent_mm=(3,), min_area_mm2=(*grid.min_area_mm2, 15))
    record = determine(model, references, grid=grid)
    assert chosen(record) == replace(DEFAULT, min_area_mm2=15)
    assert (record["default"]["F1"], record["best"]["F1"]) == (pytest.approx(0.8), 1)
    text = "\n".join(describe(record))
    assert "min_area_mm2 15" in text
    assert not any(word in text for word in ("mm3", "atients"))


def test_references_without_lesions_are_said_in_the_units_of_planes(tmp_path):
    model, references = write_planes(tmp_path, 2)
    scoring = EvaluationSettings(min_area_mm2=100)
    with pytest.raises(InputError, match="has a lesion of at least 100 mm2 and 3 mm; nothing can be tuned"):
        determine(model, references, scoring=scoring)


def test_what_volumes_are_tuned_by_is_as_before(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(), toys.scene()])
    assert default_grid(ModelFolder(model)) == Grid()
    assert "min_area_mm2" not in "\n".join(describe(determine(model, references)))


def test_a_renamed_model_of_volumes_whose_plans_have_planes_too_is_tuned_by_volumes(tmp_path):
    plans = small_plans()
    planes = small_plans(dim=2)["configurations"]
    write_json(plans | {"configurations": planes | plans["configurations"]}, tmp_path / "plans.json")
    assert default_grid(ModelFolder(tmp_path)) == Grid()


@pytest.mark.parametrize("room", [0, 4096])
def test_on_a_full_disk_the_plans_and_the_record_of_the_last_choice_stand(disk, toys, monkeypatch, capsys, room):
    from nnunetv2_conflunet.commands.determine_postprocessing import main

    model = toys.write_model(disk.folder, [toys.scene(spurious=0.3) for _ in range(3)])
    references = disk.folder / "raw" / toys.dataset / "instancesTr"
    grid = "--heatmap_threshold 0.1 0.45 --window_mm 3 4 5 --min_prominence 0 0.1 --min_consistency 0 1 2"
    arguments = [model, "-ref", references, "-f", 0, 1, *grid.split(), "-np", 1]
    monkeypatch.setattr(sys, "argv", ["command", "-i", *map(str, arguments)])
    before = files_of(disk.folder)
    with disk.room(room), pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert said_of_a_full_disk(room) in capsys.readouterr().err
    after = files_of(disk.folder)
    assert {file: content for file, content in after.items() if not file.endswith(".plans.lock")} == before


def test_the_size_filters_of_the_grid_and_of_the_scoring_have_options_of_their_own(tmp_path, toys, monkeypatch):
    from nnunetv2_conflunet.commands.determine_postprocessing import main

    model = toys.write_model(tmp_path, [toys.scene(), toys.scene()])
    arguments = ["-i", model, "-ref", tmp_path / "raw" / toys.dataset / "instancesTr", "-f", 0, 1, "-np", 1]
    points = "--heatmap_threshold 0.1 --window_mm 3 --min_prominence 0 --min_consistency 0 --min_volume_mm3 20"
    scoring = "--score_min_volume_mm3 5 --score_min_extent_mm 1 --iou_threshold 0.2 --no_merging --min_confidence"
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments), *points.split(), *scoring.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    record = read_json(model / "instance_postprocessing.json")
    assert (record["grid"]["min_volume_mm3"], record["grid"]["min_extent_mm"]) == ([14, 20], [3, 4])
    assert record["confidence"] is None
    limits = {"min_volume_mm3": 5, "min_extent_mm": 1, "min_area_mm2": 0}
    assert record["scoring"] == {"matching": "paper", "iou_threshold": 0.2, **limits}


# Of the balls and of the false lesion.
PROBABILITY = (0.9, 0.92, 0.94, 0.96, 0.7)


@pytest.mark.parametrize(
    "own, tried, expected, said",
    [
        (0.0, (0.8, 0.91), 0.8, "min_confidence 0.8: PQ +0.1111 (95 % interval +0.1111 to +0.1111"),
        (0.91, (0.8,), 0.8, "min_confidence 0.8: PQ +0.1429"),
        (0.8, (0.91,), 0.8, "min_confidence 0.8, the trainer's, is best and stays."),
        (0.3, (), 0.3, None),
    ],
)
def test_the_least_confidence_between_false_and_true_lesions(tmp_path, toys, references, own, tried, expected, said):
    own = replace(DEFAULT, min_confidence=own)
    model = toys.write_model(tmp_path, [toys.scene(false_lesion=True, probability=PROBABILITY) for _ in range(4)], own)
    grid = replace(GRID, heatmap_threshold=(0.1,), min_volume_mm3=(14,))
    record = determine(model, references, grid=grid, min_confidence=tried)
    assert chosen(record) == replace(own, min_confidence=expected)
    assert stored(model)["instantiation"]["min_confidence"] == expected
    # Searched without any, as with every least confidence that removes nothing.
    assert record["default"]["F1"] == pytest.approx(2 * 4 / (5 + 4))
    text = "\n".join(describe(record))
    assert said in text if said else record["confidence"] is None and "min_confidence" not in text


def test_a_least_confidence_within_the_noise_is_not_taken(tmp_path, toys, references):
    faint = toys.scene(probability=(0.75, *PROBABILITY[1:]))
    cases = [toys.scene(false_lesion=True, probability=PROBABILITY)] * 3 + [faint]
    model = toys.write_model(tmp_path, cases)
    grid = replace(GRID, heatmap_threshold=(0.1,), min_volume_mm3=(14,))
    record = determine(model, references, grid=grid, min_confidence=(0.8,))
    # 8/9 becomes 1 three times; once a ball of confidence 0.75 is lost, which costs a seventh.
    assert record["confidence"]["difference"] == pytest.approx((3 * (1 - 8 / 9) - (1 - 6 / 7)) / 4)
    assert record["confidence"]["interval_95"][0] <= 0 and chosen(record).min_confidence == 0
    assert [record["confidence"][name] for name in ("default", "best", "chosen")] == [0, 0.8, 0]
    assert "as good as the trainer's within the noise" in "\n".join(describe(record))


def test_without_probabilities_the_least_confidence_stays(tmp_path, toys, references):
    cases = [toys.scene(false_lesion=True, probability=PROBABILITY), toys.scene(false_lesion=True)]
    model = toys.write_model(tmp_path, cases, replace(DEFAULT, min_confidence=0.3))
    record = determine(model, references)
    assert record["confidence"] == {"cases_without_probabilities": ["case1"]}
    assert chosen(record).min_confidence == 0.3
    assert "min_confidence was not tuned: 1 cases have no probabilities (case1)." in describe(record)


def test_a_least_confidence_out_of_range_and_a_negative_seed_are_refused_at_once():
    with pytest.raises(InputError, match=r"min_confidence is 1\.5"):
        TuningSettings(min_confidence=(0.1, 1.5))
    with pytest.raises(InputError, match="seed is -1; it must be 0 or a positive number"):
        TuningSettings(seed=-1)


@pytest.mark.parametrize("beside", ["references", "model"])
def test_unknown_instances_of_the_references_do_not_count(tmp_path, toys, references, beside):
    """With heads that find every ball but one, the score is perfect once that one is unknown."""
    model = toys.write_model(tmp_path, [toys.scene(heights=(0.6, 0.65, 0.7, 0.0))] * 2)
    grid = replace(GRID, heatmap_threshold=(0.1,), min_volume_mm3=(14,))
    found = determine(model, references, grid=grid, dry_run=True, with_merging=False)
    folder = references.parent if beside == "references" else model
    (folder / "dataset.json").write_text(json.dumps(dataset_json() | {"instances": {"unknown": 3}}))
    # The third and the fourth ball, which one center divides, both unknown.
    for file in references.glob("*.nii.gz"):
        reference = toys.scene().reference
        write_nifti(np.where(reference == 4, 3, reference).astype(np.uint16), file)
    again = determine(model, references, grid=grid, dry_run=True, with_merging=False)
    assert found["default"]["F1"] < 1 and again["default"]["F1"] == again["default"]["PQ"] == 1


def test_references_of_unknown_instances_only_cannot_be_tuned_on(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene(), toys.scene()])
    (references.parent / "dataset.json").write_text(json.dumps(dataset_json() | {"instances": {"unknown": 3}}))
    for file in references.glob("*.nii.gz"):
        write_nifti(((toys.scene().reference > 0) * 3).astype(np.uint16), file)
    with pytest.raises(InputError, match="nothing can be tuned on them"):
        determine(model, references)
