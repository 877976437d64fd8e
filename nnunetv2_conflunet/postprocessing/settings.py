"""How instances are made, in a form that travels in a model's plans."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from nnunetv2_conflunet.postprocessing.acls import PRESETS
from nnunetv2_conflunet.postprocessing.merging import MergeRule
from nnunetv2_conflunet.utilities.array_checks import check_not_negative, check_positive, check_share
from nnunetv2_conflunet.utilities.errors import InputError

METHODS = ("center_offset", "cc", "acls")


@dataclass(frozen=True)
class InstantiationSettings:
    """Everything that turns a semantic prediction into instances.

    Attributes:
        method: ``"center_offset"`` (needs the heads), ``"cc"`` (connected components) or ``"acls"`` (needs
            probabilities).
        heatmap_threshold: center-offset: lowest value of a center.
        window_mm: center-offset: full width of the window in which a center is the highest voxel.
        min_prominence: center-offset: lowest share of its height by which every path from a center to a higher one
            falls; 0 keeps all centers.
        min_consistency: center-offset: lowest distance from where a center's own offset points to another center, in
            units of that to itself; 0 keeps all centers.
        top_k: center-offset: keep this many of the highest centers; None keeps all.
        acls_preset: ACLS: ``"lou2021"`` or ``"dworkin2018"``.
        connectivity: neighbours that make voxels connected: 6, 18 or 26; in a plane 4 or 8, where 6 means 4, and 18
            and 26 mean 8.
        min_volume_mm3: smaller instances are removed; does not act in a plane.
        min_extent_mm: instances shorter along any axis are removed.
        min_area_mm2: in a plane smaller instances are removed; does not act in a volume.
        merge: center-offset: when touching pieces are one instance after all; None merges none.

    Raises:
        InputError: a value that is not possible.
    """

    method: str = "center_offset"
    heatmap_threshold: float = 0.1
    window_mm: float = 3.0
    min_prominence: float = 0.0
    min_consistency: float = 0.0
    top_k: int | None = None
    acls_preset: str = "lou2021"
    connectivity: int = 26
    min_volume_mm3: float = 14.0
    min_extent_mm: float = 3.0
    min_area_mm2: float = 0.0
    merge: MergeRule | None = None

    def __post_init__(self):
        for name, value, known in (
            ("method", self.method, METHODS),
            ("acls_preset", self.acls_preset, tuple(PRESETS)),
            ("connectivity", self.connectivity, (4, 6, 8, 18, 26)),
        ):
            if value not in known:
                raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(str, known))}.")
        check_positive(self.heatmap_threshold, "heatmap_threshold")
        check_positive(self.window_mm, "window_mm")
        check_share(self.min_prominence, "min_prominence")
        check_not_negative(self.min_consistency, "min_consistency")
        check_top_k(self.top_k)
        for name in ("min_volume_mm3", "min_extent_mm", "min_area_mm2"):
            check_not_negative(getattr(self, name), name)

    def to_dict(self) -> dict[str, Any]:
        """The settings as values that JSON knows."""
        return asdict(self)

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


def check_top_k(top_k: int | None) -> int | None:
    """`top_k`, None or a positive integer.

    Raises:
        InputError: it is neither.
    """
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
        raise InputError(f"top_k is {top_k!r}; it must be a positive integer, or None to keep every center.")
    return top_k
