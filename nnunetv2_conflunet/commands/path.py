"""The command ``nnUNetv2_conflunet_path``: where ``nnUNet_extTrainer`` must point."""

import argparse

from nnunetv2_conflunet.nnunet_plugin.search_path import nnunet_ext_path
from nnunetv2_conflunet.utilities.options import make_parser


def main() -> None:
    """Print the folder, for ``export nnUNet_extTrainer=$(nnUNetv2_conflunet_path)``."""
    _parser().parse_args()
    print(nnunet_ext_path())


def _parser() -> argparse.ArgumentParser:
    return make_parser(
        "nnUNetv2_conflunet_path",
        "Print the folder that nnUNet_extTrainer must name, so that nnU-Net finds the trainers of this package.",
    )
