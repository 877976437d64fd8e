"""Predictions to export, and where the voxels of their lesions lie."""

import json

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

TABLE = """\
id,label,volume_mm3,mean_probability,confluent
3,1,40,0.75,True
7,1,20,NaN,True
12,2,5,0.5,False
"""
RAS = np.array([[2.0, 0.0, 0.0, -30.0], [0.0, 1.0, 0.0, 12.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def three_lesions():
    """(10, 9, 8) with the ids 3 and 7, which touch, and 12 alone; no axis is like another or its own mirror image."""
    ids = np.zeros((10, 9, 8), np.uint16)
    ids[1:3, 2:7, 1:5] = 3
    ids[3:4, 3:7, 2:7] = 7
    ids[7, 1, 6] = ids[8, 1:3, 6:8] = 12
    return ids


def write_prediction(folder, maps, *, tables=None, affine=RAS, codes=None, **dataset):
    """A prediction of nnU-Net with instance maps as NIfTI.

    Args:
        folder: of the prediction.
        maps: (I, J, K) by case.
        tables: text by case.
        affine: of all maps.
        codes: orientation in which the files store them, such as ``"LPS"``; default: that of `affine`.
        dataset: further entries of dataset.json.
    """
    (folder / "instances").mkdir(parents=True)
    content = {"file_ending": ".nii.gz", "labels": {"background": 0, "lesion": 1, "black hole": 2}} | dataset
    (folder / "dataset.json").write_text(json.dumps(content))
    for case, ids in maps.items():
        image = nibabel.Nifti1Image(ids, affine)
        if codes is not None:
            image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))
        nibabel.save(image, folder / "instances" / f"{case}.nii.gz")
    for case, text in (tables or {}).items():
        (folder / "instances" / f"{case}.csv").write_text(text)
    return folder


def in_world(ids, affine):
    """The positions of the voxels of each id, in thousandths of a mm."""
    at = np.argwhere(ids)
    positions = np.rint((at @ affine[:3, :3].T + affine[:3, 3]) * 1000).astype(int)
    return {int(i): set(map(tuple, positions[ids[tuple(at.T)] == i].tolist())) for i in np.unique(ids[ids > 0])}
