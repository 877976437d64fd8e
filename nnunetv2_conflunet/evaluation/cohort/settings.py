"""The options of an evaluation, checked before any work."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.confluence import CLU_DEFINITIONS
from nnunetv2_conflunet.evaluation.metrics.formulas import UNDEFINED_POLICIES
from nnunetv2_conflunet.evaluation.metrics.matching import MATCHING_RULES
from nnunetv2_conflunet.postprocessing.size_filter import SizeLimits, limit_option
from nnunetv2_conflunet.utilities.array_checks import CONNECTIVITIES
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option

MISSING_POLICIES = ("error", "worst", "skip")
SWEEP_THRESHOLDS = tuple(i / 10 for i in range(1, 10))
# Options that earlier versions did not store, with the values that they stand for there.
ADDED = {"min_area_mm2": 0.0}


@dataclass(frozen=True)
class EvaluationSettings:
    """How a folder is evaluated.

    Attributes:
        iou_threshold: a pair matches above it, strictly.
        matching: rule of :func:`.matching.match`.
        connectivity: 6, 18 or 26, of the components that make lesions confluent.
        clu: definition of :func:`.confluence.find_confluent`.
        undefined: policy of :func:`.metrics.apply_undefined_policy`.
        missing: what a reference without a prediction means: ``"error"``, ``"worst"`` (an empty prediction) or
            ``"skip"``.
        min_volume_mm3: smaller instances are removed from both maps before anything else; 0 keeps all. Does not act in
            a plane.
        min_extent_mm: so are instances that are shorter along an axis; 0 keeps all.
        min_area_mm2: in a plane so are smaller instances; 0 keeps all.
        surface: add surface distances of the matched pairs.
        nsd_tolerance_mm: tolerance of the normalised surface Dice.
        volume_bins_mm3: inner borders of the volume strata, ascending; a lesion on a border belongs to the upper one.

    Raises:
        InputError: a value out of range.
    """

    iou_threshold: float = option(0.1, "two lesions match only if their IoU is above this value")
    matching: str = option("paper", "matching rule", choices=tuple(MATCHING_RULES))
    connectivity: int = option(
        26, "neighbors that make voxels connected, to find confluent lesions", choices=CONNECTIVITIES[3]
    )
    clu: str = option("shared", "definition of a confluent lesion unit", choices=CLU_DEFINITIONS)
    undefined: str = option("nan", "value of undefined ratios", choices=UNDEFINED_POLICIES)
    missing: str = option("error", "references without a prediction: stop, or score", choices=MISSING_POLICIES[:2])
    min_volume_mm3: float = limit_option("min_volume_mm3")
    min_extent_mm: float = limit_option("min_extent_mm")
    min_area_mm2: float = limit_option("min_area_mm2")
    surface: bool = option(False, "add ASD, HD95 and NSD of matched lesions")
    nsd_tolerance_mm: float = option(1.0, "tolerance of the NSD in mm")
    volume_bins_mm3: tuple[float, ...] = option((30.0, 100.0, 300.0, 1000.0), "borders of the volume strata in mm3")

    def __post_init__(self):
        for name, value, allowed in (
            ("matching rule", self.matching, tuple(MATCHING_RULES)),
            ("CLU definition", self.clu, CLU_DEFINITIONS),
            ("connectivity", self.connectivity, (6, 18, 26)),
            ("policy for undefined ratios", self.undefined, UNDEFINED_POLICIES),
            ("policy for missing predictions", self.missing, MISSING_POLICIES),
        ):
            if value not in allowed:
                raise InputError(f"There is no {name} '{value}'; use one of {', '.join(map(str, allowed))}.")
        if not 0 <= self.iou_threshold < 1:
            raise InputError(f"The IoU threshold is {self.iou_threshold}; it must be at least 0 and below 1.")
        for name, value in (
            ("smallest volume", self.min_volume_mm3),
            ("smallest extent", self.min_extent_mm),
            ("smallest area", self.min_area_mm2),
            ("tolerance of the surface Dice", self.nsd_tolerance_mm),
        ):
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"The {name} is {value}; it must be 0 or a positive number.")
        bins = self.volume_bins_mm3
        if not all(np.isfinite(i) and i > 0 for i in bins) or any(a >= b for a, b in pairwise(bins)):
            raise InputError(f"The volume bins are {bins}; give ascending positive numbers in mm3.")

    @property
    def limits(self) -> SizeLimits:
        """The limits of the size filter, which acts on references and predictions."""
        return SizeLimits(self.min_volume_mm3, self.min_extent_mm, self.min_area_mm2)
