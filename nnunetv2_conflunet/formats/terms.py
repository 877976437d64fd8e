"""The terms of DICOM and SNOMED CT by which segments are coded: coding scheme, code, meaning."""

# DICOM PS3.16, CID 7150 (category) and CID 7159 (type).
CATEGORY = ("SCT", "49755003", "Morphologically Abnormal Structure")
LESION = ("SCT", "52988006", "Lesion")
