"""Patches of nnU-Net's own loader, from a folder of preprocessed cases and instance maps."""

import pickle
from pathlib import Path

import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import center_of_mass
from support import unpacked

from nnunetv2_conflunet.nnunet_plugin.hand_over import replaced_loader
from nnunetv2_conflunet.preprocessing.instance_centers import centers_file, centers_of_map, write_centers
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN
from nnunetv2_conflunet.trainers.augmentation import with_instance_targets
from nnunetv2_conflunet.trainers.patch_loader import InstancePatchLoader
from nnunetv2_conflunet.trainers.targets import HEATMAP, HEATMAP_AND_OFFSETS, NOTHING, OFFSETS, VALIDITY

SHAPE = (12, 40, 44)
SPACING_MM = {3: (2.0, 1.0, 1.0), 2: (1.0, 1.0)}


def instances_of(case):
    """Long bars, longer than a patch; in the second case elsewhere."""
    instances = np.zeros(SHAPE, np.int16)
    first = {"a": 4, "b": 9}[case]
    instances[3:8, first : first + 4, 2:40] = 1
    instances[3:8, first + 4 : first + 7, 2:40] = 2
    instances[2:11, first + 20 : first + 24, 30:34] = 5
    return instances


@pytest.fixture(params=[nnUNetDatasetBlosc2, nnUNetDatasetNumpy])
def dataset(request, tmp_path):
    cases, maps = tmp_path / "cases", tmp_path / "maps"
    for folder in (cases, maps):
        folder.mkdir()
    blosc2 = {"chunks": (1, *SHAPE), "blocks": (1, *SHAPE)} if request.param is nnUNetDatasetBlosc2 else {}
    for case in "ab":
        instances = instances_of(case)
        locations = {1: np.argwhere((instances > 0)[None])}
        image = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
        request.param.save_case(
            image, (instances > 0)[None].astype(np.int16), {"class_locations": locations}, str(cases / case), **blosc2
        )
        request.param.save_seg(instances, str(maps / case))
    return request.param(str(cases), ["a", "b"], folder_with_segs_from_previous_stage=str(maps))


def store_centers(dataset, dim):
    for case in dataset.identifiers:
        path = centers_file(Path(dataset.folder_with_segs_from_previous_stage), case)
        write_centers(centers_of_map(instances_of(case), None, dim), path)


def make_loader(dataset, dim, transforms=()):
    patch = (8, 16, 20)[-dim:]
    labels = LabelManager({"background": 0, "lesion": 1}, None)
    targets = with_instance_targets(ComposeTransforms(list(transforms)), SPACING_MM[dim], 2.0, None)
    return InstancePatchLoader(dataset, 6, patch, patch, labels, 1.0, transforms=targets)


def patches(loader, n_batches=3):
    """Case, unpacked targets and semantic label of every patch."""
    dim = 2 if loader.patch_size_was_2d else 3
    for _ in range(n_batches):
        batch = next(loader)
        semantic, *coded = batch["target"]
        for case, label, *one in zip(batch["keys"], semantic.numpy(), *coded, strict=True):
            yield case, unpacked(one, SPACING_MM[dim], 2.0), label[0]


@pytest.mark.parametrize("dim", [2, 3])
def test_every_lesion_voxel_knows_its_center_however_the_crop_cuts_the_lesion(dataset, dim):
    store_centers(dataset, dim)
    np.random.seed(0)
    n_outside = 0
    for case, target, label in patches(make_loader(dataset, dim)):
        known = target[VALIDITY] == HEATMAP_AND_OFFSETS
        np.testing.assert_array_equal(known, label > 0)
        ends = np.argwhere(known) + target[OFFSETS][:, known].T / SPACING_MM[dim]
        distinct = np.unique(np.round(ends, 3), axis=0)
        # Bars 1 and 2 have their centers 3.5 voxels apart along the second last axis, and 5 is 20 away.
        instances = instances_of(case)
        true = np.array(center_of_mass(instances > 0, instances, [1, 2, 5]))[:, -dim:]
        assert len(distinct) <= 3
        between = {tuple(np.round(np.abs(a - b), 3)) for a in true for b in true}
        assert {tuple(np.round(np.abs(a - b), 3)) for a in distinct for b in distinct} <= between
        n_outside += ((distinct < 0) | (distinct > np.array(label.shape) - 1)).any()
    assert n_outside > 3


