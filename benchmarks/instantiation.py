"""Time and memory of instantiation against naive references, as Markdown tables.

    python benchmarks/instantiation.py            # a brain of 182 x 218 x 182 voxels, references included
    python benchmarks/instantiation.py --fast     # without the references, which take some minutes

Every measurement is one call in a separate process, after a small warm-up call: CPU seconds of the fastest of five
processes, and the peak resident size above that with the inputs loaded. The largest reference takes 8 GB.
"""

import argparse
import ctypes
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from measuring import SHAPE as BRAIN
from measuring import SPACING_MM, in_own_process, reset_peak, resident_mib
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.feature import hessian_matrix, hessian_matrix_eigvals

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate
from nnunetv2_conflunet.postprocessing.assignment import assign_by_offsets
from nnunetv2_conflunet.postprocessing.centers import find_peaks
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.merging import MergeRule
from nnunetv2_conflunet.postprocessing.pieces import Assignment, connected_regions
from nnunetv2_conflunet.postprocessing.voxels import Voxels

# Gaussian noise on the offsets: enough to avoid ties, too little to cause fragments.
NOISE_MM = 0.3
# That of docs/experiments.md, at its own threshold.
RULE = MergeRule(0.2, -1.2, 1.6, -5.5, 0.5, -0.27, 0.19, 0.15, 0.1)
METHODS = {
    "center_offset": InstantiationSettings(min_volume_mm3=0, min_extent_mm=0),
    "center_offset, prominence": InstantiationSettings(min_prominence=0.05, min_volume_mm3=0, min_extent_mm=0),
    "center_offset, prominence and consistency": InstantiationSettings(
        min_prominence=0.05, min_consistency=1.25, min_volume_mm3=0, min_extent_mm=0
    ),
    "center_offset, prominence, consistency and merging": InstantiationSettings(
        min_prominence=0.05,
        min_consistency=1.25,
        min_volume_mm3=0,
        min_extent_mm=0,
        merge=RULE,
    ),
    "center_offset, climbing": InstantiationSettings(
        pieces="climbing", heatmap_threshold=0.2, min_volume_mm3=0, min_extent_mm=0
    ),
    "center_offset, climbing and merging": InstantiationSettings(
        pieces="climbing", heatmap_threshold=0.2, min_volume_mm3=0, min_extent_mm=0, merge=RULE
    ),
    "cc": InstantiationSettings(method="cc", min_volume_mm3=0, min_extent_mm=0),
    "acls lou2021": InstantiationSettings(method="acls", min_volume_mm3=0, min_extent_mm=0),
    "acls dworkin2018": InstantiationSettings(
        method="acls", acls_preset="dworkin2018", min_volume_mm3=0, min_extent_mm=0
    ),
}
# mallopt's parameter for the size above which freed memory returns to the system (malloc.h), and its value.
M_MMAP_THRESHOLD, MMAP_THRESHOLD = -3, 16 * 2**20
Scene = dict[str, np.ndarray]


def make_scene(shape: tuple[int, ...], n_lesions: int) -> Scene:
    """Balls with radii of 2 to 6 voxels, every other one close to the previous one."""
    rng = np.random.default_rng(0)
    instances = np.zeros(shape, np.int32)
    heatmap, probability = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    offsets_mm = np.zeros((3, *shape), np.float32)
    center = None
    for label in range(1, n_lesions + 1):
        radius = rng.uniform(2, 6)
        step = rng.normal(size=3) * 5
        anywhere = np.array([rng.uniform(12, n - 12) for n in shape])
        center = np.clip(center + step if label % 2 == 0 else anywhere, 12, np.array(shape) - 13)
        first = np.floor(center - 9).astype(int)
        box = tuple(slice(a, a + 19) for a in first)
        to_center = center - np.stack(np.meshgrid(*(np.arange(a, a + 19) for a in first), indexing="ij"), axis=-1)
        distance = np.linalg.norm(to_center, axis=-1)
        mine = (distance < radius) & (instances[box] == 0)
        instances[box][mine] = label
        heatmap[box] = np.maximum(heatmap[box], np.exp(-(distance**2) / 8))
        probability[box] = np.maximum(probability[box], 1 / (1 + np.exp(1.5 * (distance - radius))))
        for axis in range(3):
            offsets_mm[axis][box][mine] = to_center[mine, axis]
    foreground = instances > 0
    offsets_mm[:, foreground] += rng.normal(0, NOISE_MM, (3, np.count_nonzero(foreground)))
    return {"foreground": foreground, "heatmap": heatmap, "offsets_mm": offsets_mm, "probability": probability}


