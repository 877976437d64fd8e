"""nnU-Net's predictor for networks with center and offset heads."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from nnunetv2_conflunet.imageio.case_folder import refuse_macos_files
from nnunetv2_conflunet.inference.case_files import OutputFiles, check_distinct, record_settings
from nnunetv2_conflunet.inference.export import export_or_explain, exporting_instances, raise_failures
from nnunetv2_conflunet.inference.instances import instances_from_output
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.networks import HeadChannels, heads_of, unwrapped
from nnunetv2_conflunet.nnunet_plugin.search_path import ours_in_ext_trainer
from nnunetv2_conflunet.utilities.errors import InputError


@dataclass(frozen=True, eq=False)
class InstancePrediction:
    """The result of :meth:`ConfLUNetPredictor.predict_instances`, in the axis order of the given image.

    Attributes:
        segmentation: (X, Y, Z) nnU-Net's semantic segmentation.
        instances: (X, Y, Z) int32 ids 1..N, 0 is background.
        lesions: one row per instance, see :func:`nnunetv2_conflunet.inference.lesion_table`.

    >>> ids = np.array([[[0, 1, 1]]])
    >>> len(InstancePrediction(ids > 0, ids, pd.DataFrame({"id": [1]})).lesions)
    1
    """

    segmentation: np.ndarray
    instances: np.ndarray
    lesions: pd.DataFrame


class ConfLUNetPredictor(nnUNetPredictor):
    """Predicts what nnU-Net predicts, plus instances.

    All methods of nnU-Net's predictor keep their arguments, return values and files: ``OUT/<case>`` is nnU-Net's
    semantic segmentation. Added are ``OUT/instances/<case>`` and ``OUT/instances/<case>.csv``, with
    ``save_probabilities`` also ``OUT/instances/<case>.npz``, and :meth:`predict_instances`.

    >>> predictor = ConfLUNetPredictor(device=torch.device("cpu"))
    perform_everything_on_device=True is only supported for cuda devices! Setting this to False
    >>> predictor.initialize_from_trained_model_folder("MODEL", use_folds=(0,))  # doctest: +SKIP
    >>> found = predictor.predict_instances(image, {"spacing": [1.0, 1.0, 1.0]})  # doctest: +SKIP
    """

    @property
    def heads(self) -> HeadChannels:
        """The layout of the network's output channels."""
        # A predictor of this class cannot be initialized without heads.
        return cast(HeadChannels, heads_of(self.network))

    def initialize_from_trained_model_folder(self, *args, **kwargs) -> None:
        """As in nnU-Net; our trainers are found whether or not ``nnUNet_extTrainer`` names their folder.

        Raises:
            InputError: the model has no center and offset heads, or a fold's weights do not fit its plans.
        """
        with ours_in_ext_trainer():
            super().initialize_from_trained_model_folder(*args, **kwargs)
        if heads_of(self.network) is None:
            raise InputError(
                f"The model was trained by {self.trainer_name}, which has no center and offset heads. Use nnU-Net's "
                "nnUNetPredictor, and nnUNetv2_conflunet_instantiate on its predictions."
            )

    def manual_initialization(self, *args, **kwargs) -> None:
        """As in nnU-Net."""
        super().manual_initialization(*args, **kwargs)
        if heads_of(self.network) is None:
            raise InputError(f"A {type(unwrapped(self.network)).__name__} without heads cannot predict instances.")

    def predict_instances(self, image: np.ndarray, properties: dict) -> InstancePrediction:
        """Predict one image in memory.

        Args:
            image: (C, X, Y, Z) as returned by a reader of nnU-Net.
            properties: the reader's properties; at least ``spacing``. Not changed.
        """
        adapter = PreprocessAdapterFromNpy(
            [image], [None], [dict(properties)], [None], self.plans_manager, self.dataset_json,
            self.configuration_manager, num_threads_in_multithreaded=1, verbose=self.verbose,
        )  # fmt: skip
        preprocessed = next(adapter)
        output = self.predict_logits_from_preprocessed_data(preprocessed["data"]).cpu().numpy()
        properties = preprocessed["data_properties"]
        segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
            output[: self.heads.n_semantic], self.plans_manager, self.configuration_manager, self.label_manager,
            properties,
        )  # fmt: skip
        made = instances_from_output(
            segmentation, output, properties, self.plans_manager, self.configuration_manager, self.dataset_json
        )
        return InstancePrediction(segmentation, made.result.instances, made.lesions)

    # nnU-Net's methods inspect their own signature, which ``wraps`` preserves.
    @wraps(nnUNetPredictor.predict_from_data_iterator)
    def predict_from_data_iterator(self, *args, **kwargs) -> list:
        """As in nnU-Net; a case with an output file also gets its instance map and lesion table.

        Raises:
            InputError: files of some cases could not be written completely; those of the others were written.
        """
        with self._exporting(export_or_explain):
            results = super().predict_from_data_iterator(*args, **kwargs)
        raise_failures(results)
        return results

    @wraps(nnUNetPredictor.predict_from_files_sequential)
    def predict_from_files_sequential(self, *args, **kwargs) -> list:
        """As in nnU-Net; a case with an output file also gets its instance map and lesion table.

        Raises:
            InputError: likewise.
        """
        outcomes = []
        with self._exporting(lambda *one, **options: outcomes.append(export_or_explain(*one, **options))):
            results = super().predict_from_files_sequential(*args, **kwargs)
        raise_failures(outcomes)
        return results

    @wraps(nnUNetPredictor.predict_single_npy_array)
    def predict_single_npy_array(self, *args, **kwargs) -> np.ndarray | tuple | None:
        """As in nnU-Net; with an output file it also writes the instance map and lesion table."""
        with self._exporting():
            return super().predict_single_npy_array(*args, **kwargs)

    def _exporting(self, *export_case: Callable) -> AbstractContextManager[None]:
        """See :func:`.exporting_instances`; settings that are not possible are refused before the network runs."""
        _ = ModelSettings.from_plans(self.plans_manager.plans).instantiation
        return exporting_instances(*export_case)

    def _manage_input_and_output_lists(
        self, source, outputs, folder_with_segs_from_prev_stage=None, overwrite=True, part_id=0, num_parts=1,
        save_probabilities=False,
    ):  # fmt: skip
        """As in nnU-Net; a case is done if all its files, including the instance map, are complete."""
        inputs, outputs, previous = super()._manage_input_and_output_lists(
            source, outputs, folder_with_segs_from_prev_stage, True, part_id, num_parts, save_probabilities
        )
        refuse_macos_files(Path(file) for files in inputs for file in files)
        if outputs is None:
            return inputs, outputs, previous
        ending, writer = self.dataset_json["file_ending"], self.plans_manager.image_reader_writer_class
        files = [OutputFiles.of(output, ending, writer) for output in outputs]
        check_distinct(files)
        record_settings(files, ModelSettings.from_plans(self.plans_manager.plans).instantiation, not overwrite)
        if overwrite:
            return inputs, outputs, previous
        todo = [i for i, of_case in enumerate(files) if not of_case.are_whole(save_probabilities)]
        print(f"{len(outputs) - len(todo)} of {len(outputs)} cases already have their segmentation and instance map.")
        return [inputs[i] for i in todo], [outputs[i] for i in todo], [previous[i] for i in todo]

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """As in nnU-Net; flipping an axis reverses its offset component, so the sign is flipped back, too."""
        prediction = self.network(x)
        mirror_axes = self.allowed_mirroring_axes if self.use_mirroring else None
        if mirror_axes is None:
            return prediction
        combinations = [c for i in range(len(mirror_axes)) for c in itertools.combinations(mirror_axes, i + 1)]
        for axes in combinations:
            dims = [axis + 2 for axis in axes]
            flipped = torch.flip(self.network(torch.flip(x, dims)), dims)
            for axis in axes:
                flipped[:, self.heads.offset(axis)] *= -1
            prediction += flipped
            # Not held while the network, which takes most of the memory, runs again.
            del flipped
        prediction /= len(combinations) + 1
        return prediction

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: list[tuple], do_on_device: bool = True
    ) -> torch.Tensor:
        """nnU-Net gathers the semantic channels as usual and in its own precision; the heads are gathered in parallel.

        They are summed in float32, since in nnU-Net's float16 every addition of a weighted offset would round again.
        The result is float16, like nnU-Net's: offsets below 32 mm are accurate to 0.008 mm.
        """
        device = self.device if do_on_device else torch.device("cpu")
        n_heads = self.heads.n_channels - self.heads.n_semantic
        sums = [torch.zeros(data.shape[1:], dtype=torch.float32, device=device) for _ in range(n_heads)]
        gaussian = torch.ones((), device=self.device)
        if self.use_gaussian:
            patch_size = tuple(self.configuration_manager.patch_size)
            # The same weights as in nnU-Net's sum.
            gaussian = compute_gaussian(patch_size, sigma_scale=1.0 / 8, value_scaling_factor=10, device=self.device)
        try:
            with self._heads_of_tiles_added_to(sums, slicers, gaussian):
                semantic = super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)
            return torch.cat([semantic, *_averages(sums, slicers, gaussian, semantic.dtype)])
        finally:
            # After an out-of-memory error nnU-Net predicts again while the traceback still holds this frame.
            sums.clear()

    @contextmanager
    def _heads_of_tiles_added_to(
        self, sums: list[torch.Tensor], slicers: list[tuple], gaussian: torch.Tensor
    ) -> Iterator[None]:
        """Within this context, tiles come without heads, which are added to the sums in the order of the slicers."""
        predict, n_semantic, tiles = self._internal_maybe_mirror_and_predict, self.heads.n_semantic, iter(slicers)

        def predict_semantic(x: torch.Tensor) -> torch.Tensor:
            prediction = predict(x)
            tile = next(tiles)[1:]
            # Weighted on the network's device, so that sums on the CPU need only one transfer and one addition.
            heads = prediction[0, n_semantic:].float().mul_(gaussian).to(sums[0].device)
            for total, head in zip(sums, heads, strict=True):
                total[tile] += head
            # A copy, since nnU-Net holds it while the network runs again, and a view would keep the heads alive.
            return prediction[:, :n_semantic].clone()

        # nnU-Net calls it by this name for each tile.
        self._internal_maybe_mirror_and_predict = predict_semantic  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self._internal_maybe_mirror_and_predict


def _averages(
    sums: list[torch.Tensor], slicers: list[tuple], gaussian: torch.Tensor, dtype: torch.dtype
) -> list[torch.Tensor]:
    """The sums over tiles divided by the sum of weights, each (1, X, Y, Z) of the given dtype; empties the list."""
    weights = torch.zeros_like(sums[0])
    gaussian = gaussian.to(weights.device)
    for tile in slicers:
        weights[tile[1:]] += gaussian
    averages = []
    while sums:
        averages.append(sums.pop(0).div_(weights).to(dtype)[None])
    return averages
