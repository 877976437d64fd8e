from dataclasses import replace

import highdicom
import nibabel
import numpy as np
import pytest
from dicom_scenes import grid_lps, write_series
from format_scenes import TABLE, in_world, three_lesions, write_prediction
from pydicom import dcmread
from pydicom.uid import generate_uid
from support import assert_whole_or_as_before

from nnunetv2_conflunet.formats.dicomseg import DicomSeg
from nnunetv2_conflunet.formats.export import export_folder
from nnunetv2_conflunet.formats.lesions import open_instances, read_lesions
from nnunetv2_conflunet.formats.settings import ExportSettings
from nnunetv2_conflunet.utilities.errors import InputError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# The map (I, J, K) has columns, rows and slices of the series as its axes.
SHAPE = three_lesions().shape[::-1]
GRID = grid_lps(turned_degrees=20)


def affine_of_map(grid=GRID):
    """Index (column, row, slice) -> RAS of a map that was converted without change of axes."""
    return LPS @ grid[:, [2, 1, 0, 3]]


def scene(tmp_path, *, ids=None, codes=None, affine=None, tables=None, **series):
    """A prediction with one case, and the series it was converted from."""
    ids = three_lesions() if ids is None else ids
    affine = affine_of_map() if affine is None else affine
    write_prediction(tmp_path / "p", {"ms_1": ids}, affine=affine, codes=codes, tables=tables)
    write_series(tmp_path / "series" / "ms_1", SHAPE, GRID, **series)


def exported(tmp_path, **how):
    settings = ExportSettings("dicomseg", series=tmp_path / "series")
    return export_folder(tmp_path / "p", tmp_path / "out", settings, **how)


def voxels_by_segment(segmentation):
    """The positions in RAS of the voxels of each segment, by pydicom alone, in thousandths of a mm."""
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    rows_mm, columns_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = {}
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, pixels in zip(segmentation.PerFrameFunctionalGroupsSequence, frames, strict=True):
        segment = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        start = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(pixels)
        at = start + np.outer(column * columns_mm, orientation[:3]) + np.outer(row * rows_mm, orientation[3:])
        found.setdefault(segment, set()).update(map(tuple, np.rint(at * [-1000, -1000, 1000]).astype(int).tolist()))
    return found


def close(found, expected):
    """Whether two sets of positions in thousandths of a mm are the same but for rounding."""
    assert found.keys() == expected.keys()
    for key in found:
        one, other = (np.array(sorted(positions[key]), float) for positions in (found, expected))
        assert len(one) == len(other)
        distances = np.linalg.norm(one[:, None] - other[None], axis=-1)
        assert distances.min(axis=0).max() <= 3 and distances.min(axis=1).max() <= 3


# As the files of the scanner, with reversed axes, and with axes in another order.
@pytest.mark.parametrize("codes", [None, "RAS", "LPS", "LAS", "PIR", "SRA"])
def test_voxels_lie_where_those_of_the_map_lie(tmp_path, codes):
    scene(tmp_path, codes=codes)
    assert exported(tmp_path)[1] == {}
    stored = nibabel.load(tmp_path / "p" / "instances" / "ms_1.nii.gz")
    expected = in_world(np.asarray(stored.dataobj), stored.affine)
    found = voxels_by_segment(dcmread(tmp_path / "out" / "ms_1.dcm"))
    close(found, {1: expected[3], 2: expected[7], 3: expected[12]})


def test_highdicom_reads_the_ids_back(tmp_path):
    scene(tmp_path, codes="PIR")
    exported(tmp_path)
    volume = highdicom.seg.segread(tmp_path / "out" / "ms_1.dcm").get_volume(combine_segments=True)
    order = {0: 0, 3: 1, 7: 2, 12: 3}
    expected = np.vectorize(order.get)(three_lesions()).astype(int)
    affine = LPS @ volume.affine
    close(in_world(np.asarray(volume.array), affine), in_world(expected, affine_of_map()))


