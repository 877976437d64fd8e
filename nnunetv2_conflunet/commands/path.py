"""The command ``nnUNetv2_conflunet_path``: where ``nnUNet_extTrainer`` must point."""

from nnunetv2_conflunet.nnunet_plugin.search_path import nnunet_ext_path


def main() -> None:
    """Print the folder, for ``export nnUNet_extTrainer=$(nnUNetv2_conflunet_path)``."""
    print(nnunet_ext_path())
