"""What is recorded of a preprocessed instance map: what it was made from, by which a stale one is found, and counts."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

# Increased whenever a change of the code changes the content of the files.
FORMAT = 2


@dataclass(frozen=True)
class PreparedCase:
    """One preprocessed case.

    Attributes:
        case: its id.
        n_instances: on the preprocessed grid.
        n_lost: instances without a voxel there.
        n_unknown: voxels there of unknown instances.
        slips: how often each kind of slip was found in its map; none if the map was checked before.
    """

    case: str
    n_instances: int
    n_lost: int
    n_unknown: int = 0
    slips: dict[str, int] = field(default_factory=dict)

    def record(self, origin: dict[str, int | str]) -> dict[str, Any]:
        """What is stored beside its map, which was made from `origin`; see :func:`made_from`."""
        counts = {"n_instances": self.n_instances, "n_lost": self.n_lost}
        return {"made_from": origin, **counts, **({"n_unknown": self.n_unknown} if "unknown" in origin else {})}


def made_from(instances: Path, segmentation: Path, unknown: int | None) -> dict[str, int | str]:
    """What a map is made from: contents, not times, so copying a dataset does not make its maps stale.

    Args:
        instances: the instance map of the raw dataset.
        segmentation: the preprocessed label, of either of nnU-Net's formats.
        unknown: the id of unknown instances, or None, which leaves no trace.
    """
    if segmentation.suffix == ".b2nd":
        digest: str | int = _digest(segmentation)
    else:
        # The archive stores the checksum of its segmentation, so the images need not be read.
        with ZipFile(segmentation) as archive:
            digest = archive.getinfo("seg.npy").CRC
    origin: dict[str, int | str] = {"format": FORMAT, "instances": _digest(instances), "segmentation": digest}
    return origin if unknown is None else origin | {"unknown": unknown}


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
