"""Writing maps of instance ids through nnU-Net's writers."""

import os
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from skimage import io

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import atomic_path, json_text

# The largest id that a format can hold; the other formats hold uint32.
LARGEST_ID = {".png": 2**16 - 1, ".gipl": 2**16 - 1, ".bmp": 2**8 - 1}


def write_instances(
    instances: np.ndarray,
    path: str | os.PathLike,
    writer: BaseReaderWriter,
    properties: dict,
    file_ending: str,
    beside: Mapping[Path, str] | None = None,
) -> None:
    """Write a map of instance ids with the geometry of its image, completely or not at all.

    nnU-Net's own ``write_seg`` casts to uint8 or uint16; this one keeps every id.

    Args:
        instances: (X, Y, Z) non-negative integers in nnU-Net's axis order.
        path: the file to write.
        writer: an instance of the reader/writer that read the image.
        properties: what that reader returned for the image.
        file_ending: the dataset's, such as ``.nii.gz``.
        beside: maps additional files to their texts. They appear together with the map, just before it.

    Raises:
        InputError: the format cannot hold the ids (above 65,535 in PNG and GIPL, 255 in BMP), an unknown reader/writer
            changed them, or a file cannot be written completely.

    >>> from tempfile import TemporaryDirectory
    >>> from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
    >>> with TemporaryDirectory() as folder:
    ...     write_instances(np.full((1, 2, 2), 70000), f"{folder}/a.tif", Tiff3DIO(), {"spacing": (3, 1, 1)}, ".tif")
    ...     sorted(file.name for file in Path(folder).iterdir())
    ['a.json', 'a.tif']
    """
    path, beside = Path(path), dict(beside or {})
    limit = LARGEST_ID.get(file_ending.lower())
    highest = int(instances.max(initial=0))
    if limit is not None and highest > limit:
        raise InputError(f"{path}: {highest} instances do not fit into {file_ending} (at most {limit}); use .tif.")
    large_dtype = np.uint16 if highest < 2**16 else np.uint32
    ids = np.ascontiguousarray(instances, dtype=np.uint8 if limit == 2**8 - 1 else large_dtype)
    if type(writer).__name__ == "Tiff3DIO":
        # nnU-Net keeps the spacing of a TIFF in a JSON file next to it.
        spacing_file = path.with_name(path.name.removesuffix(file_ending) + ".json")
        beside[spacing_file] = json_text({"spacing": list(map(float, properties["spacing"]))})
    # ITK does not write to names that end with ".NII.GZ".
    with atomic_path(path, file_ending.lower(), beside) as temporary:
        if "sitk_stuff" in properties:
            sitk.WriteImage(sitk_image(ids, properties["sitk_stuff"]), str(temporary), True)
        elif "nibabel_stuff" in properties:
            nibabel.save(_nibabel_image(ids, properties["nibabel_stuff"]), temporary)
        elif type(writer).__name__ == "NaturalImage2DIO":
            io.imsave(str(temporary), ids[0], check_contrast=False)
        elif type(writer).__name__ == "Tiff3DIO":
            tifffile.imwrite(temporary, ids, compression="zlib")
        else:
            _write_and_verify(ids, temporary, writer, properties)


def sitk_image(array: np.ndarray, stuff: dict) -> sitk.Image:
    """An array (X, Y, Z) in nnU-Net's axis order as an image with the geometry that nnU-Net's reader returned."""
    image = sitk.GetImageFromArray(array[0] if len(stuff["spacing"]) == 2 else array)
    image.SetSpacing(stuff["spacing"])
    image.SetOrigin(stuff["origin"])
    image.SetDirection(stuff["direction"])
    if "original_orientation" in stuff:
        image = sitk.DICOMOrient(image, stuff["original_orientation"])
    return image


def _nibabel_image(ids: np.ndarray, stuff: dict) -> nibabel.Nifti1Image:
    original = stuff["original_affine"]
    image = nibabel.Nifti1Image(ids.transpose(2, 1, 0), affine=stuff.get("reoriented_affine", original))
    if "reoriented_affine" in stuff:
        image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), io_orientation(original)))
    return image


def _write_and_verify(ids: np.ndarray, path: Path, writer: BaseReaderWriter, properties: dict) -> None:
    writer.write_seg(ids, str(path), properties)
    if not np.array_equal(writer.read_seg(str(path))[0][0], ids):
        raise InputError(f"{type(writer).__name__} cannot keep {int(ids.max(initial=0))} instance ids in {path.name}.")
