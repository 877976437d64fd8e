"""The cost of the plugin relative to stock nnU-Net on the same plans, as ratios within one run.

    python benchmarks/plugin_cost.py [loader] [pasting] [iteration] [prediction] [preprocessing]

- loader: CPU seconds to load and augment a 128^3 sample with 5, 20 and 60 lesions and to make its targets
- pasting: CPU seconds to load and augment the same samples without and with pasting lesions into every one of them
- iteration: a training step of a network of 8 to 64 features on 64^3 patches
- prediction: sliding window with mirroring and export of a 128 x 128 x 128 image to files; also peak memory
- preprocessing: instance maps of a 182 x 218 x 182 case with 5, 60 and 300 lesions, checks included

Pairs are measured in turn, stock then plugin. Values are medians; for the loader, whose samples vary in cost (a third
is rotated or scaled, which costs most), they are means over the same random numbers.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.update(nnUNet_compile="f", nnUNet_n_proc_DA="0", nnUNet_def_n_proc="1")

import numpy as np
import SimpleITK as sitk
import torch
from measuring import in_own_process, resident_mib
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.inference import ConfLUNetPredictor
from nnunetv2_conflunet.preprocessing.paper_configuration import paper_configuration
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.pasting.transform import PasteLesions, PastingSettings

DATASET_JSON = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
RESAMPLING = "resample_data_or_seg_to_shape"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parts = parser.parse_args().parts
    torch.set_num_threads(1)
    print("| what | stock | plugin | ratio |\n| --- | --- | --- | --- |")
    for part in parts:
        for row in PARTS[part]():
            print(row, flush=True)


def row(what, stock, ours, unit="CPU s"):
    return f"| {what} | {stock:.3g} {unit} | {ours:.3g} {unit} | {ours / stock:.2f} |"


def loader():
    for n_lesions in (5, 20, 60):
        with dataset([n_lesions] * 2, (200, 200, 200), patch=128):
            loaders = [
                trainer(kind, 128).dataloader_train.data_loader for kind in (nnUNetTrainer, nnUNetTrainerConfLUNet)
            ]
            for one in loaders:
                one.batch_size = 1
            costs = paired(*(one.generate_train_batch for one in loaders), n=30, average=np.mean)
            yield row(f"loader, 128^3, {n_lesions} lesions", *costs)


def pasting():
    """Measured within the same samples, since random numbers drawn for pasting would change the augmentation."""
    for n_lesions in (5, 60):
        with dataset([n_lesions] * 2, (200, 200, 200), patch=128):
            one = trainer(PastesAlways, 128).dataloader_train.data_loader
            one.batch_size = 1
            paste = next(t for t in one.transforms.transforms if isinstance(t, PasteLesions))
            seconds = []
            paste.apply = timed(paste.apply, seconds)
            (total,) = paired(one.generate_train_batch, n=30, average=np.mean)
            without = total - np.mean(seconds[1:])
            yield row(f"pasting into 128^3, {n_lesions} lesions (the plugin without and with it)", without, total)


class PastesAlways(nnUNetTrainerConfLUNet):
    pasting = PastingSettings(probability=1.0)


def timed(function, seconds):
    """The function, which also appends the CPU seconds of each call to a list."""

    def measured(*args, **kwargs):
        start = time.process_time()
        result = function(*args, **kwargs)
        seconds.append(time.process_time() - start)
        return result

    return measured


def iteration():
    with dataset([20] * 2, (96, 96, 96), patch=64):
        trainers = [trainer(kind, 64) for kind in (nnUNetTrainer, nnUNetTrainerConfLUNet)]
        batches = [next(one.dataloader_train) for one in trainers]
        steps = [lambda t=t, b=b: t.train_step(b) for t, b in zip(trainers, batches, strict=True)]
        yield row("training iteration, 64^3, batch 2", *paired(*steps, n=9))


def prediction():
    with dataset([20], (128, 128, 128), patch=64) as base:
        # Each in a separate process, since peak memory never falls.
        results = [in_own_process(predict_case, kind, str(base)) for kind in ("stock", "plugin")]
        seconds, memory = zip(*results, strict=True)
        yield row("prediction of 128^3 with mirroring, to files", *seconds)
        extra = 4 * 4 * 128**3 / 2**20
        yield row(f"its peak memory above the start (float32 of 4 channels: {extra:.0f} MiB)", *memory, unit="MiB")


def predict_case(kind, base):
    set_folders(Path(base))
    torch.set_num_threads(1)
    classes = {"stock": (nnUNetTrainer, nnUNetPredictor), "plugin": (nnUNetTrainerConfLUNet, ConfLUNetPredictor)}
    trainer_class, predictor_class = classes[kind]
    manager = PlansManager(plans(64))
    configuration = manager.get_configuration("3d_fullres")
    torch.manual_seed(0)
    network = trainer_class.build_network_architecture(manager, configuration, 1, 2, False)
    # As after training: few lesions, not half of the image.
    with torch.no_grad():
        network.decoder.seg_layers[-1].bias[0] += 20
    predictor = predictor_class(device=torch.device("cpu"), allow_tqdm=False)
    arguments = (manager, configuration, [network.state_dict()], DATASET_JSON, "any", (0, 1, 2))
    predictor.manual_initialization(network, *arguments)
    image = str(Path(base) / "raw" / "Dataset001_Cost" / "imagesTr" / "case0_0000.nii.gz")
    before, start = resident_mib(), time.process_time()
    predictor.predict_from_files_sequential([[image]], [str(Path(base) / f"{kind}_case0")])
    return time.process_time() - start, resident_mib() - before


def preprocessing():
    for n_lesions in (5, 60, 300):
        with dataset([n_lesions], (182, 218, 182), patch=128, spacing_mm=(1.0, 1.0, 1.0), network_mm=1.2) as base:
            manager = PlansManager(plans(128, 1.2))
            raw = base / "raw" / "Dataset001_Cost"
            files = [str(raw / "imagesTr" / "case0_0000.nii.gz")], str(raw / "labelsTr" / "case0.nii.gz")
            output = str(base / "again")
            configuration = manager.get_configuration("3d_fullres")

            def stock(output=output, files=files, manager=manager, configuration=configuration):
                for path in Path(output).parent.glob("again*"):
                    path.unlink()
                DefaultPreprocessor(verbose=False).run_case_save(output, *files, manager, configuration, DATASET_JSON)

            prepared = PreprocessedInstances(manager, "3d_fullres", DATASET_JSON)

            def ours(prepared=prepared):
                for path in prepared.folder.glob("*") if prepared.folder.is_dir() else ():
                    path.unlink()
                prepared.prepare(1)

            yield row(f"instance preprocessing, {n_lesions} lesions, 1 to 1.2 mm", *paired(stock, ours, n=3))


PARTS = {
    "loader": loader,
    "pasting": pasting,
    "iteration": iteration,
    "prediction": prediction,
    "preprocessing": preprocessing,
}


def paired(*functions, n, average=np.median):
    """Average CPU seconds of each function, measured in turn after one uncounted round."""
    seconds = []
    for _ in range(n + 1):
        round_seconds = []
        for function in functions:
            np.random.seed(len(seconds))
            torch.manual_seed(len(seconds))
            timed(function, round_seconds)()
        seconds.append(round_seconds)
    return average(seconds[1:], axis=0)


def plans(patch, network_mm=1.0):
    architecture = paper_configuration()["architecture"]
    architecture["arch_kwargs"] |= {
        "features_per_stage": [8, 16, 32, 64],
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    }
    orders = {"order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [patch] * 3,
        "median_image_size_in_voxels": [patch] * 3,
        "spacing": [network_mm] * 3,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_probabilities": RESAMPLING,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **orders},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **orders},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **orders},
        "architecture": architecture,
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Cost",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0] * 3,
        "original_median_shape_after_transp": [patch] * 3,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }


class dataset:
    """A raw and preprocessed dataset of balls in a temporary folder, one case for each number of lesions."""

    def __init__(self, numbers, shape, patch, spacing_mm=(1.0, 1.0, 1.0), network_mm=1.0):
        self.numbers, self.shape, self.spacing_mm = numbers, shape, spacing_mm
        self.plans = plans(patch, network_mm)

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        base = Path(self.folder.name)
        set_folders(base)
        raw, preprocessed = (base / name / "Dataset001_Cost" for name in ("raw", "preprocessed"))
        manager = PlansManager(self.plans)
        (preprocessed / "nnUNetPlans_3d_fullres").mkdir(parents=True)
        for i, n in enumerate(self.numbers):
            instances = ball_map(n, self.shape, seed=i)
            image = np.random.default_rng(i).normal(5, 1, self.shape) + 3 * (instances > 0)
            for kind, array in (("images", image.astype(np.float32)), ("labels", (instances > 0).astype(np.uint8)),
                                ("instances", instances.astype(np.uint16))):  # fmt: skip
                self.write(array, raw / f"{kind}Tr" / f"case{i}{'_0000' if kind == 'images' else ''}.nii.gz")
            DefaultPreprocessor(verbose=False).run_case_save(
                str(preprocessed / "nnUNetPlans_3d_fullres" / f"case{i}"),
                [str(raw / "imagesTr" / f"case{i}_0000.nii.gz")],
                str(raw / "labelsTr" / f"case{i}.nii.gz"),
                manager,
                manager.get_configuration("3d_fullres"),
                DATASET_JSON,
            )
        contents = {raw / "dataset.json": DATASET_JSON, preprocessed / "dataset_fingerprint.json": {}}
        for path, content in contents.items():
            path.write_text(json.dumps(content))
        return base

    def write(self, array, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing_mm)
        sitk.WriteImage(image, str(path), True)

    def __exit__(self, *_):
        self.folder.cleanup()


def set_folders(base):
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(base / name)


def ball_map(n_lesions, shape, seed):
    """Balls of radius 2 to 5 voxels in the middle half of the image, where patches find them."""
    rng = np.random.default_rng(seed)
    instances = np.zeros(shape, np.int32)
    grid = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), axis=-1)
    for label in range(1, n_lesions + 1):
        center = [rng.integers(n // 4, 3 * n // 4) for n in shape]
        window = instances[tuple(slice(c - 6, c + 7) for c in center)]
        window[(grid**2).sum(-1) < rng.uniform(2, 5) ** 2] = label
    return instances


def trainer(kind, patch):
    made = kind({**plans(patch), "continue_training": False}, "3d_fullres", "all", DATASET_JSON, torch.device("cpu"))
    made.on_train_start()
    return made


if __name__ == "__main__":
    main()
