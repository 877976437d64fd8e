"""DICOM Segmentation objects (DICOM PS3.3, A.51), made by highdicom (Bridge et al. 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.formats.dicom_series import Series, read_series, unsuitable
from nnunetv2_conflunet.formats.lesions import CaseLesions
from nnunetv2_conflunet.formats.series_grid import on_series_grid
from nnunetv2_conflunet.formats.vocabulary import CATEGORY, LESION
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import atomic_path

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

# Segment numbers are 16-bit integers from 1.
MOST_SEGMENTS = 2**16 - 1
PACKAGE = "nnunetv2_conflunet"
# Added to the series number of the images, so that viewers list the segmentation behind them.
SERIES_NUMBER_STEP = 1000
UTF_8 = "ISO_IR 192"


@dataclass(frozen=True)
class DicomSeg:
    """For each case ``<case>.dcm``, a binary segmentation with a segment for each lesion.

    Attributes:
        series: the folder of each case's series.
    """

    series: Mapping[str, Path]

    def files(self, case: str) -> list[Path]:
        """The segmentation."""
        return [Path(f"{case}.dcm")]

    def write(self, lesions: CaseLesions, output: Path) -> str | None:
        """Write the segmentation; returns a sentence if there is none to write.

        Raises:
            InputError: the map is not on the grid of its series, the series cannot be used, or there are too many
                lesions.
        """
        (file,) = self.files(lesions.case)
        if not lesions.names:
            # Of an earlier export with lesions.
            (output / file).unlink(missing_ok=True)
            return "no lesion, so no file: a DICOM SEG cannot be empty"
        if len(lesions.names) > MOST_SEGMENTS:
            raise InputError(f"It has {len(lesions.names)} lesions; a DICOM SEG has at most {MOST_SEGMENTS} segments.")
        series = read_series(self.series[lesions.case])
        made = make_segmentation(lesions, series)
        with atomic_path(output / file) as temporary:
            made.save_as(temporary)
        return None


def make_segmentation(lesions: CaseLesions, series: Series) -> "Segmentation":
    """A binary segmentation whose segments are the lesions, numbered from 1 in the order of their ids.

    Args:
        lesions: of a case, at least one.
        series: the images that were segmented.

    Raises:
        InputError: the map is not on the grid of the series, or the series lacks what a segmentation needs.
    """
    import highdicom

    ids = on_series_grid(lesions, series)
    numbers = np.array(lesions.numbers)
    segments = np.where(ids > 0, np.searchsorted(numbers, ids) + 1, 0).astype(np.uint16)
    source, descriptions = series.images[0], _descriptions(lesions)
    with unsuitable(series.folder):
        volume = highdicom.Volume(segments, series.affine, "PATIENT", frame_of_reference_uid=source.FrameOfReferenceUID)
        return highdicom.seg.Segmentation(
            source_images=series.images,
            pixel_array=volume,
            segmentation_type="BINARY",
            segment_descriptions=descriptions,
            series_instance_uid=highdicom.UID(),
            series_number=int(source.get("SeriesNumber") or 0) + SERIES_NUMBER_STEP,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=PACKAGE,
            manufacturer_model_name=PACKAGE,
            software_versions=__version__,
            device_serial_number="none",
            content_label="LESIONS",
            content_description="Lesion instances",
            series_description="Lesion instances",
            # Names of labels and patients may hold any letter.
            specific_character_set=UTF_8,
        )


def _descriptions(lesions: CaseLesions) -> "list[SegmentDescription]":
    import highdicom
    from pydicom.sr.codedict import codes

    scheme, value, meaning = CATEGORY
    category = highdicom.sr.CodedConcept(value, scheme, meaning)
    scheme, value, meaning = LESION
    lesion = highdicom.sr.CodedConcept(value, scheme, meaning)
    algorithm = highdicom.AlgorithmIdentificationSequence(PACKAGE, codes.DCM.ArtificialIntelligence, __version__)
    return [
        highdicom.seg.SegmentDescription(
            segment_number=i,
            segment_label=name,
            segmented_property_category=category,
            segmented_property_type=lesion,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=highdicom.UID(),
            tracking_id=f"{lesions.case} {name}",
            display_color=highdicom.color.CIELabColor.from_rgb(*color),
        )
        for i, (name, color) in enumerate(zip(lesions.names, lesions.colors.tolist(), strict=True), start=1)
    ]
