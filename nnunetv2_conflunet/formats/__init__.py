"""Instance maps in the formats of other programs: ITK-SNAP, 3D Slicer, BIDS derivatives, DICOM SEG."""
