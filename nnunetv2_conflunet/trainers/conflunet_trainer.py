"""nnU-Net's trainer with center and offset heads."""

from collections.abc import Sequence
from os.path import join

import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.configuration import default_num_processes
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

import nnunetv2_conflunet.trainers.progress as progress
from nnunetv2_conflunet.inference import ConfLUNetPredictor
from nnunetv2_conflunet.inference.export import exporting_validation
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.networks import HeadChannels, heads_of, set_training_without_deep_supervision, widen_with_heads
from nnunetv2_conflunet.nnunet_plugin import hand_over
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import DEFAULT_RULE
from nnunetv2_conflunet.preprocessing.annotation.kinds import describe_counts
from nnunetv2_conflunet.preprocessing.configurations import split_is_written, split_lock
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.preprocessing.refusals import patch_spacing_mm, refuse_other_unit, refuse_unsupported
from nnunetv2_conflunet.trainers.augmentation import with_instance_targets
from nnunetv2_conflunet.trainers.loss import ConfLUNetLoss
from nnunetv2_conflunet.trainers.mixing import refuse_to_replace, set_epochs
from nnunetv2_conflunet.trainers.pasting.transform import PasteLesions, PastingSettings, prepare_pasting
from nnunetv2_conflunet.trainers.patch_loader import InstancePatchLoader
from nnunetv2_conflunet.trainers.stored_settings import put_settings_into_plans, writing_plans
from nnunetv2_conflunet.trainers.targets import MOST_CENTERS, instantiation_on_grid, used_rows
from nnunetv2_conflunet.trainers.warm_up import BeginsWithLessMomentum, heads_weight
from nnunetv2_conflunet.tuning.final_validation import PiecesOfValidation, forget_pieces
from nnunetv2_conflunet.utilities.errors import InputError

# nnU-Net's commands construct its own predictor; from now on it hands our networks over to our predictor.
hand_over.install(ConfLUNetPredictor, heads_of)


