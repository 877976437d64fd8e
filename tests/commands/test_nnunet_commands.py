"""nnU-Net's own commands and ours, typed as a user types them."""

import json
import os
import shutil
import sys

import nibabel
import numpy as np
import pandas as pd
import pytest
from support import nnunet_environment, run, small_architecture, write_dataset

pytestmark = pytest.mark.command
DATASET = "Dataset321_Balls"
TRAINER = "nnUNetTrainerOfTheTest"

OWN_TRAINERS = """
import os
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
import numpy as np
import torch
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet


class nnUNetTrainerOfTheTest(nnUNetTrainerConfLUNet):
    epochs = int(os.environ.get("EPOCHS", 1))
    # So short a training finds specks.
    instantiation = InstantiationSettings(min_volume_mm3=0, min_extent_mm=0)

    def __init__(self, plans, configuration, fold, dataset_json, device=None):
        np.random.seed(0)
        torch.manual_seed(0)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = int(os.environ.get("ITERATIONS", 2))
        self.num_val_iterations_per_epoch = 1
        self.save_every = 1


class nnUNetTrainerStockOfTheTest(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=None):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = 1
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A planned and preprocessed dataset with a small configuration, and a trainer of the user's own."""
    base = tmp_path_factory.mktemp("nnunet")
    write_dataset(base / "raw" / DATASET)
    (base / "own_trainers").mkdir()
    (base / "own_trainers" / "of_the_test.py").write_text(OWN_TRAINERS)
    found = nnunet_environment(base)
    command = "nnUNetv2_plan_and_preprocess -d 321 --verify_dataset_integrity -npfp 1 -np 1 -c 3d_fullres"
    run(command.split(), found)
    add_small_configuration(base)
    return base, found


def add_small_configuration(base):
    path = base / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_small"] = {
        "inherits_from": "3d_fullres",
        "patch_size": [24, 24, 24],
        "architecture": small_architecture(3, 3),
    }
    path.write_text(json.dumps(plans))


def train(environment, *options, fold="0", trainer=TRAINER, **variables):
    _, variables_of_nnunet = environment
    command = ["nnUNetv2_train", "321", "3d_small", fold, "-tr", trainer, "-device", "cpu", *options]
    return run(command, {**variables_of_nnunet, **variables})


@pytest.fixture(scope="module")
def model(environment):
    """Fold 0, stopped after its first epoch and continued with --c."""
    base, _ = environment
    folder = base / "results" / DATASET / f"{TRAINER}__nnUNetPlans__3d_small"
    train(environment, EPOCHS="1", ITERATIONS="20")
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_latest.pth")
    output = train(environment, "--c", "--npz", EPOCHS="2", ITERATIONS="20").stdout
    assert "Epoch 1" in output and "Epoch 0" not in output
    return folder


def test_training_leaves_what_prediction_needs(environment, model):
    validation = model / "fold_0" / "validation"
    cases = [file.name.removesuffix(".nii.gz") for file in validation.glob("*.nii.gz")]
    assert cases
    for case in cases:
        for name in (f"{case}.npz", f"instances/{case}.nii.gz", f"instances/{case}.csv", f"instances/{case}.npz"):
            assert (validation / name).is_file(), name
    settings = json.loads((model / "plans.json").read_text())["conflunet"]
    assert settings["instantiation"]["min_volume_mm3"] == 0
    assert (model / "fold_0" / "progress_loss_parts.png").is_file()


def test_validation_alone(environment, model):
    shutil.rmtree(model / "fold_0" / "validation")
    train(environment, "--val")
    assert list((model / "fold_0" / "validation" / "instances").glob("*.csv"))


def predict(environment, output, *options):
    base, variables = environment
    command = f"nnUNetv2_predict -d 321 -c 3d_small -tr {TRAINER} -f 0 -device cpu --disable_progress_bar"
    images = base / "raw" / DATASET / "imagesTs"
    return run([*command.split(), "-i", images, "-o", output, *options], variables)