def test_without_stored_centers_a_cut_lesion_is_left_out(dataset):
    np.random.seed(0)
    for _, target, label in patches(make_loader(dataset, 3)):
        lesion = target[VALIDITY][label > 0]
        # The bars of 38 voxels do not fit into a patch; only the third lesion can be whole.
        assert (lesion == HEATMAP_AND_OFFSETS).mean() < 0.5


def test_a_center_outside_the_patch_shows_its_peak_inside(dataset, monkeypatch):
    """The crop ends one voxel before the third lesion: the lesion is not seen, its Gaussian is."""
    store_centers(dataset, 3)
    monkeypatch.setattr(nnUNetDataLoader, "get_bbox", lambda *_, **__: ([2, 7, 22], [10, 23, 42]))
    loader = make_loader(dataset, 3)
    loader.indices = ["a"]
    ((_, target, label), *_) = patches(loader, 1)
    # In the image the lesion begins at 24 along the second axis, and its center is (6, 25.5, 31.5).
    assert not label[:, 4:].any()
    assert target[HEATMAP][4, 15, 9] == pytest.approx(np.exp(-(3.5**2 + 0.5**2) / 8), abs=1e-4)


def test_centers_go_through_nnunets_augmentation(dataset):
    store_centers(dataset, 3)
    np.random.seed(1)
    torch.manual_seed(1)
    stock = nnUNetTrainer.get_training_transforms(
        (8, 16, 20), (-0.5, 0.5), None, (0, 1, 2), False, use_mask_for_norm=[False]
    )
    for _, target, label in patches(make_loader(dataset, 3, stock.transforms), 2):
        known = target[VALIDITY] == HEATMAP_AND_OFFSETS
        # Interpolated labels and ids taken from the nearest voxel differ at borders only.
        assert (known & (label > 0)).sum() >= 0.8 * (label > 0).sum()
        ends = np.argwhere(known) * SPACING_MM[3] + target[OFFSETS][:, known].T
        assert len(np.unique(np.round(ends, 1), axis=0)) <= 3


def test_a_loader_goes_to_another_process_with_its_centers(dataset):
    store_centers(dataset, 3)
    np.random.seed(2)
    here = next(make_loader(dataset, 3))
    np.random.seed(2)
    there = next(pickle.loads(pickle.dumps(make_loader(dataset, 3))))
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(here["target"], there["target"], strict=True))
    assert torch.equal(here["target"][-2], there["target"][-2])


def test_nnunets_own_loader_comes_back():
    stock = stock_training.nnUNetDataLoader
    with pytest.raises(RuntimeError), replaced_loader(InstancePatchLoader):
        assert stock_training.nnUNetDataLoader is InstancePatchLoader
        raise RuntimeError
    assert stock_training.nnUNetDataLoader is stock


@pytest.mark.parametrize("dim", [2, 3])
def test_nothing_is_learned_on_unknown_instances(dataset, monkeypatch, dim):
    maps = Path(dataset.folder_with_segs_from_previous_stage)
    for case in dataset.identifiers:
        instances = instances_of(case)
        instances[instances == 2] = UNKNOWN
        for file in maps.glob(f"{case}.*"):
            file.unlink()
        type(dataset).save_seg(instances, str(maps / case))
        path = centers_file(maps, case)
        write_centers(centers_of_map(instances, None, dim), path)
    lower, upper = [5 if dim == 2 else 2, 0, 2], [6 if dim == 2 else 10, 16, 22]
    monkeypatch.setattr(nnUNetDataLoader, "get_bbox", lambda *_, **__: (lower, upper))
    n_unknown = 0
    for case, target, label in patches(make_loader(dataset, dim), n_batches=2):
        instances = instances_of(case)[tuple(map(slice, lower, upper))].reshape(label.shape)
        np.testing.assert_array_equal(label > 0, instances > 0)
        np.testing.assert_array_equal(target[VALIDITY] == HEATMAP_AND_OFFSETS, (instances == 1) | (instances == 5))
        assert (target[VALIDITY][instances == 2] == NOTHING).all()
        n_unknown += np.count_nonzero(instances == 2)
    assert n_unknown
