"""Model folders with validation cases whose best settings are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support import balls, dataset_json, end_validation, small_plans, write_nifti

from nnunetv2_conflunet.postprocessing import InstantiationSettings

SHAPE, SPACING = (20, 24, 32), (1.0, 1.0, 1.0)
DATASET, MODEL = "Dataset001_Small", "nnUNetTrainerConfLUNet__nnUNetPlans__3d_fullres"
# Seven voxels between touching lesions, so that no voxel is as near to one center as to the other.
CENTERS = [(10, 8, 6), (10, 8, 13), (10, 16, 18), (10, 16, 25)]


def bump(center, height, sigma_mm=1.0):
    """A Gaussian of a height at a voxel."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    return height * np.exp(-((grid - np.array(center)) ** 2).sum(axis=-1) / (2 * sigma_mm**2))


def scene(
    *, heights=(0.6, 0.65, 0.7, 0.75), spurious=0.0, aside_mm=3, false_lesion=False, empty=False, probability=None
):
    """Reference and prediction of two pairs of touching balls of radius 4 mm, or of nothing.

    The offsets are zero, as before any training: a voxel goes to the peak nearest to itself. So peaks at the centers of
    the balls give the reference, and any other set of peaks does not.

    Args:
        heights: of the peak of each ball.
        spurious: height of a second peak beside that of each ball; 0 for none.
        aside_mm: where the second peak lies, along an axis across the pair.
        false_lesion: add 20 mm3 to the segmentation, away from the balls.
        empty: a reference without lesions, of which nothing but a false lesion is predicted.
        probability: of the four balls and of the false lesion; None writes no probabilities.
    """
    reference = balls(SHAPE, CENTERS, 4.0) * (not empty)
    segmentation = (reference > 0).astype(np.uint8)
    heatmap = np.zeros(SHAPE)
    if not empty:
        for center, height in zip(CENTERS, heights, strict=True):
            heatmap = np.maximum(heatmap, bump(center, height))
            if spurious:
                heatmap = np.maximum(heatmap, bump(np.add(center, (aside_mm, 0, 0)), spurious))
    if false_lesion:
        # 3 x 3 x 2 voxels and two more, so that it is 3 mm long along each axis.
        segmentation[:3, :3, :2] = 1
        segmentation[0, 0, 2:4] = 1
    return SimpleNamespace(reference=reference, segmentation=segmentation, heatmap=heatmap, probability=probability)


def write_case(base, fold, case, made):
    """Files of one validation case as training with --npz leaves them, and its reference."""
    validation = base / "results" / DATASET / MODEL / f"fold_{fold}" / "validation"
    write_nifti(made.segmentation, validation / f"{case}.nii.gz", SPACING)
    write_nifti(made.reference.astype(np.uint16), base / "raw" / DATASET / "instancesTr" / f"{case}.nii.gz", SPACING)
    end_validation(validation)
    (validation / "instances").mkdir(exist_ok=True)
    np.savez_compressed(
        validation / "instances" / f"{case}.npz",
        heatmap=made.heatmap.astype(np.float16),
        offsets_mm=np.zeros((3, *SHAPE), np.float16),
        crop=np.array([(0, n) for n in SHAPE]),
    )
    if made.probability is not None:
        *of_balls, of_false_lesion = made.probability
        probability = np.choose(made.reference, [of_false_lesion * made.segmentation, *of_balls])
        np.savez_compressed(validation / f"{case}.npz", probabilities=np.stack([1 - probability, probability]))


def write_model(base, cases, settings=None):
    """A model folder whose folds 0, 1, ... take the cases in turn, two folds."""
    model = base / "results" / DATASET / MODEL
    for i, made in enumerate(cases):
        write_case(base, i % 2, f"case{i}", made)
    settings = (settings or InstantiationSettings()).to_dict()
    plans = small_plans() | {"conflunet": {"alpha": 20.0, "beta": 0.02, "sigma_mm": 2.0, "instantiation": settings}}
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset_json()))
    return model


@pytest.fixture
def toys():
    return SimpleNamespace(scene=scene, write_model=write_model, write_case=write_case, shape=SHAPE, dataset=DATASET)


@pytest.fixture
def references(tmp_path):
    """The folder of the references that :func:`write_model` writes."""
    return tmp_path / "raw" / DATASET / "instancesTr"
