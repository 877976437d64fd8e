"""Connected components as SciPy counts them, and conservation on real masks."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_conflunet.postprocessing import InstantiationSettings, filter_small_instances, instantiate, instantiate_cc

RANK = {6: 1, 18: 2, 26: 3}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("shape", [(9, 10, 11), (20, 21), (1, 20, 21)])
def test_matches_scipy(toys, shape, connectivity, dtype, order):
    mask = np.asarray(np.random.default_rng(0).random(shape) < 0.25, dtype=dtype, order=order)
    found = instantiate_cc(mask, connectivity=connectivity)
    dim = len(shape) - (shape[0] == 1)
    structure = ndimage.generate_binary_structure(dim, min(RANK[connectivity], dim))
    expected = ndimage.label(mask.reshape(shape[-dim:]), structure)[0].reshape(shape)
    assert found.dtype == np.int32
    assert toys.same_partition(found, expected)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_connectivities_of_a_plane(toys, connectivity):
    mask = np.random.default_rng(0).random((20, 21)) < 0.4
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    assert toys.same_partition(instantiate_cc(mask, connectivity=connectivity), ndimage.label(mask, structure)[0])


def test_labels_of_several_classes_are_one_foreground():
    mask = np.array([[0, 1, 2, 0, 3]])
    assert instantiate_cc(mask).tolist() == [[0, 1, 1, 0, 2]]


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (1, 4, 5)])
def test_empty_and_full(shape):
    assert not instantiate_cc(np.zeros(shape, bool)).any()
    assert (instantiate_cc(np.ones(shape, bool)) == 1).all()


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 3, 3), (1, 5, 1), (5, 3, 7), (3, 5)])
def test_a_lattice_of_isolated_voxels(shape, connectivity):
    # As many components as the bounding box can hold.
    lattice = np.zeros(shape, bool)
    lattice[(slice(None, None, 2),) * len(shape)] = True
    mask = np.pad(lattice, 1)
    found = instantiate_cc(mask, connectivity=connectivity)
    assert found[mask].tolist() == list(range(1, lattice.sum() + 1))


@pytest.fixture(params=["patient07", "patient19"])
def gold(request):
    folder = os.environ.get("CONFLUNET_OPEN_MS")
    if not folder or not (Path(folder) / "gold").is_dir():
        pytest.skip("CONFLUNET_OPEN_MS names no folder with open_ms masks (gold/patientNN.nii.gz)")
    return np.asarray(nibabel.load(Path(folder) / "gold" / f"{request.param}.nii.gz").dataobj)


@pytest.mark.parametrize("connectivity", [6, 26])
def test_real_masks_keep_every_voxel_but_what_the_filter_reports(gold, connectivity):
    structure = ndimage.generate_binary_structure(3, RANK[connectivity])
    n_components = ndimage.label(gold, structure)[1]
    instances = instantiate_cc(gold, connectivity=connectivity)
    assert instances.max() == n_components
    kept, removed = filter_small_instances(instances, (1, 1, 1))
    assert np.count_nonzero(kept) == np.count_nonzero(gold) - removed["n_voxels_removed"]
    assert len(np.unique(kept)) - 1 == n_components - removed["n_instances_removed"]

    settings = InstantiationSettings(method="cc", connectivity=connectivity)
    result = instantiate(gold, (1, 1, 1), settings)
    assert np.array_equal(result.instances > 0, kept > 0)
    assert result.report["n_voxels_removed"] == removed["n_voxels_removed"] > 0
    assert result.instances.max() == result.report["n_instances"] == len(np.unique(kept)) - 1


@pytest.mark.parametrize("preset", ["lou2021", "dworkin2018"])
def test_acls_on_real_masks_keeps_every_voxel(gold, preset):
    probability = np.clip(ndimage.gaussian_filter(gold.astype(np.float32), 0.8), 0, 1)
    settings = InstantiationSettings(method="acls", acls_preset=preset, min_volume_mm3=0, min_extent_mm=0)
    result = instantiate(gold, (1, 1, 1), settings, probability=probability)
    assert np.array_equal(result.instances > 0, gold > 0)
    assert result.instances.max() >= ndimage.label(gold, np.ones((3, 3, 3)))[1]