@pytest.fixture(scope="module")
def prediction(environment, model):
    base, _ = environment
    predict(environment, base / "prediction", "-npp", "1", "-nps", "1", "--save_probabilities")
    return base / "prediction"


def test_prediction_writes_segmentation_instances_and_table(environment, prediction):
    base, _ = environment
    image = nibabel.load(base / "raw" / DATASET / "imagesTs" / "case_Ts0_0000.nii.gz")
    segmentation = nibabel.load(prediction / "case_Ts0.nii.gz")
    instances = nibabel.load(prediction / "instances" / "case_Ts0.nii.gz")
    for written in (segmentation, instances):
        np.testing.assert_allclose(written.affine, image.affine)
        assert written.shape == image.shape
    ids = np.asarray(instances.dataobj)
    # Only the size filter takes voxels from the segmentation.
    assert not ids[np.asarray(segmentation.dataobj) == 0].any()
    assert ids.max() >= 1
    table = pd.read_csv(prediction / "instances" / "case_Ts0.csv")
    assert table.id.tolist() == list(range(1, ids.max() + 1))
    for row in table.itertuples():
        assert row.n_voxels == np.count_nonzero(ids == row.id)
    with np.load(prediction / "instances" / "case_Ts0.npz") as heads:
        assert set(heads) == {"heatmap", "offsets_mm", "crop"}


def test_instances_can_be_made_again_without_the_network(environment, prediction):
    base, variables = environment
    run(["nnUNetv2_conflunet_instantiate", "-i", prediction, "-o", base / "again", "-m", "center_offset"], variables)
    for name in ("case_Ts0.nii.gz", "case_Ts0.csv"):
        found = next(base.glob(f"again/**/{name}"))
        if name.endswith(".csv"):
            pd.testing.assert_frame_equal(
                pd.read_csv(found), pd.read_csv(prediction / "instances" / name), rtol=1e-3, check_dtype=False
            )
        else:
            ours, theirs = (np.asarray(nibabel.load(path).dataobj) for path in (found, prediction / "instances" / name))
            np.testing.assert_array_equal(ours, theirs)


def test_an_ensemble_is_divided_by_the_heads_of_one_of_its_predictions(environment, prediction):
    base, variables = environment
    shutil.copytree(prediction, base / "prediction_b")
    folders = [prediction, base / "prediction_b"]
    run(["nnUNetv2_ensemble", "-i", *folders, "-o", base / "ensemble", "--save_npz", "-np", "1"], variables)
    instantiate = ["nnUNetv2_conflunet_instantiate", "-i", base / "ensemble", "-np", "1"]
    run([*instantiate, "--heads", prediction, "-o", base / "ensemble_instances"], variables)
    ours, theirs = (
        np.asarray(nibabel.load(folder / "case_Ts0.nii.gz").dataobj)
        for folder in (base / "ensemble_instances", prediction / "instances")
    )
    # Of two equal predictions the ensemble is the same again.
    np.testing.assert_array_equal(ours, theirs)
    output = run([*instantiate, "-m", "acls", "-o", base / "ensemble_acls"], variables).stdout
    assert "There is no plans.json near" in output and "min_volume_mm3 14.0" in output
    options = ["-m", "acls", "--settings_from", prediction, "-o", base / "ensemble_acls"]
    assert "min_volume_mm3 0" in run([*instantiate, *options], variables).stdout


def test_continued_prediction_makes_only_what_is_missing(environment, prediction):
    map_file = prediction / "instances" / "case_Ts0.nii.gz"
    before = map_file.read_bytes()
    options = ("-npp", "0", "-nps", "0", "--continue_prediction")
    assert "1 of 1 cases already have" in predict(environment, prediction, *options).stdout
    map_file.unlink()
    assert "0 of 1 cases already have" in predict(environment, prediction, *options).stdout
    np.testing.assert_array_equal(
        np.asarray(nibabel.load(map_file).dataobj),
        np.asarray(nibabel.Nifti1Image.from_bytes(_unzipped(before)).dataobj),
    )


