"""Cases with errors of every kind, and their scores by the functions that a user would call."""

from dataclasses import asdict

import numpy as np

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.postprocessing import instantiate, remove_small_instances
from nnunetv2_conflunet.trainers.targets import center_offset_targets
from nnunetv2_conflunet.tuning.scoring import METRICS


def noisy_case(shape, spacing_mm, seed):
    """Balls of 1 to 5 mm, a mask with errors, and heads with noise."""
    rng = np.random.default_rng(seed)
    position = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * spacing_mm
    reference = np.zeros(shape, np.int32)
    for i in range(1, 11):
        center = rng.uniform(0.1, 0.9, len(shape)) * shape * spacing_mm
        reference[np.linalg.norm(position - center, axis=-1) <= rng.uniform(1, 5)] = i
    heatmap, offsets_mm = center_offset_targets(reference, spacing_mm)
    heatmap = heatmap * rng.uniform(0.4, 1, shape) + rng.uniform(0, 0.1, shape)
    offsets_mm = offsets_mm + rng.normal(0, 1, offsets_mm.shape)
    foreground = (reference > 0) & (rng.random(shape) > 0.03)
    foreground[tuple(slice(0, n // 5) for n in shape)] = True
    return foreground, reference, heatmap.astype(np.float32), offsets_mm.astype(np.float32)


def one_by_one(foreground, reference, spacing_mm, heads, points, scoring, probability=None):
    """(points, metrics) of a case by the functions that a user would call."""
    limits = asdict(scoring.limits)
    is_unknown = np.zeros(reference.shape, bool) if scoring.unknown is None else reference == scoring.unknown
    kept_reference = remove_small_instances(np.where(is_unknown, 0, reference), spacing_mm, **limits)
    kept_reference[is_unknown] = scoring.unknown or 0
    rows = []
    for point in points:
        instances = instantiate(foreground, spacing_mm, point, probability=probability, **heads).instances
        instances = remove_small_instances(instances, spacing_mm, **limits)
        options = {"iou_threshold": scoring.iou_threshold, "unknown": scoring.unknown}
        found = evaluate_case(instances, kept_reference, spacing_mm, **options)
        rows.append([found[name] for name in METRICS])
    return np.array(rows)