def tiled(scene: Scene) -> Scene:
    """The image repeated twice along each axis: 8 x the voxels and 8 x the lesions."""
    return {key: np.tile(value, (2, 2, 2)) for key, value in scene.items()}


def whole_method(name: str) -> Callable[[Scene], np.ndarray]:
    def run(scene: Scene) -> np.ndarray:
        return instantiate(scene["foreground"], SPACING_MM, METHODS[name], **_inputs(scene)).instances

    return run


def assignment_only(scene: Scene) -> np.ndarray:
    """The center of each foreground voxel by this package's sparse search, including the peaks."""
    voxels = Voxels.of(scene["foreground"])
    heads_box = np.array([(0, n) for n in scene["foreground"].shape])
    heads = HeadMaps(scene["heatmap"], scene["offsets_mm"], heads_box, np.array(SPACING_MM))
    centers = find_peaks(heads.heatmap, heads.spacing_mm, threshold=0.1, window_mm=3.0)
    center = assign_by_offsets(voxels, heads, centers).center
    return _painted(scene, center)


def panoptic_deeplab(scene: Scene) -> np.ndarray:
    """The grouping of Panoptic-DeepLab's published code in three dimensions, every voxel against every center at once.

    As in `find_instance_center` and `group_pixels` of bowenc0221/panoptic-deeplab. Takes voxels x centers x 4 float32.
    """
    torch.set_num_threads(1)
    heatmap = torch.from_numpy(scene["heatmap"])[None, None]
    kept = (F.max_pool3d(heatmap, kernel_size=3, stride=1, padding=1) == heatmap) & (heatmap >= 0.1)
    centers = torch.nonzero(kept[0, 0]).float()
    axes = (torch.arange(n, dtype=torch.float32) for n in scene["heatmap"].shape)
    at = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    pointed = (at + torch.from_numpy(scene["offsets_mm"])).reshape(3, -1).T
    distance = torch.norm(centers[:, None] - pointed[None], dim=-1)
    found = (torch.argmin(distance, dim=0) + 1).reshape(scene["heatmap"].shape)
    return np.where(scene["foreground"], found.numpy(), 0)


def dense_by_slices(scene: Scene) -> np.ndarray:
    """The same in NumPy, slice by slice, so that intermediate arrays stay in the cache."""
    heatmap = scene["heatmap"]
    kept = (ndimage.maximum_filter(heatmap, size=3, mode="constant") == heatmap) & (heatmap >= 0.1)
    centers = np.argwhere(kept).astype(np.float32)
    found = np.zeros(heatmap.shape, np.int32)
    plane = np.stack(np.meshgrid(*(np.arange(n) for n in heatmap.shape[1:]), indexing="ij"))
    for x in range(heatmap.shape[0]):
        at = np.concatenate([np.full((1, *plane.shape[1:]), x), plane]).astype(np.float32)
        pointed = (at + scene["offsets_mm"][:, x]).reshape(3, -1).T
        distance = np.linalg.norm(centers[:, None] - pointed[None], axis=-1)
        found[x] = distance.argmin(axis=0).reshape(heatmap.shape[1:]) + 1
    return np.where(scene["foreground"], found, 0)


def whole_image_acls(scene: Scene) -> np.ndarray:
    """ACLS (lou2021) with scikit-image's Hessian of the whole image, and a loop over lesions for the nearest center."""
    mask = scene["foreground"]
    hessian = hessian_matrix(
        np.where(mask, scene["probability"], 0), sigma=1.0, mode="constant", order="rc", use_gaussian_derivatives=False
    )
    every = np.ones((3, 3, 3))
    seeds, n_seeds = ndimage.label(mask & (hessian_matrix_eigvals(hessian).max(axis=0) < 0), every)
    components, n = ndimage.label(mask, every)
    sites = np.argwhere(seeds)
    labels = seeds[tuple(sites.T)]
    center, distance = np.zeros(mask.shape, np.int64), np.zeros(mask.shape)
    for c in range(1, n + 1):
        here = np.argwhere(components == c)
        away = cdist(here, sites)
        center[tuple(here.T)] = labels[away.argmin(axis=1)]
        distance[tuple(here.T)] = away.min(axis=1)
    voxels = Voxels.of(mask)
    at = tuple(voxels.coordinates.T)
    regions = connected_regions(voxels, Assignment(center[at], distance[at], np.ones(n_seeds)), 26)
    return _painted(scene, regions.instance)