def test_segments_are_coded_as_lesions_with_name_and_color(tmp_path):
    scene(tmp_path, tables={"ms_1": TABLE})
    exported(tmp_path)
    made = dcmread(tmp_path / "out" / "ms_1.dcm")
    segments = made.SegmentSequence
    assert [segment.SegmentNumber for segment in segments] == [1, 2, 3]
    assert [segment.SegmentLabel for segment in segments] == ["lesion 3", "lesion 7", "black hole 12"]
    for segment in segments:
        category, kind = (
            segment.SegmentedPropertyCategoryCodeSequence[0],
            segment.SegmentedPropertyTypeCodeSequence[0],
        )
        assert (category.CodingSchemeDesignator, category.CodeValue) == ("SCT", "49755003")
        assert (kind.CodingSchemeDesignator, kind.CodeValue, kind.CodeMeaning) == ("SCT", "52988006", "Lesion")
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "nnunetv2_conflunet" and algorithm.AlgorithmVersion
    assert segments[2].TrackingID == "ms_1 black hole 12"
    assert len({segment.TrackingUID for segment in segments}) == 3
    assert segments[0].RecommendedDisplayCIELabValue != segments[1].RecommendedDisplayCIELabValue
    assert made.SegmentationType == "BINARY" and made.Modality == "SEG"


def test_patient_study_and_slices_are_those_of_the_series(tmp_path):
    scene(tmp_path, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    exported(tmp_path)
    made = dcmread(tmp_path / "out" / "ms_1.dcm")
    sources = {image.SOPInstanceUID: image for image in map(dcmread, (tmp_path / "series" / "ms_1").iterdir())}
    source = next(iter(sources.values()))
    assert str(made.PatientName) == "Müller^Jörg" and made.PatientID == "007"
    assert made.StudyInstanceUID == source.StudyInstanceUID
    assert made.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert made.SeriesInstanceUID != source.SeriesInstanceUID and made.SeriesNumber == 1004
    for frame in made.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(
            np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float),
            np.array(sources[uid].ImagePositionPatient, float),
            atol=1e-3,
        )


def test_a_multi_frame_image_is_a_series_too(tmp_path):
    scene(tmp_path, codes="LPS")
    folder = tmp_path / "series" / "ms_1"
    slices = [dcmread(file) for file in sorted(folder.iterdir())]
    enhanced = highdicom.legacy.LegacyConvertedEnhancedMRImage(slices, generate_uid(), 5, generate_uid(), 1)
    for file in folder.iterdir():
        file.unlink()
    enhanced.save_as(folder / "enhanced")
    assert exported(tmp_path)[1] == {}
    expected = in_world(three_lesions(), affine_of_map())
    found = voxels_by_segment(dcmread(tmp_path / "out" / "ms_1.dcm"))
    close(found, {1: expected[3], 2: expected[7], 3: expected[12]})


def test_a_single_slice(tmp_path):
    grid = grid_lps(turned_degrees=20)
    plane = three_lesions()[:, :, 3:4]
    write_prediction(tmp_path / "p", {"ms_1": plane}, affine=affine_of_map(grid))
    write_series(tmp_path / "series" / "ms_1", (1, *SHAPE[1:]), grid)
    assert exported(tmp_path)[1] == {}
    expected = in_world(plane, affine_of_map(grid))
    close(voxels_by_segment(dcmread(tmp_path / "out" / "ms_1.dcm")), {1: expected[3], 2: expected[7]})


def test_a_case_without_lesions_gets_no_file_and_a_note(tmp_path):
    scene(tmp_path, ids=np.zeros(three_lesions().shape, np.uint8))
    done, failed = exported(tmp_path)
    assert failed == {} and done["ms_1"].note == "no lesion, so no file: a DICOM SEG cannot be empty"
    assert list((tmp_path / "out").glob("*")) == []
    # Nor is the file of an earlier export left.
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "ms_1.dcm").write_bytes(b"old")
    exported(tmp_path, overwrite=True)
    assert list((tmp_path / "out").glob("*")) == []


