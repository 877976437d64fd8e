import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from format_scenes import RAS, TABLE, in_world, three_lesions, write_prediction

from nnunetv2_conflunet.formats.export import export_folder
from nnunetv2_conflunet.formats.settings import ExportSettings
from nnunetv2_conflunet.utilities.whole_files import why_not_whole

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def exported(folder, output):
    """The segmentation as pynrrd reads it: ids, affine to RAS, header."""
    _, failed = export_folder(folder, output, ExportSettings("slicer"))
    assert failed == {}
    ids, header = nrrd.read(str(output / "ms_1.seg.nrrd"))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = header["space directions"].T, header["space origin"]
    return ids, LPS @ affine, header


def segments(header):
    """The fields of each segment, by name."""
    found = {}
    for key, value in header.items():
        if key.startswith("Segment") and key[7].isdigit():
            number, _, field = key[7:].partition("_")
            found.setdefault(int(number), {})[field] = value
    return found


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_voxels_are_read_back(tmp_path, codes):
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, codes=codes)
    ids, affine, header = exported(folder, tmp_path / "out")
    assert in_world(ids, affine) == in_world(three_lesions(), RAS)
    assert header["space"] == "left-posterior-superior" and ids.dtype == np.uint8
    image = sitk.ReadImage(str(tmp_path / "out" / "ms_1.seg.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, ids)
    of_itk = {
        tuple(round(1000 * value) for value in image.TransformIndexToPhysicalPoint(tuple(map(int, at))))
        for at in np.argwhere(ids == 7)
    }
    assert {(-x, -y, z) for x, y, z in of_itk} == in_world(three_lesions(), RAS)[7]


def test_every_lesion_is_a_segment_with_name_color_and_table(tmp_path):
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": TABLE})
    _, _, header = exported(folder, tmp_path / "out")
    found = segments(header)
    assert [found[i]["Name"] for i in range(3)] == ["lesion 3", "lesion 7", "black hole 12"]
    assert [found[i]["LabelValue"] for i in range(3)] == ["3", "7", "12"]
    assert len({found[i]["ID"] for i in range(3)}) == 3 and {found[i]["Layer"] for i in range(3)} == {"0"}
    colors = [tuple(map(float, found[i]["Color"].split())) for i in range(3)]
    assert colors[0] != colors[1] and all(0 <= value <= 1 for color in colors for value in color)
    tags = dict(tag.split(":", 1) for tag in found[2]["Tags"].strip("|").split("|"))
    assert tags["Lesion.volume_mm3"] == "5" and tags["Lesion.confluent"] == "False"
    assert tags["TerminologyEntry"].split("~")[1:3] == [
        "SCT^49755003^Morphologically Abnormal Structure",
        "SCT^52988006^Lesion",
    ]


def test_no_segment_is_clipped_to_the_box_of_the_first(tmp_path):
    """Slicer cuts the layer that all segments share to the extent of the first one."""
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, codes="PIR")
    ids, _, header = exported(folder, tmp_path / "out")
    whole = " ".join(f"0 {size - 1}" for size in ids.shape)
    assert [segment["Extent"] for segment in segments(header).values()] == [whole] * 3


def test_an_empty_map_has_no_segment(tmp_path):
    folder = write_prediction(tmp_path / "p", {"ms_1": np.zeros((4, 5, 6), np.uint8)})
    ids, _, header = exported(folder, tmp_path / "out")
    assert segments(header) == {} and not ids.any() and ids.shape == (4, 5, 6)


def test_many_lesions_have_a_long_header(tmp_path):
    ids = np.zeros((40, 40, 2), np.uint16)
    ids[::2, ::2, 0] = np.arange(1, 401).reshape(20, 20)
    found, _, header = exported(write_prediction(tmp_path / "p", {"ms_1": ids}), tmp_path / "out")
    np.testing.assert_array_equal(found, ids)
    assert len(segments(header)) == 400
    file = tmp_path / "out" / "ms_1.seg.nrrd"
    content = file.read_bytes()
    assert len(content[: content.index(b"\n\n")]) > 2**18 and why_not_whole(file) is None
    file.write_bytes(content[: 2**17])
    assert why_not_whole(file) == "truncated: its header has no end"


def test_a_plane_has_three_axes(tmp_path):
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()[:, :, 3:4]})
    ids, affine, _ = exported(folder, tmp_path / "out")
    assert ids.shape == (10, 9, 1)
    assert in_world(ids, affine) == in_world(three_lesions()[:, :, 3:4], RAS)


def test_letters_that_the_header_cannot_hold_are_left_out(tmp_path):
    """The header of an NRRD file is ASCII."""
    table = "id,label,médecin\n3,1,Zoë\n7,2,日本\n12,1,\n"
    labels = {"background": 0, "Läsion": 1, "病変": 2}
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": table}, labels=labels)
    _, _, header = exported(folder, tmp_path / "out")
    found = segments(header)
    assert [found[i]["Name"] for i in range(3)] == ["Lasion 3", "7", "Lasion 12"]
    assert "|Lesion.medecin:Zoe|" in found[0]["Tags"] and "|Lesion.medecin:|" in found[1]["Tags"]
