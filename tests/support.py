"""Small plans, images and datasets that several tests share."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_conflunet.nnunet_plugin.project import Project
from nnunetv2_conflunet.utilities.errors import InputError

FEATURES = (4, 8)


def small_plans(dim=3, patch_size=None, spacing_mm=None, transpose_forward=None, reader="SimpleITKIO", n_stages=2):
    """Plans of one configuration, named 3d_fullres or 2d, with a network that runs in milliseconds."""
    transpose_forward = transpose_forward or [0, 1, 2]
    patch_size = list(patch_size or [16] * dim)
    spacing_mm = list(spacing_mm or [1.0] * dim)
    resampling = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": f"nnUNetPlans_{dim}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch_size,
        "median_image_size_in_voxels": patch_size,
        "spacing": spacing_mm,
        "normalization_schemes": ["NoNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resampling,
        "resampling_fn_seg": resampling,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "architecture": small_architecture(dim, n_stages),
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Small",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [32, 32, 32] if dim == 3 else [1, 32, 32],
        "image_reader_writer": reader,
        "transpose_forward": transpose_forward,
        "transpose_backward": [int(axis) for axis in np.argsort(transpose_forward)],
        "configurations": {"3d_fullres" if dim == 3 else "2d": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(10)},
        "continue_training": False,
    }


def small_architecture(dim=3, n_stages=2, residual=False):
    """A plain or residual-encoder U-Net of two or more stages."""
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": n_stages,
            "features_per_stage": [FEATURES[0] * 2**i for i in range(n_stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": [[3] * dim] * n_stages,
            "strides": [[1] * dim] + [[2] * dim] * (n_stages - 1),
            "n_blocks_per_stage" if residual else "n_conv_per_stage": [1] * n_stages,
            "n_conv_per_stage_decoder": [1] * (n_stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def end_validation(validation):
    """Write the summary.json with which nnU-Net ends a validation; it names the cases that are there."""
    entries = [{"prediction_file": str(file)} for file in sorted(validation.glob("*.nii.gz"))]
    (validation / "summary.json").write_text(json.dumps({"metric_per_case": entries}))


def dataset_json(labels=None, channels=1, file_ending=".nii.gz"):
    """The dataset.json of nnU-Net; a list among the labels is a region, and regions get their order as class."""
    regions = any(isinstance(value, list) for value in (labels or {}).values())
    n_regions = len({*(labels or {})} - {"background", "ignore"})
    return {
        **({"regions_class_order": list(range(1, n_regions + 1))} if regions else {}),
        "channel_names": {str(i): f"channel{i}" for i in range(channels)},
        "labels": labels or {"background": 0, "lesion": 1},
        "numTraining": 0,
        "file_ending": file_ending,
    }


def balls(shape, centers, radius, spacing_mm=None):
    """Instance map of balls (ids 1, 2, ...) of a radius in mm; a voxel belongs to the nearest center."""
    spacing = np.ones(len(shape)) if spacing_mm is None else np.array(spacing_mm)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distances = np.stack([np.linalg.norm((grid - np.array(c)) * spacing, axis=-1) for c in centers])
    return np.where(distances.min(axis=0) <= radius, distances.argmin(axis=0) + 1, 0).astype(np.int32)


def line(*runs, length=60):
    """A 1 x length map; a run is (id, start, stop)."""
    instances = np.zeros((1, length), np.int32)
    for i, start, stop in runs:
        instances[0, start:stop] = i
    return instances


def write_nifti(array, path, spacing_mm=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None):
    """Write an array in nnU-Net's axis order (slowest first); spacing, origin and direction in file order (x, y, z)."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in spacing_mm])
    image.SetOrigin([float(value) for value in origin])
    if direction is not None:
        image.SetDirection([float(value) for value in np.ravel(direction)])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)


def files_of(folder):
    """Every file below a folder, hidden ones too, with its content."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def assert_whole_or_as_before(disk, write, room):
    """That writing to a full disk fails with one sentence, leaves no stump, and keeps the files that were there."""
    for _ in ("nothing there", "older files there"):
        before = files_of(disk.folder)
        with disk.room(room), pytest.raises(InputError, match=r"cannot be written completely \(.*Is the disk full\?"):
            write()
        assert files_of(disk.folder) == before
        write()
        assert files_of(disk.folder)


def write_dataset(folder, n_cases=6, shape=(40, 36, 44), seed=0, n_lesions=4, labels=None, spacing_mm=(1.0, 1.0, 1.0)):
    """A raw nnU-Net dataset of bright balls on noise, half of them touching, the last training case without any."""
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    for split, n in (("Tr", n_cases), ("Ts", 1)):
        for i in range(n):
            centers = []
            while len(centers) < n_lesions:
                first = rng.uniform(8, np.array(shape) - 8)
                centers += [first, first + (0, 0, 7)] if len(centers) % 2 == 0 else [first]
            instances = balls(shape, centers[:n_lesions], 4.5)
            if split == "Tr" and i == n_cases - 1:
                instances[:] = 0
            image = rng.normal(100, 10, shape) + 60 * (instances > 0)
            case = f"case_{split}{i}"
            write_nifti(image.astype(np.float32), folder / f"images{split}" / f"{case}_0000.nii.gz", spacing_mm)
            write_nifti((instances > 0).astype(np.uint8), folder / f"labels{split}" / f"{case}.nii.gz", spacing_mm)
            write_nifti(instances.astype(np.uint16), folder / f"instances{split}" / f"{case}.nii.gz", spacing_mm)
    content = dataset_json(labels)
    content["numTraining"] = n_cases
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def nnunet_environment(base, **others):
    """Environment variables for nnU-Net's commands with all folders under `base` and one worker of each kind."""
    return Project(base, Path(base) / "own_trainers").environment | others


