"""The options of an evaluation, checked before the work starts."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings, check_choice
from nnunetv2_conflunet.postprocessing.size_filter import SizeLimits, limit_option
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option

MISSING_POLICIES = ("error", "worst", "skip")
# Options that earlier versions did not store, with the values in effect there.
ADDED = {"min_area_mm2": 0.0, "beta": None, "unknown": None}


@dataclass(frozen=True)
class EvaluationSettings(CaseSettings):
    """How a folder is evaluated: the options of each case and of the whole; the connectivity is 6, 18 or 26.

    Attributes:
        missing: what a reference without a prediction means: ``"error"``, ``"worst"`` (an empty prediction) or
            ``"skip"``.
        min_volume_mm3: instances with a smaller volume are removed from both maps first; 0 keeps all. Not used in 2D.
        min_extent_mm: so are instances that are shorter along any axis; 0 keeps all.
        min_area_mm2: so are, in 2D, instances with a smaller area; 0 keeps all.
        surface: add surface distances of the matched pairs.
        nsd_tolerance_mm: tolerance of the normalized surface Dice.
        volume_bins_mm3: inner borders of the volume strata, ascending; a lesion on a border belongs to the larger
            stratum.

    Raises:
        InputError: a value out of range.

    >>> EvaluationSettings(iou_threshold=0.5).to_json()["iou_threshold"]
    0.5
    """

    missing: str = option(
        "error",
        "references without a prediction: stop with an error, or count all their lesions as missed",
        choices=MISSING_POLICIES[:2],
    )
    min_volume_mm3: float = limit_option("min_volume_mm3")
    min_extent_mm: float = limit_option("min_extent_mm")
    min_area_mm2: float = limit_option("min_area_mm2")
    surface: bool = option(False, "add ASD, HD95 and NSD of matched lesions")
    nsd_tolerance_mm: float = option(1.0, "tolerance of the NSD in mm")
    volume_bins_mm3: tuple[float, ...] = option((30.0, 100.0, 300.0, 1000.0), "borders of the volume strata in mm3")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("connectivity", self.connectivity, (6, 18, 26))
        check_choice("policy for missing predictions", self.missing, MISSING_POLICIES)
        for name, value in (
            ("smallest volume", self.min_volume_mm3),
            ("smallest extent", self.min_extent_mm),
            ("smallest area", self.min_area_mm2),
            ("tolerance of the surface Dice", self.nsd_tolerance_mm),
        ):
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"The {name} is {value}; it must be 0 or a positive number.")
        bins = self.volume_bins_mm3
        if not all(np.isfinite(border) and border > 0 for border in bins) or any(a >= b for a, b in pairwise(bins)):
            raise InputError(f"The volume bins are {bins}; give ascending positive numbers in mm3.")

    @property
    def limits(self) -> SizeLimits:
        """The limits of the size filter, which acts on references and predictions."""
        return SizeLimits(self.min_volume_mm3, self.min_extent_mm, self.min_area_mm2)

    def to_json(self) -> dict[str, Any]:
        """The settings as they are read back from JSON."""
        return {**asdict(self), "volume_bins_mm3": list(self.volume_bins_mm3)}
