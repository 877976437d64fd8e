"""DICOM series as a scanner writes them, made of an array and its grid."""

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


def grid_lps(spacing_mm=(3.0, 1.0, 2.0), origin=(-20.0, 10.0, 5.0), turned_degrees=0.0):
    """Index (slice, row, column) -> LPS in mm, of axial slices that are turned around the axes x and z."""
    a = np.radians(turned_degrees)
    around_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    around_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    along_columns_of_images = (around_z @ around_x).T
    x, y, z = along_columns_of_images
    affine = np.eye(4)
    affine[:3] = np.stack([z * spacing_mm[0], y * spacing_mm[1], x * spacing_mm[2], origin], axis=1)
    return affine


def write_series(folder, shape, affine, *, series_uid=None, backwards=False, shuffled=True, **attributes):
    """One MR image for each slice; file names do not follow the order of the slices.

    Args:
        folder: to write to.
        shape: numbers of slices, rows and columns.
        affine: index (slice, row, column) -> LPS in mm.
        series_uid: of the series; default: a new one.
        backwards: whether instance numbers count down along the slices.
        shuffled: whether file names are in another order than the slices.
        attributes: of every image, by their DICOM keywords; None removes one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    down, right = affine[:3, 1] / spacing[1], affine[:3, 2] / spacing[2]
    study, frame = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=["frame"])
    series_uid = series_uid or generate_uid()
    names = np.random.default_rng(0).permutation(shape[0]) if shuffled else np.arange(shape[0])
    for i in range(shape[0]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": MRImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series_uid,
            "FrameOfReferenceUID": frame,
            "PatientName": "Doe^Jane",
            "PatientID": "007",
            "PatientBirthDate": "",
            "PatientSex": "F",
            "StudyDate": "20240102",
            "StudyTime": "030405",
            "StudyID": "1",
            "AccessionNumber": "",
            "ReferringPhysicianName": "",
            "Modality": "MR",
            "Manufacturer": "Scanner",
            "SeriesNumber": 4,
            "SeriesDescription": "FLAIR",
            "InstanceNumber": shape[0] - i if backwards else i + 1,
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "ScanningSequence": "SE",
            "SequenceVariant": "SK",
            "ScanOptions": "",
            "MRAcquisitionType": "3D",
            "EchoTime": 100,
            "EchoTrainLength": 1,
            "RepetitionTime": 5000,
            "PatientPosition": "HFS",
            "PositionReferenceIndicator": "",
            "SliceThickness": float(spacing[0]),
            "Rows": shape[1],
            "Columns": shape[2],
            "PixelSpacing": [float(spacing[1]), float(spacing[2])],
            "ImageOrientationPatient": [round(float(value), 10) for value in (*right, *down)],
            "ImagePositionPatient": [round(float(value), 8) for value in affine[:3] @ [i, 0, 0, 1]],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "PixelData": bytes(2 * shape[1] * shape[2]),
        }
        for keyword, value in (values | attributes).items():
            if value is not None:
                setattr(image, keyword, value)
        image.save_as(folder / f"IM{names[i]:04d}", enforce_file_format=True)
