"""The folder of a trained model: its validation cases, and the settings in its plans."""

from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.evaluation.cohort.pairing import cases_of_validation
from nnunetv2_conflunet.imageio.case_folder import CaseFolder, first_file, read_dataset_json
from nnunetv2_conflunet.imageio.unknown import unknown_id
from nnunetv2_conflunet.inference.model_settings import ModelPlans
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.nnunet_plugin.postprocessing import Postprocessing, read_stock_postprocessing
from nnunetv2_conflunet.tuning.cases import ValidationCase
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.nnunet_folders import RAW, TRAINING_INSTANCES, nnunet_folder, read_plans_of_nnunet


class ModelFolder(ModelPlans):
    """``nnUNet_results/Dataset/Trainer__Plans__Configuration`` with the validation cases of its folds."""

    def plans(self) -> dict[str, Any]:
        """What its plans.json holds now.

        Raises:
            InputError: the file holds no plans.
        """
        return read_plans_of_nnunet(self.plans_file)

    def spacing_mm(self) -> list[float]:
        """Voxel size of the network's grid; a folder as nnU-Net names it ends with the name of the configuration.

        Raises:
            InputError: nnU-Net cannot use a configuration of the plans, or they have none.
        """
        plans = PlansManager(self.plans())
        try:
            spacings = {name: plans.get_configuration(name).spacing for name in plans.available_configurations}
            own_name = self.folder.resolve().name.split("__")[-1]
            # Volumes have a configuration for planes, too, but our trainers refuse it.
            return spacings[own_name] if own_name in spacings else max(spacings.values(), key=len)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"nnU-Net cannot use the configurations of {self.plans_file} ({type(error).__name__}: {error}). Copy "
                "the file from where it is complete."
            ) from error

    def validation_cases(self, folds: list[str], reference: Path | None) -> list[ValidationCase]:
        """The cases of the folds' validation, sorted, each with its heads and its reference.

        Args:
            folds: such as ``["0", "1"]`` or ``["all"]``.
            reference: folder of instance maps, or a dataset folder that holds ``instancesTr``. Default: that of the
                model's dataset in nnUNet_raw.

        Raises:
            InputError: a fold has no validation folder or its validation has not ended; cases have no heads or no
                reference, or are in several folds.
        """
        cases: dict[str, ValidationCase] = {}
        without_heads = []
        references = self._reference_folder(reference)
        for fold in folds:
            validation = self.folder / f"fold_{fold}" / "validation"
            if not validation.is_dir():
                raise InputError(
                    f"{validation} does not exist; train fold {fold} with --npz, or name with -f the folds that are."
                )
            prediction = PredictionFolder.open(validation)
            for case in _validated(prediction):
                if case in cases:
                    raise InputError(f"Case {case} is in {cases[case].prediction.folder} and in {validation}.")
                cases[case] = ValidationCase(case, prediction, references / prediction.segmentation_file(case).name)
                if not prediction.heads_file(case).is_file():
                    without_heads.append(str(prediction.heads_file(case)))
        if without_heads:
            raise InputError(
                f"{len(without_heads)} of {len(cases)} validation cases have no heads: {list_some(without_heads, 3)}. "
                "Validate again: nnUNetv2_train with --val --npz."
            )
        found = CaseFolder.of(references, prediction.file_ending)
        if missing := found.missing(cases):
            raise found.missing_error(
                f"{references} has no instance map of {list_some(missing)}; -ref names the folder of the references."
            )
        return [cases[case] for case in sorted(cases)]

    def unknown(self, reference: Path | None) -> int | None:
        """The id of unknown instances in the references, by the dataset.json beside them or else that of the model.

        Args:
            reference: as for :meth:`validation_cases`.
        """
        references = self._reference_folder(reference).absolute()
        file = first_file([references.parent, references, self.folder], "dataset.json")
        return None if file is None else unknown_id(read_dataset_json(file))

    def stock_postprocessing(self, folds: list[str]) -> Postprocessing:
        """What ``nnUNetv2_find_best_configuration`` determined for these folds in any order; empty if it did not run.

        Raises:
            InputError: the file cannot be read, or holds anything but nnU-Net's own function and its arguments.
        """
        for path in sorted(self.folder.glob("crossval_results_folds_*/postprocessing.pkl")):
            # nnU-Net names the folder by the folds as they were typed.
            if {*path.parent.name.removeprefix("crossval_results_folds_").split("_")} == {*map(str, folds)}:
                return read_stock_postprocessing(path)
        return []

    def _reference_folder(self, given: Path | None) -> Path:
        if given is None:
            raw = nnunet_folder(RAW, "name the folder of the reference instance maps with -ref.")
            given = raw / self.plans()["dataset_name"]
        found = given / TRAINING_INSTANCES if (given / TRAINING_INSTANCES).is_dir() else given
        if not found.is_dir():
            raise InputError(f"{found} is not a folder; name the folder of the reference instance maps with -ref.")
        return found


def _validated(prediction: PredictionFolder) -> list[str]:
    """The cases of a validation that has ended: nnU-Net's summary.json, which comes last, names them."""
    folder, there = prediction.folder, prediction.cases()
    named = cases_of_validation(folder, prediction.file_ending)
    if named != there:
        differing = sorted({*there} ^ {*(named or [])})
        what = "lacks" if named is None else f"differs in {list_some(differing)} from"
        raise InputError(
            f"{folder} {what} the summary.json that nnU-Net writes last, so this validation has not ended, or files "
            "were moved. Validate again: nnUNetv2_train with --val --npz."
        )
    return there