@contextmanager
def file_system(folder, options):
    """A small file system in memory at `folder`, made when missing. Skips the test where nobody may mount one."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def unwritable(kind, folder):
    """A place below `folder` where nothing can be written.

    Args:
        kind: ``"a file"``, ``"below a file"``, ``"read-only"`` or ``"full"``.
        folder: a folder of the test.
    """
    place = Path(folder) / "place"
    if kind == "a file":
        place.write_text("old")
        yield place
    elif kind == "below a file":
        place.write_text("old")
        yield place / "deep" / "deeper"
    elif kind == "read-only":
        with file_system(place, "ro"):
            yield place
    else:
        with file_system(place, "size=4096"):
            (place / "filler").write_bytes(bytes(4096))
            yield place


UNWRITABLE = {
    "a file": "place is not a folder",
    "below a file": "place is not a folder",
    "read-only": r"Nothing can be written to .*place \(Read-only file system\)",
    "full": r"Nothing can be written to .*place \(No space left on device\)",
}


def run(command, environment, check=True, timeout=600, largest_file=None):
    """Run a command of the environment's Python, as a user types it; return the finished process.

    With `largest_file` the system refuses to write more than so many bytes to any file, as on a full disk.
    """
    program, *arguments = command
    executable = Path(sys.executable).with_name(program)
    limit = None
    if largest_file is not None:
        resource = pytest.importorskip("resource")
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest_file, largest_file))
    result = subprocess.run(
        [str(executable), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=limit,
    )
    if check and result.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} failed:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
    return result


def preprocessed_dataset(base, plans, n_cases=4, shape=(28, 28, 28), labels=None, seed=0, apart=6):
    """Raw and preprocessed folders under `base` as nnU-Net leaves them; the last case has no lesion.

    The others have two balls, which touch if their centers are 6 voxels `apart`, and do not if 8. Written with
    nnU-Net's own preprocessor. Two-dimensional plans get single slices.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    rng = np.random.default_rng(seed)
    content = dataset_json(labels)
    name = plans["dataset_name"]
    raw, preprocessed = Path(base) / "raw" / name, Path(base) / "preprocessed" / name
    (preprocessed / "gt_segmentations").mkdir(parents=True)
    manager = PlansManager({k: v for k, v in plans.items() if k != "continue_training"})
    (configuration,) = plans["configurations"]
    folder = preprocessed / manager.get_configuration(configuration).data_identifier
    folder.mkdir()
    flat = len(plans["configurations"][configuration]["patch_size"]) == 2
    shape = shape[1:] if flat else shape
    for i in range(n_cases):
        first = rng.uniform(9, np.array(shape) - 12)
        second = first + np.eye(len(shape))[-1] * apart
        instances = balls(shape, [first, second], 3.6) * (i < n_cases - 1)
        label = np.where(instances > 0, 1 + (instances - 1) % (1 if labels is None else 2), 0).astype(np.uint8)
        image = (rng.normal(0, 0.3, shape) + 2 * (instances > 0) + 5).astype(np.float32)
        case = f"case{i}"
        for kind, array in (("images", image), ("labels", label), ("instances", instances.astype(np.uint16))):
            channel = "_0000" if kind == "images" else ""
            write_nifti(array, raw / f"{kind}Tr" / f"{case}{channel}.nii.gz", (1.0,) * len(shape))
        write_nifti(label, preprocessed / "gt_segmentations" / f"{case}.nii.gz", (1.0,) * len(shape))
        DefaultPreprocessor(verbose=False).run_case_save(
            str(folder / case),
            [str(raw / "imagesTr" / f"{case}_0000.nii.gz")],
            str(raw / "labelsTr" / f"{case}.nii.gz"),
            manager,
            manager.get_configuration(configuration),
            content,
        )
    splits = [{"train": [f"case{j}" for j in range(n_cases) if j != i], "val": [f"case{i}"]} for i in range(n_cases)]
    for path, value in (
        (raw / "dataset.json", content),
        (preprocessed / "dataset.json", content),
        (preprocessed / "nnUNetPlans.json", manager.plans),
        (preprocessed / "splits_final.json", splits),
        (preprocessed / "dataset_fingerprint.json", {}),
    ):
        path.write_text(json.dumps(value))
    return content


def set_nnunet_environment(monkeypatch, base):
    """The same variables as :func:`nnunet_environment`, for trainers in this process."""
    for key, value in nnunet_environment(base, nnUNet_n_proc_DA="0").items():
        if key.startswith("nnUNet") or key == "OMP_WAIT_POLICY":
            monkeypatch.setenv(key, value)


def said_of_a_full_disk(room):
    """What a command says when so many bytes are left: none at all are noticed before the work."""
    return "cannot be written completely" if room else "Nothing can be written to"


def unpacked(coded, spacing_mm, sigma_mm):
    """(2 + dim, X, Y[, Z]) float32: what the loss compares the heads with, of the codes and centers of one patch."""
    import torch

    from nnunetv2_conflunet.trainers.targets import unpack_targets

    return unpack_targets(*(torch.as_tensor(array)[None] for array in coded), spacing_mm, sigma_mm)[0].numpy()
