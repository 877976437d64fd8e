"""What lesions, and the columns of their table, are called in other formats."""

import re

# Coding scheme, code and meaning: DICOM PS3.16, CID 7150 (category) and CID 7159 (type).
CATEGORY = ("SCT", "49755003", "Morphologically Abnormal Structure")
LESION = ("SCT", "52988006", "Lesion")

# The axes i, j, k or x, y, z in a column's name are written as one letter here.
DESCRIPTIONS = {
    "label": "Label in the semantic segmentation.",
    "n_voxels": "Number of voxels.",
    "volume_mm3": "Volume.",
    "area_mm2": "Area, of two-dimensional images.",
    "centroid_voxel_i": "Center of mass, as voxel index along an axis of the image, from 0.",
    "centroid_world_x_mm": "Center of mass in the convention that world_convention names.",
    "world_convention": "RAS: x to the right, y to the front, z to the top; none: the image has no orientation.",
    "bbox_min_i": "Lowest voxel index along an axis of the image, from 0.",
    "bbox_max_i": "Highest voxel index along an axis of the image, from 0.",
    "extent_i_mm": "Length along an axis of the image.",
    "largest_diameter_mm": "Largest distance between two points of the surface.",
    "mean_probability": "Mean predicted probability of the foreground.",
    "center_score": "Height of the predicted heatmap at the center.",
    "confidence": "How sure the lesion is, from 0 to 1, for ranking; not calibrated.",
    "component": "Connected component of the union of all lesions.",
    "confluent": "Whether another lesion shares the component.",
}
UNITS = {"mm": "mm", "mm2": "mm^2", "mm3": "mm^3"}


def describe_columns(names: list[str]) -> dict[str, dict[str, str]]:
    """Description and unit of each column; a column that is not known is described by its name.

    >>> describe_columns(["extent_k_mm"])
    {'extent_k_mm': {'Description': 'Length along an axis of the image.', 'Units': 'mm'}}
    """
    found = {}
    for name in names:
        known = re.sub(r"_[jk](?=_mm$|$)", "_i", re.sub(r"_[yz]_mm$", "_x_mm", name))
        text = DESCRIPTIONS.get(known, name.replace("_", " ").capitalize() + ".")
        unit = UNITS.get(name.rpartition("_")[2])
        found[name] = {"Description": text} | ({"Units": unit} if unit else {})
    return found
