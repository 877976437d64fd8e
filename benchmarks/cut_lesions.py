"""How many lesion voxels belong to lesions cut by the border of the patch, and the benefit of tracking their centers.

    python benchmarks/cut_lesions.py DATASET CONFIGURATION [--batches 200]

Draws training batches with nnU-Net's own loader and augmentation. For every lesion voxel of a patch it determines
whether the lesion reaches the border of the patch, how far the center of mass of the visible part is from the tracked
one, and whether the center is known. It does the same for validation patches, whose loaded crop has no margin.
"""

import argparse
import os
import random

import numpy as np
import torch
from heads_training import make_trainer

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.trainers.targets import HEATMAP_AND_OFFSETS, OFFSETS, VALIDITY


def main():
    args = parse()
    os.environ["nnUNet_n_proc_DA"] = "0"
    for source in (random.seed, np.random.seed, torch.manual_seed):
        source(0)
    args.iterations = args.every = 1
    args.device = "cpu"
    trainer = make_trainer("default", args)
    trainer.on_train_start()
    print("\n| patches | lesion voxels cut by the patch | center known | error of the visible center, mean (95 %) |")
    print("| --- | --- | --- | --- |")
    for name, loader in (("training", trainer.dataloader_train), ("validation", trainer.dataloader_val)):
        print(f"| {name} | {measure(trainer, loader, args.batches)} |")


def measure(trainer, loader, batches):
    spacing = np.array(trainer.configuration_manager.spacing)
    n_voxels = n_cut = n_known = 0
    errors, weights = [], []
    for _ in range(batches):
        target = trainer.loss.unpacked(next(loader)["target"])
        for semantic, packed in zip(target[0].numpy(), target[-1].numpy().astype(float), strict=True):
            lesion = (semantic[0] > 0) & (packed[VALIDITY] != 1)
            known = lesion & (packed[VALIDITY] == HEATMAP_AND_OFFSETS)
            n_voxels += lesion.sum()
            n_known += known.sum()
            for cut, error in lesions(known, packed[OFFSETS], spacing):
                n_cut += cut.size if error is not None else 0
                if error is not None:
                    errors.append(error)
                    weights.append(cut.size)
            n_cut += (lesion & ~known).sum()
    order = np.argsort(errors)
    share = np.cumsum(np.array(weights)[order]) / max(sum(weights), 1)
    worst = np.array(errors)[order][np.searchsorted(share, 0.95)] if errors else np.nan
    mean = np.average(errors, weights=weights) if errors else np.nan
    return f"{n_cut / n_voxels:.1%} of {n_voxels} | {n_known / n_voxels:.1%} | {mean:.1f} mm ({worst:.1f} mm)"


def lesions(known, offsets_mm, spacing):
    """For each lesion: its voxels and, if the patch cuts it, the distance of its visible center from the true one."""
    voxels = np.argwhere(known)
    ends = np.round((voxels * spacing + offsets_mm[:, known].T) * 4).astype(int)
    _, member = np.unique(ends, axis=0, return_inverse=True)
    labels = np.zeros(known.shape, np.int32)
    labels[known] = member.ravel() + 1
    visible = InstanceCenters.of(labels)
    for label, center in zip(visible.ids, visible.voxels, strict=True):
        mine = voxels[member.ravel() == label - 1]
        at_border = ((mine == 0) | (mine == np.array(known.shape) - 1)).any()
        true_mm = (mine * spacing + offsets_mm[:, labels == label].T).mean(0)
        yield mine[:, 0], np.linalg.norm(center * spacing - true_mm) if at_border else None


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("--fold", type=lambda fold: fold if fold == "all" else int(fold), default=0)
    parser.add_argument("--batches", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
