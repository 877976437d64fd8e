"""The command ``nnUNetv2_conflunet_path``: where ``nnUNet_extTrainer`` must point."""

from pathlib import Path


def nnunet_ext_path() -> Path:
    """The folder that holds one module with the names of the trainers, for nnU-Net's search by class name."""
    return Path(__file__).resolve().parent / "nnunet_ext"


def main() -> None:
    """Print the folder, for ``export nnUNet_extTrainer=$(nnUNetv2_conflunet_path)``."""
    print(nnunet_ext_path())
