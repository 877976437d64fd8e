"""How instances are made, in a form that travels in a model's plans."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from nnunetv2_conflunet.postprocessing.baselines.acls import PRESETS
from nnunetv2_conflunet.postprocessing.merging import MergeRule
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS, SizeLimits, limit_option
from nnunetv2_conflunet.utilities.array_checks import check_not_negative, check_positive, check_share
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option

METHODS = ("center_offset", "cc", "acls", "watershed", "border_core")
PIECES = ("offsets", "climbing")


@dataclass(frozen=True)
class InstantiationSettings:
    """Everything that turns a semantic prediction into instances.

    Attributes:
        method: ``"center_offset"`` (needs the heads), ``"cc"`` (connected components), ``"acls"`` (needs
            probabilities), ``"watershed"`` (of the distance transform) or ``"border_core"`` (needs a prediction of
            cores and borders).
        pieces: center-offset: ``"offsets"``, a voxel goes to the center nearest to where its offset points (the
            paper's rule); ``"climbing"``, to the one at which it arrives when it climbs the heatmap within the mask.
            By climbing, centers are the summits that are high enough: window, prominence and consistency do not act.
        heatmap_threshold: center-offset: lowest value of a center.
        window_mm: center-offset: full width of the window in which a center is the highest voxel.
        min_prominence: center-offset: lowest share of its height by which every path from a center to a higher one
            falls; 0 keeps all centers.
        min_consistency: center-offset: lowest distance from where a center's own offset points to another center, in
            units of that to itself; 0 keeps all centers.
        top_k: center-offset: keep this many of the highest centers; None keeps all.
        acls_preset: ACLS: ``"lou2021"`` or ``"dworkin2018"``.
        h_maxima_mm: watershed: two maxima of the distance transform are two instances if it falls by more than this
            between them, below the lower one.
        connectivity: neighbors that make voxels connected: 6, 18 or 26; in a plane 4 or 8, where 6 means 4, and 18 and
            26 mean 8.
        min_volume_mm3: smaller instances are removed; does not act in a plane.
        min_extent_mm: instances shorter along any axis are removed.
        min_area_mm2: in a plane smaller instances are removed; does not act in a volume.
        min_confidence: instances of lower confidence (:func:`.pieces.instance_confidence`) are removed, which needs the
            probability; 0 keeps all.
        merge: center-offset: when touching pieces are one instance after all; None merges none.

    Raises:
        InputError: a value that is not possible.

    Example:
        >>> settings = InstantiationSettings(method="cc", connectivity=6)
        >>> InstantiationSettings.from_dict(settings.to_dict()) == settings
        True
    """

    method: str = option("center_offset", "how instances are made", flag="-m", choices=METHODS)
    pieces: str = option(
        "offsets", "how a voxel finds its center: by its offset, or by climbing the heatmap", choices=PIECES
    )
    heatmap_threshold: float = option(0.1, "lowest heatmap value of a center")
    window_mm: float = option(3.0, "full width of the window in which a center is the highest voxel")
    min_prominence: float = option(
        0.0, "least drop of the heatmap between a center and a higher one, as a share of its height"
    )
    min_consistency: float = option(
        0.0, "a center's own offset must end this many times closer to it than to any other center"
    )
    top_k: int | None = option(None, "keep only this many of the highest centers of a case")
    acls_preset: str = option("lou2021", "the published form of ACLS to use", choices=tuple(PRESETS))
    h_maxima_mm: float = option(
        0.5, "two maxima of the distance transform are two instances if it drops by more mm between them"
    )
    connectivity: int = option(26, "neighborhood that connects voxels: 6, 18 or 26; in 2D these mean 4, 8 and 8")
    min_volume_mm3: float = limit_option("min_volume_mm3")
    min_extent_mm: float = limit_option("min_extent_mm")
    min_area_mm2: float = limit_option("min_area_mm2")
    min_confidence: float = option(0.0, "smallest confidence of an instance; needs probabilities; 0 keeps all")
    merge: MergeRule | None = None

    def __post_init__(self):
        for name, value, known in (
            ("method", self.method, METHODS),
            ("pieces", self.pieces, PIECES),
            ("acls_preset", self.acls_preset, tuple(PRESETS)),
            ("connectivity", self.connectivity, (4, 6, 8, 18, 26)),
        ):
            if value not in known:
                raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(str, known))}.")
        check_positive(self.heatmap_threshold, "heatmap_threshold")
        check_positive(self.window_mm, "window_mm")
        check_positive(self.h_maxima_mm, "h_maxima_mm")
        check_share(self.min_prominence, "min_prominence")
        check_not_negative(self.min_consistency, "min_consistency")
        top_k = self.top_k
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise InputError(f"top_k is {top_k!r}; it must be a positive integer, or None to keep every center.")
        check_share(self.min_confidence, "min_confidence")
        for name in LIMITS:
            check_not_negative(getattr(self, name), name)

    @property
    def limits(self) -> SizeLimits:
        """The limits of the size filter."""
        return SizeLimits(self.min_volume_mm3, self.min_extent_mm, self.min_area_mm2)

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that JSON knows."""
        return asdict(self)

    @classmethod
    def completed(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Stored values of :meth:`to_dict`, with the defaults of settings that an earlier version did not have.

        >>> InstantiationSettings.completed({"window_mm": 7.0})["min_prominence"]
        0.0
        """
        return cls().to_dict() | stored

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InstantiationSettings":
        """Settings from :meth:`to_dict`; what is missing takes its default.

        Raises:
            InputError: an unknown key, or a value that is not possible.
        """
        if not isinstance(values, dict):
            raise InputError(f"Instantiation settings are {values!r}; they must be a dictionary.")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InputError(f"Unknown instantiation settings {', '.join(unknown)}; known are {', '.join(known)}.")
        merge = values.get("merge")
        return cls(**{**values, "merge": None if merge is None else MergeRule.from_dict(merge)})
