"""What is shown of one place of an image: its planes, with the instances in them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.pictures.drawing import draw_section
from nnunetv2_conflunet.pictures.names import Box
from nnunetv2_conflunet.pictures.sections import Section, sections_through


@dataclass(frozen=True, eq=False)
class View:
    """Planes through one voxel. It holds the instances in them, so that the map need not be read again.

    Attributes:
        sections: the planes.
        ids: the instances in each, as displayed.
        elsewhere: in each, where chosen instances lie in any slice, as displayed.

    >>> geometry = Geometry.from_properties((4, 5, 6), {"spacing": (3.0, 1.0, 1.0)})
    >>> view = View.of(np.ones((4, 5, 6), int), geometry, (0, 0, 0), field_mm=3)
    >>> [ids.shape for ids in view.ids]
    [(3, 3), (1, 3), (1, 3)]
    """

    sections: tuple[Section, ...]
    ids: tuple[np.ndarray, ...]
    elsewhere: tuple[dict[int, np.ndarray], ...]

    @classmethod
    def of(
        cls,
        instances: np.ndarray,
        geometry: Geometry,
        voxel: Sequence[int] | np.ndarray,
        field_mm: float | None = None,
        *,
        elsewhere: Collection[int] = (),
    ) -> "View":
        """The planes of a map.

        Args:
            instances: (X, Y, Z) ids.
            geometry: of that array.
            voxel: (3,) array index.
            field_mm: side of the square that is shown, see :func:`.sections.sections_through`.
            elsewhere: ids that are also shown where they lie in other slices.
        """
        sections = sections_through(geometry, voxel, field_mm)
        voxels = {i: np.argwhere(instances == i) for i in elsewhere}
        projected = ({i: section.project(at) for i, at in voxels.items()} for section in sections)
        return cls(sections, tuple(section.cut(instances) for section in sections), tuple(projected))

    def draw(
        self,
        image: np.ndarray | None,
        window: tuple[float, float],
        colors: Mapping[int, str],
        *,
        named: Collection[int] = (),
        frames: "View | None" = None,
    ) -> list[dict[str, Any]]:
        """Title, width in mm and SVG picture of each plane.

        Args:
            image: (X, Y, Z) gray values, None for black.
            window: the gray values that are black and white.
            colors: id -> color; other instances are light gray.
            named: ids to write beside their lesions.
            frames: a smaller view of the same voxel, to be framed in this one.
        """
        side_mm = max(max(section.size_mm) for section in self.sections)
        boxes: Sequence[Box | None] = [None] * len(self.sections)
        if frames is not None:
            pairs = zip(self.sections, frames.sections, strict=True)
            boxes = [None if one.shows_same_part(other) else one.box_of(other) for one, other in pairs]
        planes = [None if image is None else section.cut(image) for section in self.sections]
        parts = zip(self.sections, self.ids, planes, self.elsewhere, boxes, strict=True)
        return [
            {
                "title": section.title,
                "width": section.size_mm[1],
                "svg": draw_section(
                    section, ids, plane, window, colors, named=named, elsewhere=masks, frame=box, side_mm=side_mm
                ),
            }
            for section, ids, plane, masks, box in parts
        ]
