"""ACLS against a slow whole-image reference with scikit-image's Hessian, and on difficult masks."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.feature import hessian_matrix, hessian_matrix_eigvals

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate, instantiate_acls, instantiate_cc
from nnunetv2_conflunet.postprocessing.baselines.acls import PRESETS, _summits, reach_voxels
from nnunetv2_conflunet.postprocessing.pieces import Assignment, connected_regions
from nnunetv2_conflunet.postprocessing.voxels import Voxels


def summits(probability, mask, sigma):
    """Voxels of the mask where all eigenvalues of scikit-image's Hessian of the whole image are below -1e-6."""
    hessian = hessian_matrix(probability, sigma=sigma, mode="constant", order="rc", use_gaussian_derivatives=False)
    return mask & (hessian_matrix_eigvals(hessian).max(axis=0) < -1e-6)


def reference(probability, mask, spacing_mm, preset):
    every = np.ones((3,) * mask.ndim)
    if preset == "lou2021":
        seeds = ndimage.label(summits(np.where(mask, probability, 0), mask, 1.0), every)[0]
    else:
        sigma = [1.2 / s for s in spacing_mm]
        seeds = ndimage.label(summits(probability, mask, sigma))[0]
        size = np.bincount(seeds.ravel()) * np.prod(spacing_mm)
        seeds = np.where(size[seeds] >= 10, seeds, 0)
    components = ndimage.label(mask, every)[0]
    center, distance = np.zeros(mask.shape, np.int64), np.zeros(mask.shape)
    for c in range(1, components.max() + 1):
        here = np.argwhere(components == c)
        sites = np.argwhere((seeds > 0) & ((components == c) | (preset == "lou2021")))
        if not len(sites):
            continue
        label = seeds[tuple(sites.T)]
        away = cdist(here * spacing_mm, sites * spacing_mm)
        tied = away <= away.min(axis=1, keepdims=True) + 1e-6
        center[components == c] = np.where(tied, label, 10**9).min(axis=1)
        distance[components == c] = away.min(axis=1)
    voxels = Voxels.of(mask)
    at = tuple(voxels.coordinates.T)
    found = np.zeros(mask.shape, int)
    scores = np.ones(seeds.max())
    connectivity = 26 if mask.ndim == 3 else 8
    found[at] = connected_regions(voxels, Assignment(center[at], distance[at], scores), connectivity).instance
    return found, seeds


CASES = {
    "3D": ((34, 36, 38), (1.0, 1.0, 1.0)),
    "3D anisotropic": ((14, 36, 38), (3.0, 1.0, 1.2)),
    "2D": ((60, 64), (1.0, 1.0)),
}


