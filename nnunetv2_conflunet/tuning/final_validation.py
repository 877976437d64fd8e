"""nnU-Net's final validation teaches a model when touching pieces are one lesion.

The export of a case keeps its pieces, some 10 to 100 kB, in ``validation/pieces``. When a fold is done, a rule is
learned on the pieces of all folds that are there and stored in plans.json, where prediction reads it.
"""

import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.inference.export import export_prediction_with_instances
from nnunetv2_conflunet.inference.model_settings import ModelSettings, plans_lock, read_plans
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.tuning.case_pieces import load_pieces, pieces_of_case, save_pieces
from nnunetv2_conflunet.tuning.description import describe_merging
from nnunetv2_conflunet.tuning.merging import TriedPieces, choose_merging, pieces_to_try
from nnunetv2_conflunet.tuning.scoring import CaseArrays
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import json_text, write_texts

PIECES_FOLDER, RECORD_FILE = "pieces", "instance_merging.json"
METRIC, SEED = "PQ", 0


def forget_pieces(fold_folder: str) -> None:
    """Remove the pieces of an earlier training of the fold, which say nothing about the one that begins."""
    shutil.rmtree(Path(fold_folder) / "validation" / PIECES_FOLDER, ignore_errors=True)


@dataclass(frozen=True)
class PiecesOfValidation:
    """Keeps the pieces of the cases of one fold; nnU-Net hands it to its export processes.

    Attributes:
        plans: of the model.
        configuration: its name.
        dataset_json: of the preprocessed dataset.
        fold_folder: the output folder of the fold.
    """

    plans: PlansManager
    configuration: str
    dataset_json: dict
    fold_folder: Path

    @classmethod
    def of(cls, trainer: nnUNetTrainer) -> "PiecesOfValidation | None":
        """Those of a trainer's fold.

        None where its validation has nothing to teach, since it is of training cases (fold ``all``), has no instance
        maps, which is said in the log, or its instances have no centers.
        """
        folder = Path(trainer.output_folder)
        pieces = cls(trainer.plans_manager, trainer.configuration_name, trainer.dataset_json, folder)
        if trainer.fold == "all" or pieces.chosen.method != "center_offset":
            return None
        # What these cases have taught must not make their own instances.
        ModelSettings.from_plans(trainer.plans_manager.plans).unlearned().put_into(trainer.plans_manager.plans)
        try:
            pieces.references.prepare(default_num_processes)
        except (InputError, OSError) as error:
            trainer.print_to_log_file(f"The model cannot learn when to merge touching pieces. {error}")
            return None
        return pieces

    @cached_property
    def chosen(self) -> InstantiationSettings:
        """How the trainer makes instances."""
        return ModelSettings.from_plans(self.plans.plans).untuned

    @cached_property
    def scoring(self) -> EvaluationSettings:
        """How pieces are judged: with the trainer's size limits, by the maps on the network's grid."""
        return EvaluationSettings(**asdict(self.chosen.limits), unknown=UNKNOWN)

    @cached_property
    def references(self) -> PreprocessedInstances:
        """The instance maps on the network's grid."""
        return PreprocessedInstances(self.plans, self.configuration, self.dataset_json)

    def file(self, case: str) -> Path:
        """Where the pieces of a case are kept."""
        return self.fold_folder / "validation" / PIECES_FOLDER / f"{case}.npz"

    def export(
        self, prediction: Any, properties: dict, configuration: Any, plans: Any, dataset: Any, output: str, *args: Any
    ) -> None:
        """As :func:`.export_prediction_with_instances`; then keep the pieces of the case."""
        case = Path(output).name
        self.file(case).unlink(missing_ok=True)
        export_prediction_with_instances(prediction, properties, configuration, plans, dataset, output, *args)
        try:
            tried = pieces_to_try(self.chosen)
            pieces = pieces_of_case(self.case_arrays(case, np.asarray(prediction)), tried, self.scoring)
            save_pieces(self.file(case), tried, pieces)
        # The validation itself is complete and must not fail for what it may teach.
        except Exception as error:
            print(f"{case} is not used to learn merging: {error}")

    def case_arrays(self, case: str, output: np.ndarray) -> CaseArrays:
        """A case on the network's grid, without the voxels that nobody labeled.

        Args:
            case: its name.
            output: (C + 1 + dim, X, Y, Z) logits and heads.
        """
        labels = self.references.labels
        n_semantic = labels.num_segmentation_heads
        _, reference_labels, instances = self.references.load(case)
        logits = torch.from_numpy(output[:n_semantic])
        segmentation = labels.convert_logits_to_segmentation(logits).numpy()
        foreground = np.isin(segmentation, labels.foreground_labels)
        if labels.has_ignore_label:
            foreground &= reference_labels != labels.ignore_label
        spacing_mm = (1.0, *self.plans.get_configuration(self.configuration).spacing)[-3:]
        heads = {"heatmap": output[n_semantic], "offsets_mm": output[n_semantic + 1 :]}
        return CaseArrays(foreground, instances, spacing_mm, heads)

    def learn(self, cases: list[str]) -> list[str]:
        """Learn a rule on all folds of the model that have pieces, and store it.

        Folds that end at the same time wait for each other, so that the last one learns on all.

        Args:
            cases: of this fold; pieces of others, of an earlier split, are removed.

        Returns:
            Lines that say what was learned.
        """
        try:
            with plans_lock(self.fold_folder.parent):
                return self._learn(cases)
        # As above.
        except Exception as error:
            return [
                f"Nothing was learned ({type(error).__name__}: {error}). Validate again: nnUNetv2_train with --val."
            ]

    def _learn(self, cases: list[str]) -> list[str]:
        for file in self.file("").parent.glob("[!.]*.npz"):
            if file.stem not in cases:
                file.unlink()
        tried, used = pieces_to_try(self.chosen), {}
        left_out = []
        found = self.fold_folder.parent.glob(f"fold_*/validation/{PIECES_FOLDER}/[!.]*.npz")
        # Not those of fold all, which are training cases, or of a copy such as fold_0_before.
        files = [file for file in found if _fold(file).isdecimal()]
        # A case that another split had put into another fold counts once, as it was validated last.
        newest = {file.stem: file for file in sorted(files, key=lambda file: (_written_ns(file), file))}
        for file in sorted(newest.values()):
            try:
                used[file] = load_pieces(file, tried)
            except InputError as error:
                left_out.append(str(error))
        if not used:
            return [*left_out, "No case has pieces to learn from."]
        pieces = TriedPieces.of_cases(tried, used.values())
        learned, merging = choose_merging(pieces, self.chosen, self.scoring, METRIC, SEED)
        folds = sorted({_fold(file) for file in used})
        lines = [f"{len(used)} validation cases of folds {' '.join(folds)}.", *describe_merging(merging, METRIC)]
        record = {"folds": folds, "cases": sorted(file.stem for file in used), "metric": METRIC, "merging": merging}
        return [*lines, *left_out, *self._stored(learned, folds, record)]

    def _stored(self, learned: InstantiationSettings, folds: list[str], record: dict[str, Any]) -> list[str]:
        """Store a rule and its record in the model folder, or say why what is there stays."""
        model = self.fold_folder.parent
        plans = read_plans(model / "plans.json")
        now = ModelSettings.from_plans(plans)
        if now.is_tuned and not now.learned_on:
            return ["The settings that nnUNetv2_conflunet_determine_postprocessing chose stay; run it again."]
        if now.untuned != self.chosen:
            return [f"{model / 'plans.json'} was written by a trainer with other settings, which stay."]
        if missing := sorted({*now.learned_on} - {*folds}):
            return [f"The rule learned on more folds stays; validate fold {' '.join(missing)} again to learn anew."]
        now.learned(learned, folds).put_into(plans)
        write_texts({model / RECORD_FILE: json_text(record), model / "plans.json": json_text(plans)})
        return []


def _fold(file: Path) -> str:
    return file.parents[2].name.removeprefix("fold_")


def _written_ns(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        # Another fold has just removed it, to make it anew.
        return 0