def moved(by_mm=(0.0, 0.0, 0.0), scaled=(1.0, 1.0, 1.0), turned=0.0):
    """The affine of a map whose columns, rows and slices are scaled, and that is turned around z and then moved."""
    a = np.radians(turned)
    around_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = affine_of_map(grid_lps())
    affine[:3, :3] = around_z @ affine[:3, :3] * np.array(scaled)
    affine[:3, 3] += by_mm
    return affine


@pytest.mark.parametrize(
    "affine, message",
    [
        (moved(by_mm=(3, 0, -4)), r"ImagePositionPatient 5 mm away \(x, y, z: -3, .*0, -4\)\."),
        (moved(scaled=(1.1, 1, 1)), r"PixelSpacing between columns 2\.2 mm instead of 2 mm\."),
        (moved(scaled=(1, 1.5, 1)), r"PixelSpacing between rows 1\.5 mm instead of 1 mm\."),
        (moved(scaled=(1, 1, 0.5)), r"slice spacing 1\.5 mm instead of 3 mm\."),
        (moved(turned=2), r"ImageOrientationPatient turned by 2 degrees"),
    ],
)
def test_a_map_on_another_grid_is_refused_with_what_differs(tmp_path, affine, message):
    write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, affine=affine)
    write_series(tmp_path / "series" / "ms_1", SHAPE, grid_lps())
    done, failed = exported(tmp_path)
    assert done == {} and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=rf"does not lie on the grid of the series in .*ms_1: {message}"):
        raise InputError(failed["ms_1"])


def test_a_map_of_another_size_is_refused_with_what_differs(tmp_path):
    scene(tmp_path, ids=three_lesions()[1:, :, :-2])
    failed = exported(tmp_path)[1]["ms_1"]
    assert "slices 6 instead of 8; Columns 9 instead of 10" in failed


def test_rounding_of_headers_is_no_difference(tmp_path):
    scene(tmp_path, affine=np.round(affine_of_map(), 4))
    assert exported(tmp_path)[1] == {}


def test_no_segmentation_is_written_among_the_images_of_a_series(tmp_path):
    scene(tmp_path)
    series = tmp_path / "series"
    with pytest.raises(InputError, match="series/ms_1 is an input folder"):
        export_folder(tmp_path / "p", series / "ms_1", ExportSettings("dicomseg", series=series))


def test_more_lesions_than_segments_are_refused(tmp_path):
    scene(tmp_path)
    lesions = read_lesions(open_instances(tmp_path / "p"), "ms_1")
    many = replace(lesions, names=["lesion"] * 65536)
    with pytest.raises(InputError, match="It has 65536 lesions; a DICOM SEG has at most 65535 segments"):
        DicomSeg({"ms_1": tmp_path / "series" / "ms_1"}).write(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_map_without_position_is_refused(tmp_path):
    scene(tmp_path)
    lesions = replace(read_lesions(open_instances(tmp_path / "p"), "ms_1"), has_position=False)
    with pytest.raises(InputError, match="does not say where the voxels are; use NIfTI or NRRD"):
        DicomSeg({"ms_1": tmp_path / "series" / "ms_1"}).write(lesions, tmp_path / "out")


def test_an_attribute_that_a_segmentation_needs_is_named(tmp_path):
    scene(tmp_path, StudyInstanceUID=None)
    assert "cannot be used (AttributeError" in (failed := exported(tmp_path)[1]["ms_1"])
    assert "StudyInstanceUID" in failed and not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("room", [0, 4096])
def test_a_full_disk_leaves_a_whole_file_or_none(disk, tmp_path, room):
    scene(tmp_path)
    lesions = read_lesions(open_instances(tmp_path / "p"), "ms_1")
    writer = DicomSeg({"ms_1": tmp_path / "series" / "ms_1"})
    assert_whole_or_as_before(disk, lambda: writer.write(lesions, disk.folder), room)
