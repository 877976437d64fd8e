"""Instance segmentation of lesions inside nnU-Net v2 (ConfLUNet, Wynen et al., ISBI 2024)."""

__version__ = "0.1.0"
