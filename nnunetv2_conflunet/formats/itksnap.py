"""Maps and label descriptions for ITK-SNAP."""

from pathlib import Path

from nnunetv2_conflunet.formats.lesions import CaseLesions
from nnunetv2_conflunet.utilities.errors import InputError

# ITK-SNAP keeps labels in 16 bits.
LARGEST_ID = 2**16 - 1
HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    IDX:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


class ItkSnap:
    """For each case ``<case>.nii.gz`` and ``<case>_labels.txt``, to open as segmentation and as label descriptions."""

    def files(self, case: str) -> list[Path]:
        """The map, and the names and colors of its lesions."""
        return [Path(f"{case}.nii.gz"), Path(f"{case}_labels.txt")]

    def write(self, lesions: CaseLesions, output: Path) -> str | None:
        """Write both files.

        Raises:
            InputError: an id does not fit into 16 bits.
        """
        highest = max(lesions.numbers, default=0)
        if highest > LARGEST_ID:
            raise InputError(f"It has the id {highest}; ITK-SNAP reads ids up to {LARGEST_ID}. Renumber them from 1.")
        volume, labels = (output / file for file in self.files(lesions.case))
        lesions.write_nifti(volume, {labels: label_descriptions(lesions)})
        return None


def label_descriptions(lesions: CaseLesions) -> str:
    """The text of ITK-SNAP's label description file: index, color, opacity, visibility and name of each lesion."""
    rows = zip(lesions.numbers, lesions.colors.tolist(), lesions.names, strict=True)
    return HEADER + "".join(
        f'{number:5d}   {red:3d}  {green:3d}  {blue:3d}        1  1  1    "{name}"\n'
        for number, (red, green, blue), name in rows
    )