@pytest.mark.parametrize("preset", ["lou2021", "dworkin2018"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_matches_the_whole_image_reference(toys, case, preset):
    shape, spacing = case
    every = np.ones((3,) * len(shape))
    n_centers = n_components = 0
    for seed in range(3):
        # np.gradient is one-sided at the image's border, where this package extends the image.
        border = np.pad(np.ones([n - 4 for n in shape], bool), 2)
        mask = (toys.balls(seed, shape, spacing, 12, pitch_mm=6.0) > 0) & border
        noise = 0.05 * np.random.default_rng(seed).random(shape)
        probability = np.clip(ndimage.gaussian_filter(mask.astype(float), 0.8) + noise, 0, 1)
        mask &= probability > 0.5
        expected, seeds = reference(probability, mask, spacing, preset)
        found = instantiate_acls(probability, foreground=mask, preset=preset, spacing_mm=spacing)
        assert toys.same_partition(found, expected)
        n_centers += len(np.unique(seeds)) - 1
        n_components += ndimage.label(mask, every)[1]
    # Otherwise connected components alone would do.
    assert n_centers > n_components


def two_summits():
    """Two touching balls of radius 5 whose probability falls from their centers."""
    at = np.stack(np.meshgrid(np.arange(16), np.arange(16), np.arange(26), indexing="ij"), axis=-1)
    distance = np.minimum(*(np.linalg.norm(at - (8, 8, x), axis=-1) for x in (8, 17)))
    return np.clip(1 - distance / 10, 0, 1)


@pytest.mark.parametrize("preset", ["lou2021", "dworkin2018"])
def test_two_summits_are_two_instances(preset):
    probability = two_summits()
    found = instantiate_acls(probability, preset=preset)
    assert found.max() == 2
    assert ndimage.label(probability > 0.5, np.ones((3, 3, 3)))[1] == 1
    # The plane between them halves the mask.
    assert (found[:, :, :13] <= 1).all() and (found[:, :, 13:] != 1).all()
    assert np.array_equal(found > 0, probability > 0.5)


def test_a_voxel_equally_near_to_two_centers_goes_to_the_first():
    at = np.stack(np.meshgrid(np.arange(13), np.arange(25), indexing="ij"), axis=-1)
    distance = np.minimum(*(np.linalg.norm(at - (6, x), axis=-1) for x in (7, 17)))
    found = instantiate_acls(np.clip(1 - distance / 11, 0, 1))
    assert found.max() == 2
    assert set(found[:, 12]) == {0, 1}
    assert np.array_equal(found[:, :12] > 0, found[:, :12:-1] > 0)


def test_center_scores_are_undefined():
    settings = InstantiationSettings(method="acls")
    result = instantiate(two_summits() > 0.5, (1, 1, 1), settings, probability=two_summits())
    assert result.report["n_centers"] == 2
    assert len(result.center_score) == 2 and np.isnan(result.center_score).all()


@pytest.mark.parametrize("preset", ["lou2021", "dworkin2018"])
@pytest.mark.parametrize("shape", [(12, 13, 14), (12, 13), (1, 12, 13)])
def test_empty_full_and_saturated_masks(preset, shape):
    assert not instantiate_acls(np.zeros(shape), preset=preset).any()
    assert (instantiate_acls(np.ones(shape), preset=preset) > 0).all()
    block = np.zeros(shape)
    block[tuple(slice(0 if n == 1 else 2, n if n == 1 else 9) for n in shape)] = 1
    assert np.array_equal(instantiate_acls(block, preset=preset) > 0, block > 0)


def test_rounding_of_a_saturated_interior_makes_no_centers():
    """A large block of softmax values next to 1 that differ by float32 rounding only."""
    probability = np.zeros((30, 30, 30), np.float32)
    rng = np.random.default_rng(0)
    probability[5:25, 5:25, 5:25] = 1 - rng.integers(0, 3, (20, 20, 20)) * np.float32(6e-8)
    found = instantiate_acls(probability, preset="lou2021")
    smooth = instantiate_acls((probability > 0.5).astype(np.float32), preset="lou2021")
    assert np.array_equal(found, smooth)
    assert found.max() <= 8


@pytest.mark.parametrize("preset", ["lou2021", "dworkin2018"])
def test_a_sheet_of_one_voxel_stays_whole_in_size(preset):
    sheet = np.zeros((9, 20, 20))
    sheet[4, 3:17, 3:17] = 1
    found = instantiate_acls(sheet, preset=preset)
    assert np.array_equal(found > 0, sheet > 0)
    every = np.ones((3, 3, 3))
    assert all(ndimage.label(found == i, every)[1] == 1 for i in range(1, found.max() + 1))


def test_centers_below_10_mm3_do_not_count_for_dworkin():
    probability = two_summits()
    # The line through both summits has fewer than ten voxels around each of them.
    line = np.zeros(probability.shape, bool)
    line[8, 8] = probability[8, 8] > 0.5
    assert instantiate_acls(probability, preset="dworkin2018", foreground=line).max() == 1
    # With thick voxels the same centers are larger than 10 mm3.
    thick = (8.0, 8.0, 1.0)
    assert instantiate_acls(probability, preset="dworkin2018", foreground=line, spacing_mm=thick).max() == 2


def test_threshold_and_given_foreground(toys):
    probability = two_summits()
    assert np.array_equal(instantiate_acls(probability, threshold=0.7) > 0, probability > 0.7)
    mask = probability > 0.6
    assert np.array_equal(instantiate_acls(probability, foreground=mask) > 0, mask)


def test_float16_probability_and_untouched_inputs():
    probability = two_summits().astype(np.float16)
    probability.flags.writeable = False
    assert instantiate_acls(probability).max() == 2


def test_how_far_around_the_foreground_the_probability_counts():
    # Four sigmas of 1.2 mm, rounded to voxels, and two more for differences of differences.
    assert reach_voxels(PRESETS["dworkin2018"], np.array([1.5, 1.0, 1.2])).tolist() == [5, 7, 6]
    assert reach_voxels(PRESETS["dworkin2018"], np.array([0.5, 4.0])).tolist() == [12, 3]
    assert reach_voxels(PRESETS["lou2021"], np.array([1.5, 1.0, 1.2])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(30, 40), (9, 20, 22)])
def test_a_sigma_wider_than_the_image_needs_no_more_than_the_image(shape):
    probability = np.random.default_rng(0).random(shape).astype(np.float32)
    # 4,000 voxels: nothing is curved, so every component is its own instance.
    found = instantiate_acls(probability, preset="dworkin2018", spacing_mm=(0.0003,) * len(shape))
    np.testing.assert_array_equal(found, instantiate_cc(probability > 0.5))


def test_beyond_the_border_the_outermost_value_goes_on():
    # A Gaussian that reaches 24 voxels over the border of 12 x 14.
    sigma, margin = 6.0, 40
    row, column = np.mgrid[:12, :14]
    probability = np.exp(-((row - 4) ** 2 + (column - 8) ** 2) / 18)
    padded = np.pad(probability, margin, mode="edge")
    expected = summits(padded, padded > 0.01, sigma)[margin:-margin, margin:-margin]
    mask = probability > 0.01
    found = _summits(probability, np.argwhere(mask), np.full(2, sigma))
    np.testing.assert_array_equal(found, expected[mask])
    assert 0 < found.sum() < found.size
