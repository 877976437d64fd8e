"""The cases of a preprocessed configuration, as nnU-Net stores them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import (
    infer_dataset_class,
    nnUNetDatasetBlosc2,
    nnUNetDatasetNumpy,
)

from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.whole_files import why_not_whole

DatasetClass = type[nnUNetDatasetBlosc2] | type[nnUNetDatasetNumpy]
REMEDY = "Repeat nnUNetv2_preprocess, which may have been interrupted."


@dataclass(frozen=True)
class PreprocessedCases:
    """The folder of a preprocessed configuration.

    Attributes:
        folder: such as ``nnUNet_preprocessed/Dataset001_MS/nnUNetPlans_3d_fullres``.
    """

    folder: Path

    @cached_property
    def dataset_class(self) -> DatasetClass:
        """The class of nnU-Net that reads them.

        Raises:
            InputError: the folder is missing, empty, or holds other files as well.
        """
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} does not exist. Run nnUNetv2_plan_and_preprocess first.")
        try:
            return infer_dataset_class(str(self.folder))
        except (AssertionError, KeyError) as error:
            found = list_some(sorted({file.suffix or file.name for file in self.folder.iterdir()})) or "nothing"
            raise InputError(
                f"{self.folder} holds {found}, where nnU-Net writes .b2nd or .npz files, with .pkl files beside them. "
                f"{REMEDY} Move other files elsewhere."
            ) from error

    @property
    def ending(self) -> str:
        """Of the files with images and of those that nnU-Net reads like a segmentation."""
        return ".b2nd" if self.dataset_class is nnUNetDatasetBlosc2 else ".npz"

    def names(self) -> list[str]:
        """The cases, sorted."""
        return sorted(self.dataset_class.get_identifiers(str(self.folder)))

    def segmentation_file(self, case: str) -> Path:
        """The file with the preprocessed label of a case.

        Raises:
            InputError: it or the file with the properties of the case is missing, or it is not complete.
        """
        files = (self.folder / f"{case}{ending}" for ending in ("_seg.b2nd", ".npz"))
        found = next((file for file in files if file.is_file()), None)
        if found is None or not (self.folder / f"{case}.pkl").is_file():
            raise InputError(
                f"{self.folder} has no {case}{'_seg.b2nd' if found is None else '.pkl'}, which nnU-Net wrote "
                "next to the image. Repeat nnUNetv2_preprocess."
            )
        if fault := why_not_whole(found):
            raise InputError(f"{found} cannot be read: {fault}. {REMEDY}")
        return found

    def load(self, case: str, maps: Path | None = None) -> tuple[Any, np.ndarray, np.ndarray | None, dict]:
        """Read a case.

        Args:
            case: its name.
            maps: the folder of instance maps, or None.

        Returns:
            Image, (C, X, Y, Z), of which Blosc2 reads what is sliced; label, (X, Y, Z); instance map, (X, Y, Z), or
            None; and nnU-Net's properties.

        Raises:
            InputError: a file cannot be read.
        """
        try:
            reader = self.dataset_class(str(self.folder), [case], None if maps is None else str(maps))
            image, labels, instances, properties = reader.load_case(case)
            return image, labels[:][0], None if instances is None else instances[:], properties
        except Exception as error:
            raise InputError(
                f"{self.folder} holds files of {case} that cannot be read ({type(error).__name__}: {error}). {REMEDY}"
            ) from error
