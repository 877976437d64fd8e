import re

import nibabel
import numpy as np
import pytest
from format_scenes import RAS, TABLE, in_world, three_lesions, write_prediction

from nnunetv2_conflunet.formats.export import export_folder
from nnunetv2_conflunet.formats.settings import ExportSettings

# The line that ITK-SNAP reads: index, red, green, blue, opacity, visibility in 2D and 3D, name in quotes.
LINE = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"([^"]*)"')


def read_labels(path):
    """Color, opacity, visibility and name by index, as ITK-SNAP's own reader parses them."""
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            index, red, green, blue, alpha, visible, mesh, name = LINE.fullmatch(line).groups()
            found[int(index)] = ((int(red), int(green), int(blue)), float(alpha), visible + mesh, name)
    return found


def exported(folder, output, fmt="itksnap"):
    return export_folder(folder, output, ExportSettings(fmt))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_map_and_labels_are_read_back(tmp_path, codes):
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": TABLE}, codes=codes)
    assert exported(folder, tmp_path / "out")[1] == {}
    image = nibabel.load(tmp_path / "out" / "ms_1.nii.gz")
    assert in_world(np.asarray(image.dataobj), image.affine) == in_world(three_lesions(), RAS)
    assert image.header.get_xyzt_units()[0] == "mm" and image.get_data_dtype() == np.uint16
    assert image.get_qform(coded=True)[1] == image.get_sform(coded=True)[1] == 1
    labels = read_labels(tmp_path / "out" / "ms_1_labels.txt")
    assert labels.pop(0) == ((0, 0, 0), 0.0, "00", "Clear Label")
    assert {i: label[1:] for i, label in labels.items()} == {
        3: (1.0, "11", "lesion 3"),
        7: (1.0, "11", "lesion 7"),
        12: (1.0, "11", "black hole 12"),
    }
    # 3 and 7 touch.
    assert labels[3][0] != labels[7][0]


def test_an_empty_map_has_the_clear_label_only(tmp_path):
    folder = write_prediction(tmp_path / "p", {"ms_1": np.zeros((4, 5, 6), np.uint8)})
    exported(folder, tmp_path / "out")
    assert list(read_labels(tmp_path / "out" / "ms_1_labels.txt")) == [0]
    assert not np.asarray(nibabel.load(tmp_path / "out" / "ms_1.nii.gz").dataobj).any()


def test_ids_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path):
    ids = three_lesions().astype(np.uint32)
    ids[ids == 12] = 65536
    folder = write_prediction(tmp_path / "p", {"large": ids, "small": three_lesions()})
    done, failed = exported(folder, tmp_path / "out")
    assert list(done) == ["small"]
    assert failed == {"large": "It has the id 65536; ITK-SNAP reads ids up to 65535. Renumber them from 1."}
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["small.nii.gz", "small_labels.txt"]