def test_a_full_disk_ends_the_stock_command_with_status_1(environment, model, tmp_path):
    """There is room for nnU-Net's plans.json and none for the probabilities."""
    base, variables = environment
    command = f"nnUNetv2_predict -d 321 -c 3d_small -tr {TRAINER} -f 0 -device cpu --disable_tta -npp 0 -nps 0"
    command = [*command.split(), "-i", base / "raw" / DATASET / "imagesTs", "-o", tmp_path, "--save_probabilities"]
    size = (model / "plans.json").stat().st_size
    result = run(command, variables, check=False, largest_file=size + 1024)
    assert result.returncode == 1
    assert "nnU-Net could not write" in result.stderr and "Is the disk full?" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ") and "Traceback" not in result.stderr
    assert all(file.suffix == ".json" for file in tmp_path.rglob("*") if file.is_file())
    assert "0 of 1 cases already have" in run([*command, "--continue_prediction"], variables).stdout
    assert (tmp_path / "instances" / "case_Ts0.nii.gz").is_file()


def test_a_case_with_a_name_that_the_writer_folds(environment, model, tmp_path):
    base, variables = environment
    (tmp_path / "images").mkdir()
    image = base / "raw" / DATASET / "imagesTs" / "case_Ts0_0000.nii.gz"
    for name in ("s.nii", "plain"):
        shutil.copy(image, tmp_path / "images" / f"{name}_0000.nii.gz")
    command = f"nnUNetv2_predict -d 321 -c 3d_small -tr {TRAINER} -f 0 -device cpu --disable_tta -npp 1 -nps 1"
    command = [*command.split(), "-i", tmp_path / "images", "-o", tmp_path / "out"]
    run(command, variables)
    written = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.nii.gz"))
    assert written == ["instances/plain.nii.gz", "instances/s.nii.gz", "plain.nii.gz", "s.nii.gz"]
    assert "2 of 2 cases already have" in run([*command, "--continue_prediction"], variables).stdout


def _unzipped(content):
    import gzip

    return gzip.decompress(content)


def test_prediction_from_a_model_folder_in_parts(environment, model, tmp_path):
    base, variables = environment
    images = base / "raw" / DATASET / "imagesTs"
    command = "nnUNetv2_predict_from_modelfolder -f 0 -device cpu --disable_tta -npp 1 -nps 1"
    run([*command.split(), "-i", images, "-o", tmp_path / "whole", "-m", model], variables)
    assert (tmp_path / "whole" / "instances" / "case_Ts0.nii.gz").is_file()
    predict(environment, tmp_path / "part", "-npp", "1", "-nps", "1", "-num_parts", "2", "-part_id", "1")
    assert not (tmp_path / "part" / "instances").exists()