def measure(function: Callable[[Scene], np.ndarray], scene: Scene, repeats: int = 5) -> tuple[float, float, np.ndarray]:
    """CPU seconds, MB above the inputs, and the result."""
    results = [in_own_process(_measured, function, scene, method="fork") for _ in range(repeats)]
    seconds, mb, found = zip(*results, strict=True)
    return min(seconds), max(mb), found[0]


def _measured(function, scene) -> tuple[float, float, np.ndarray]:
    function(make_scene((40, 40, 40), 4))  # one-time initialization
    for value in scene.values():
        value.sum()  # load the pages of the inputs into this process
    reset_peak()
    before, start = resident_mib(), time.process_time()
    result = function(scene)
    seconds = time.process_time() - start
    return seconds, resident_mib() - before, result


def _inputs(scene: Scene) -> Scene:
    return {key: scene[key] for key in ("heatmap", "offsets_mm", "probability")}


def _painted(scene: Scene, labels: np.ndarray) -> np.ndarray:
    image = np.zeros(scene["foreground"].shape, np.int32)
    image[scene["foreground"]] = labels
    return image


def share_that_differs(a: np.ndarray, b: np.ndarray) -> float:
    """Fraction of foreground voxels outside a greedy one-to-one pairing of the ids of two maps by overlap."""
    pairs, count = np.unique(np.stack([a[a > 0], b[a > 0]]), axis=1, return_counts=True)
    agree, used_a, used_b = 0, set(), set()
    for (first, second), n_voxels in sorted(zip(pairs.T.tolist(), count, strict=True), key=lambda pair: -pair[1]):
        if first not in used_a and second not in used_b:
            used_a.add(first)
            used_b.add(second)
            agree += n_voxels
    return 1 - agree / np.count_nonzero(a)


def growth_table(brain: Scene) -> None:
    many, large = make_scene(BRAIN, 300), tiled(brain)
    print(
        "\n| method | 60 lesions: CPU s | MB | 300 lesions: CPU s | x | 8 x the voxels, 480 lesions: CPU s | x | MB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in METHODS:
        (s, mb, _), (s300, _, _), (s8, mb8, _) = (measure(whole_method(name), scene) for scene in (brain, many, large))
        print(f"| {name} | {s:.3f} | {mb:.0f} | {s300:.3f} | {s300 / s:.1f} | {s8:.3f} | {s8 / s:.1f} | {mb8:.0f} |")


def reference_table(brain: Scene) -> None:
    print("\n| ours | reference | reference: CPU s | MB | ours: CPU s | ratio | foreground voxels that differ |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    center_offset, acls = whole_method("center_offset"), whole_method("acls lou2021")
    for what, ours, naive_what, naive in (
        ("centers and assignment", assignment_only, "Panoptic-DeepLab, all at once", panoptic_deeplab),
        ("whole center_offset", center_offset, "Panoptic-DeepLab, all at once", panoptic_deeplab),
        ("whole center_offset", center_offset, "dense, by slices", dense_by_slices),
        ("whole acls lou2021", acls, "Hessian of the image, loop over lesions", whole_image_acls),
    ):
        naive_s, naive_mb, expected = measure(naive, brain, repeats=1)
        ours_s, _, found = measure(ours, brain)
        differs = share_that_differs(expected, found)
        ratio = naive_s / ours_s
        print(
            f"| {what} | {naive_what} | {naive_s:.1f} | {naive_mb:.0f} | {ours_s:.3f} | {ratio:.0f} | {differs:.3%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="leave out the naive references")
    args = parser.parse_args()
    # Otherwise this process would keep the memory of received results, and the next forked process would reuse it: the
    # memory would not be counted, and clearing it would cost time.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    brain = make_scene(BRAIN, 60)
    print(f"{BRAIN} voxels, 60 lesions, {np.count_nonzero(brain['foreground'])} of the voxels foreground")
    growth_table(brain)
    if not args.fast:
        reference_table(brain)


if __name__ == "__main__":
    main()