class nnUNetTrainerConfLUNet(progress.LogsLossParts, BeginsWithLessMomentum):
    """Trains nnU-Net's network to separate instances (ConfLUNet, Wynen et al., ISBI 2024).

    A subclass changes settings in one line; the base class adds the setting ``early_momentum``.

    >>> class nnUNetTrainerMine(nnUNetTrainerConfLUNet):
    ...     alpha, beta = 20.0, 0.1

    Attributes:
        alpha: weight of the center loss.
        center_focus: additional weight of a voxel at a center in the center loss, relative to background; 0 is the
            paper's loss.
        beta: weight of the offset loss, per mm.
        warm_up: fraction of the epochs over which alpha and beta rise linearly from 0, once the network has begun to
            learn the mask; 0: both have full weight from the first step.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm; the paper's.
        epochs: number of epochs.
        pasting: how lesions are pasted into training patches; None: they are not.
        learn_merging: whether the final validation learns when touching pieces are one lesion, and stores it.
        instantiation: how prediction makes instances; stored with the model in its plans.json. The requirements on
            centers (height, window, prominence, consistency) are stricter than in the paper, because trained heatmaps
            have several maxima in lesions whose center is uncertain, and touching pieces are merged by a rule that
            holds until the model has learned its own (docs/experiments.md). On coarse grids the threshold is at most
            half of the lowest peak that targets can have there, but at least 0.05.
    """

    alpha: float = 10.0
    center_focus: float = 20.0
    beta: float = 0.3
    warm_up: float = 0.2
    sigma_mm: float = 2.0
    epochs: int = 1000
    pasting: PastingSettings | None = None
    learn_merging: bool = True
    instantiation: InstantiationSettings = InstantiationSettings(
        heatmap_threshold=0.3, window_mm=5.0, min_prominence=0.05, min_consistency=1.25, merge=DEFAULT_RULE
    )
    paste_lesions: Sequence[PasteLesions] = ()
    most_centers: int = MOST_CENTERS
    # Set by nnU-Net's trainer.
    enable_deep_supervision: bool
    folder_with_segs_from_previous_stage: str | None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  (nnU-Net's signature)
    ):
        refuse_to_replace(type(self))
        manager = PlansManager(plans)
        refuse_unsupported(manager, configuration)
        refuse_other_unit(manager, configuration, self.instantiation, self.sigma_mm)
        super().__init__(plans, configuration, fold, dataset_json, device)
        set_epochs(self)
        progress.add_loss_parts(self.logger)

    def initialize(self) -> None:
        """Also add the settings for inference to the plans."""
        super().initialize()
        if note := self._put_settings_into_plans():
            self.print_to_log_file(note)

    def _put_settings_into_plans(self) -> str:
        """See :func:`.put_settings_into_plans`."""
        spacing = patch_spacing_mm(self.configuration_manager)
        training = {name: getattr(self, name) for name in ("alpha", "center_focus", "beta", "warm_up", "sigma_mm")}
        instantiation = instantiation_on_grid(self.instantiation, spacing, self.sigma_mm)
        own = ModelSettings.of_trainer(instantiation, **training)
        plans_file = join(self.output_folder_base, "plans.json")
        return put_settings_into_plans(own, self.plans_manager.plans, plans_file, self.is_ddp)

    # A static method in nnU-Net; a class method can be called the same way and can call the next class.
    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The next class's network, with a heatmap channel and one offset channel per axis added to its output."""
        heads = HeadChannels(num_output_channels, len(configuration_manager.patch_size))
        network = super().build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, heads.n_channels, enable_deep_supervision
        )
        return widen_with_heads(network, heads)

    def _build_loss(self) -> ConfLUNetLoss:
        return ConfLUNetLoss(
            super()._build_loss(), self.alpha, self.beta, self.enable_deep_supervision, self.center_focus,
            spacing_mm=patch_spacing_mm(self.configuration_manager), sigma_mm=self.sigma_mm,
        )  # fmt: skip

    def get_training_transforms(self, *args, **kwargs) -> ComposeTransforms:
        """nnU-Net's augmentation, then the targets of the heads."""
        return self._with_instance_targets(super().get_training_transforms(*args, **kwargs), *self.paste_lesions)

    def get_validation_transforms(self, *args, **kwargs) -> ComposeTransforms:
        """nnU-Net's transforms, then the targets of the heads."""
        return self._with_instance_targets(super().get_validation_transforms(*args, **kwargs))

    def get_dataloaders(self) -> tuple:
        """nnU-Net's loaders, which also know the centers of lesions that a crop cuts."""
        with hand_over.replaced_loader(InstancePatchLoader):
            return super().get_dataloaders()

    def _with_instance_targets(self, stock: ComposeTransforms, *first: PasteLesions) -> ComposeTransforms:
        spacing = patch_spacing_mm(self.configuration_manager)
        ignore_label = self.label_manager.ignore_label
        return with_instance_targets(stock, spacing, self.sigma_mm, ignore_label, first, self.most_centers)

    def on_train_start(self) -> None:
        """First make missing or stale instance maps; one process makes them while the others wait."""
        if not self.was_initialized:
            self.initialize()
        prepared = PreprocessedInstances(self.plans_manager, self.configuration_name, self.dataset_json)
        made = prepared.prepare(default_num_processes)
        lost = sum(prepared.counted("n_lost").values())
        self.print_to_log_file(f"Instance maps: {prepared.folder} ({len(made)} made now, {lost} instances lost)")
        if found := describe_counts(case.slips for case in made):
            self.print_to_log_file(f"Annotation check of these maps (nnUNetv2_conflunet_prepare lists it): {found}")
        if self.fold != "all" and not split_is_written(self.preprocessed_dataset_folder_base):
            # nnU-Net writes its split if it is missing; two folds, ranks or configurations must not do so at once.
            with split_lock(self.preprocessed_dataset_folder_base):
                self.do_split()
        self.folder_with_segs_from_previous_stage = str(prepared.folder)
        if self.pasting is not None:
            cases, _ = self.do_split()
            self.paste_lesions, note = prepare_pasting(prepared, cases, self.pasting, default_num_processes)
            self.print_to_log_file(note)
        if (in_a_case := prepared.most_instances()) is not None:
            self.most_centers = max(in_a_case, 1) + (0 if self.pasting is None else self.pasting.max_number)
        with writing_plans(self.output_folder_base, self.is_ddp):
            # nnU-Net writes the plans, and another fold may have learned when to merge since they were read.
            self._put_settings_into_plans()
            super().on_train_start()
        if self.local_rank == 0 and self.current_epoch == 0:
            forget_pieces(self.output_folder)
        set_training_without_deep_supervision(self.network, not self.enable_deep_supervision)
        self.print_to_log_file(
            f"ConfLUNet: alpha {self.alpha}, center focus {self.center_focus}, beta {self.beta}, "
            f"warm-up {self.warm_up}, sigma {self.sigma_mm} mm, "
            f"instances {ModelSettings.from_plans(self.plans_manager.plans).instantiation.to_dict()}"
        )
        if self.label_manager.has_ignore_label:
            self.print_to_log_file("Lesions next to the ignore label may extend into it; the heads ignore them.")

    def on_train_epoch_start(self) -> None:
        """Also set the factor of the heads' losses in this epoch."""
        super().on_train_epoch_start()
        first_mask = self.epoch_of_first_mask()
        self.loss.heads_weight = heads_weight(self.current_epoch, first_mask, self.num_epochs, self.warm_up)

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step, which also returns the parts of the loss."""
        return {**super().train_step(_without_unused_rows(batch)), **self.loss.logged_parts()}

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's step, which also returns the parts of the loss."""
        # Our outputs and targets are always lists, but the stock step unpacks them only with deep supervision.
        deep_supervision, self.enable_deep_supervision = self.enable_deep_supervision, True
        try:
            result = super().validation_step(_without_unused_rows(batch))
        finally:
            self.enable_deep_supervision = deep_supervision
        return {**result, **self.loss.logged_parts()}

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Load a checkpoint of this trainer.

        Raises:
            InputError: its network has other channels than the plans and this trainer require.
        """
        try:
            super().load_checkpoint(filename_or_checkpoint)
        except InputError as error:
            name = filename_or_checkpoint if isinstance(filename_or_checkpoint, str) else "The checkpoint"
            raise InputError(f"{name} cannot be continued. {error}") from error

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's final validation, with instance maps and lesion tables in ``validation/instances``.

        Then the model learns when touching pieces are one lesion, see :mod:`.tuning.final_validation`.

        Raises:
            InputError: cases could not be exported; the others are complete, and so is nnU-Net's summary.
        """
        pieces = PiecesOfValidation.of(self) if self.learn_merging else None
        # Validation does not need instance maps, which may be missing with --val.
        instances_folder, self.folder_with_segs_from_previous_stage = self.folder_with_segs_from_previous_stage, None
        in_training = set_training_without_deep_supervision(self.network, False)
        cases = self.do_split()[1] if self.local_rank == 0 else []
        outputs = [join(self.output_folder, "validation", case) for case in cases]
        with exporting_validation(outputs, *([] if pieces is None else [pieces.export])):
            try:
                super().perform_actual_validation(save_probabilities)
            finally:
                self.folder_with_segs_from_previous_stage = instances_folder
                set_training_without_deep_supervision(self.network, in_training)
            if pieces is not None and self.local_rank == 0:
                for line in pieces.learn(cases):
                    self.print_to_log_file(f"Merging: {line}")


def _without_unused_rows(batch: dict) -> dict:
    """A batch of the loader, whose table of centers ends after the last row that a patch uses."""
    *others, centers = batch["target"]
    return {**batch, "target": [*others, used_rows(centers)]}