def test_a_model_from_a_zip_predicts_as_the_original_and_brings_no_lock(environment, model, prediction, tmp_path):
    base, variables = environment
    assert (model / ".plans.lock").is_file()
    command = f"nnUNetv2_export_model_to_zip -d 321 -c 3d_small -f 0 -tr {TRAINER} -o {tmp_path / 'model.zip'}"
    run(command.split(), variables)
    (tmp_path / "results").mkdir()
    there = {**variables, "nnUNet_results": str(tmp_path / "results")}
    run(["nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip"], there)
    installed = tmp_path / "results" / DATASET / model.name
    assert (installed / "plans.json").read_bytes() == (model / "plans.json").read_bytes()
    assert not [file for file in installed.rglob("*") if file.name.endswith(".lock")]
    predict((base, there), tmp_path / "out", "-npp", "0", "-nps", "0")
    ours, theirs = (
        np.asarray(nibabel.load(folder / "instances" / "case_Ts0.nii.gz").dataobj)
        for folder in (tmp_path / "out", prediction)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_the_python_api_finds_the_trainer_by_itself(environment, model):
    """A script without nnUNet_extTrainer, as one writes it beside a shipped model."""
    base, variables = environment
    variables = {k: v for k, v in variables.items() if k != "nnUNet_extTrainer"}
    (base / "own_trainers_off").mkdir(exist_ok=True)
    script = f"""
import torch
from nnunetv2_conflunet.inference import ConfLUNetPredictor
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
import nnunetv2_conflunet.trainers as trainers

predictor = ConfLUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
predictor.initialize_from_trained_model_folder({str(model)!r}, (0,))
image, properties = SimpleITKIO().read_images([{str(base / "raw" / DATASET / "imagesTs" / "case_Ts0_0000.nii.gz")!r}])
found = predictor.predict_instances(image, properties)
assert found.instances.shape == image.shape[1:] == found.segmentation.shape
print("lesions:", len(found.lesions))
"""
    # The model's trainer is the user's own, so its folder is named; ours is added by the predictor.
    variables["nnUNet_extTrainer"] = str(base / "own_trainers")
    assert "lesions:" in run(["python", "-c", script], variables).stdout


def test_a_stock_checkpoint_as_pretrained_weights(environment):
    base, _ = environment
    stock = train(environment, "--disable_checkpointing", trainer="nnUNetTrainerStockOfTheTest", fold="all")
    assert "Mean Validation Dice" in stock.stdout
    train(environment, trainer="nnUNetTrainerStockOfTheTest", fold="all")
    checkpoint = (
        base / "results" / DATASET / "nnUNetTrainerStockOfTheTest__nnUNetPlans__3d_small" / "fold_all"
    ) / "checkpoint_final.pth"
    output = train(environment, "-pretrained_weights", str(checkpoint), fold="2").stdout
    assert "Loading pretrained weights" in output and "Mean Validation Dice" in output


def test_evaluation_of_a_prediction(environment, prediction):
    base, variables = environment
    reference = base / "raw" / DATASET / "instancesTs"
    output = base / "evaluation"
    run(["nnUNetv2_conflunet_evaluate", reference, prediction / "instances", "-o", output], variables)
    summary = json.loads((output / "summary_instances.json").read_text())
    assert summary["mean"]["n_reference"] == 4
    assert {"Recall_CLU", "PQ", "DSC"} <= set(summary["mean"])


def fails(command, environment, message):
    result = run(command, environment, check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert message in result.stderr
    return result


def test_prepare(environment, tmp_path):
    """From labels only to a dataset that can be planned, and back."""
    _base, variables = environment
    variables = {**variables, "nnUNet_raw": str(tmp_path)}
    dataset = tmp_path / "Dataset322_Labels"
    write_dataset(dataset, n_cases=2)
    shutil.rmtree(dataset / "instancesTr")
    prepare = ["nnUNetv2_conflunet_prepare", "-d", "322", "-np", "1"]
    fails(prepare, variables, "--instances_from_labels")
    output = run([*prepare, "--instances_from_labels"], variables).stdout
    assert "2 instance maps written" in output and "run nnUNetv2_plan_and_preprocess" in output
    fails([*prepare, "--instances_from_labels"], variables, "--overwrite")
    run([*prepare, "--instances_from_labels", "--overwrite"], variables)
    before = {file.name: np.asarray(nibabel.load(file).dataobj) > 0 for file in (dataset / "labelsTr").iterdir()}
    shutil.rmtree(dataset / "labelsTr")
    assert "2 labels written" in run([*prepare, "--labels_from_instances"], variables).stdout
    for name, foreground in before.items():
        np.testing.assert_array_equal(np.asarray(nibabel.load(dataset / "labelsTr" / name).dataobj), foreground)
    assert "2 instance maps match" in run(prepare, variables).stdout
    (dataset / "instancesTr" / "case_Tr0.nii.gz").unlink()
    fails(prepare, variables, "case_Tr0")
    fails(["nnUNetv2_conflunet_prepare", "-d", "999"], variables, "999")


def test_unknown_instances_from_the_check_to_the_evaluation(tmp_path):
    dataset = write_dataset(tmp_path / "raw" / "Dataset323_Unknown", n_cases=2)
    variables = nnunet_environment(tmp_path)
    file = dataset / "instancesTr" / "case_Tr0.nii.gz"
    found = tmp_path / "found"
    shutil.copytree(dataset / "instancesTr", found)
    known = nibabel.load(file)
    ids = np.asarray(known.dataobj).astype(np.uint16)

    def mark(unknown):
        nibabel.save(nibabel.Nifti1Image(np.where(unknown, 65535, ids).astype(np.uint16), known.affine), file)

    content = json.loads((dataset / "dataset.json").read_text()) | {"instances": {"unknown": 65535}}
    (dataset / "dataset.json").write_text(json.dumps(content))
    prepare = ["nnUNetv2_conflunet_prepare", "-d", "323", "-np", "1"]
    mark(ids == 2)
    assert "2 instance maps match their labels" in run(prepare, variables).stdout
    evaluate = ["nnUNetv2_conflunet_evaluate", dataset / "instancesTr", found, "-np", "1", "-o", tmp_path / "e"]
    output = run(evaluate, variables).stdout
    summary = json.loads((tmp_path / "e" / "summary_instances.json").read_text())
    n_unknown, n_lesions = np.count_nonzero(ids == 2), len(np.unique(ids)) - 1
    assert f"Note: {n_unknown} voxels" in output
    pooled = {name: summary["pooled"][name] for name in ("n_reference", "TP", "FP", "n_predictions_left_out", "DSC")}
    assert pooled == {"n_reference": n_lesions - 1, "TP": n_lesions - 1, "FP": 0, "n_predictions_left_out": 1, "DSC": 1}
    mark(ids > 0)
    fails(prepare, variables, f"unknown instance ({np.count_nonzero(ids)} voxels in 1 of 2 cases)")
    content["instances"] = {"unknown": 2**24}
    (dataset / "dataset.json").write_text(json.dumps(content))
    fails(prepare, variables, ".nii.gz files can hold ids up to 16777215 only")


def test_prepare_brings_maps_to_a_preprocessed_configuration(environment):
    _base, variables = environment
    output = run(["nnUNetv2_conflunet_prepare", "-d", "321", "-c", "3d_small"], variables).stdout
    assert "nnUNetPlans_3d_fullres_instances" in output
    fails(["nnUNetv2_conflunet_prepare", "-d", "321", "-c", "nothing"], variables, "no configuration nothing")


def test_prepare_writes_the_papers_configuration(environment):
    base, variables = environment
    command = ["nnUNetv2_conflunet_prepare", "-d", "321", "-c", "3d_conflunet", "--paper_configuration"]
    output = run(command, variables).stdout
    assert "3d_conflunet was added to" in output and "nnUNetPlans_3d_fullres_instances" in output
    plans = json.loads((base / "preprocessed" / DATASET / "nnUNetPlans.json").read_text())
    assert plans["configurations"]["3d_conflunet"]["patch_size"] == [96, 96, 96]
    fails([*command, "-p", "nnUNetOtherPlans"], variables, "nnUNetOtherPlans.json does not exist")


def test_path(environment):
    _, variables = environment
    folder = run(["nnUNetv2_conflunet_path"], variables).stdout.strip()
    assert [file for file in os.listdir(folder) if file != "__pycache__"] == ["nnunetv2_conflunet_trainers.py"]


@pytest.mark.parametrize("program", ["prepare", "instantiate", "evaluate", "compare", "report", "simulate"])
def test_help(program):
    result = run([f"nnUNetv2_conflunet_{program}", "-h"], dict(os.environ))
    assert "usage:" in result.stdout and sys.executable not in result.stdout
