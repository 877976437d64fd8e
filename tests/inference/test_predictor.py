"""Prediction by networks whose right answer is known: the input's channels hold it."""

import gzip
import itertools
import os
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data as stock_prediction
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from support import balls, dataset_json, files_of, small_plans
from torch import nn

from nnunetv2_conflunet.inference import ConfLUNetPredictor, export
from nnunetv2_conflunet.inference.instantiate_folder import instantiate_folder
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.networks import HeadChannels, heads_of
from nnunetv2_conflunet.networks.heads import ATTRIBUTE
from nnunetv2_conflunet.nnunet_plugin import hand_over
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.trainers.targets import center_offset_targets
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow

hand_over.install(ConfLUNetPredictor, heads_of)
CPU = torch.device("cpu")
SPACING = (1.5, 1.0, 1.2)
CENTERS = [(14, 12, 12), (14, 12, 18), (20, 22, 24)]
SHAPE = (30, 34, 38)


def channels(instances, spacing_mm):
    """(2 + 2 * dim, ...): foreground, heatmap, position and center of each voxel in mm."""
    heatmap, offsets_mm = center_offset_targets(instances, spacing_mm)
    grid = np.meshgrid(*map(np.arange, instances.shape), indexing="ij")
    position = np.stack([g * s for g, s in zip(grid, spacing_mm, strict=True)])
    # Off zero, so that nnU-Net's crop to nonzero keeps every voxel.
    return np.concatenate([(instances > 0)[None] + 1.0, heatmap[None], position, position + offsets_mm]).astype("f4")


class Oracle(nn.Module):
    """The perfect network: it sees in the positions along which axes its input was flipped."""

    def __init__(self, axes=(0, 1, 2)):
        super().__init__()
        self.axes = axes
        setattr(self, ATTRIBUTE, HeadChannels(2, len(axes)))

    def forward(self, x):
        dim = x.ndim - 2
        position, center = x[:, 2 : 2 + dim], x[:, 2 + dim : 2 + 2 * dim]
        offsets = []
        for axis in range(dim):
            sign = torch.sign(position[:, axis].diff(dim=1 + axis).mean())
            offsets.append((center - position)[:, axis] * sign)
        # A noise of the tile's content makes the semantic logits differ from flip to flip.
        foreground = (x[:, 0] - 1.5) * 5 + 0.01 * torch.sin(torch.cumsum(x[:, 0], -1))
        return torch.stack([-foreground, foreground, x[:, 1], *offsets], dim=1)


class SemanticOracle(Oracle):
    """The same network without heads, as stock nnU-Net has it."""

    def __init__(self):
        super().__init__()
        delattr(self, ATTRIBUTE)

    def forward(self, x):
        return super().forward(x)[:, :2]


def predictor(kind, network, plans=None, mirror_axes=(0, 1, 2), device=CPU, **arguments):
    plans = plans or small_plans(spacing_mm=SPACING)
    plans["configurations"] = {k: {**v} for k, v in plans["configurations"].items()}
    (name,) = plans["configurations"]
    configuration = plans["configurations"][name]
    dim = len(configuration["patch_size"])
    configuration["normalization_schemes"] = ["NoNormalization"] * (2 + 2 * dim)
    configuration["use_mask_for_norm"] = [False] * (2 + 2 * dim)
    manager = PlansManager(plans)
    made = kind(device=device, allow_tqdm=False, **arguments)
    made.manual_initialization(
        network, manager, manager.get_configuration(name), [{}], dataset_json(channels=2 + 2 * dim), "any", mirror_axes
    )
    return made


@pytest.fixture
def instances():
    return balls(SHAPE, CENTERS, 4.0, SPACING)


SUBSETS = [c for n in range(4) for c in itertools.combinations(range(3), n)]


@pytest.mark.parametrize("axes", SUBSETS)
def test_offsets_survive_every_combination_of_mirroring(instances, axes, device):
    image = torch.from_numpy(channels(instances, SPACING))
    ours = predictor(ConfLUNetPredictor, Oracle(), mirror_axes=axes or None, device=device)
    output = ours.predict_sliding_window_return_logits(image).float().cpu().numpy()
    heatmap, offsets_mm = center_offset_targets(instances, SPACING)
    inside = instances > 0
    assert np.abs(offsets_mm[:, inside]).max() > 3
    np.testing.assert_allclose(output[3:][:, inside], offsets_mm[:, inside], atol=1e-2)
    np.testing.assert_allclose(output[2], heatmap, atol=1e-3)


@pytest.mark.parametrize("use_gaussian", [True, False])
@pytest.mark.parametrize("use_mirroring", [True, False])
def test_the_semantic_logits_are_nnunets_bit_by_bit(instances, use_mirroring, use_gaussian, device):
    image = torch.from_numpy(channels(instances, SPACING))
    arguments = {"use_mirroring": use_mirroring, "use_gaussian": use_gaussian, "device": device}
    ours = predictor(ConfLUNetPredictor, Oracle(), **arguments).predict_sliding_window_return_logits(image)
    theirs = predictor(nnUNetPredictor, SemanticOracle(), **arguments).predict_sliding_window_return_logits(image)
    assert torch.equal(ours[:2], theirs)


def test_without_memory_for_the_results_on_the_device_they_are_gathered_on_the_cpu(instances, device, capsys):
    image = torch.from_numpy(channels(instances, SPACING))

    class OutOfMemoryOnce(Oracle):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    expected = predictor(ConfLUNetPredictor, Oracle(), device=device).predict_sliding_window_return_logits(image)
    made = predictor(ConfLUNetPredictor, OutOfMemoryOnce(), device=device)
    # nnU-Net's predictor sets it to False for other devices than GPUs.
    made.perform_everything_on_device = True
    found = made.predict_sliding_window_return_logits(image)
    assert "Moving results arrays to CPU" in capsys.readouterr().out
    assert found.device == CPU
    torch.testing.assert_close(found, expected.cpu(), atol=1e-2, rtol=0)


def test_the_stock_predictor_hands_over_call_by_call(instances):
    image = torch.from_numpy(channels(instances, SPACING))
    stock = predictor(nnUNetPredictor, Oracle())
    assert stock.predict_sliding_window_return_logits(image).shape == (6, *SHAPE)
    # Its next model may be one of nnU-Net's.
    managers = stock.plans_manager, stock.configuration_manager
    stock.manual_initialization(SemanticOracle(), *managers, [{}], stock.dataset_json, "any", None)
    assert stock.predict_sliding_window_return_logits(image).shape == (2, *SHAPE)


def test_other_networks_are_left_to_nnunet(instances):
    image = torch.from_numpy(channels(instances, SPACING))
    stock = predictor(nnUNetPredictor, SemanticOracle())
    assert stock.predict_sliding_window_return_logits(image).shape == (2, *SHAPE)
    assert type(stock) is nnUNetPredictor


def test_another_subclass_is_told_what_to_derive_from(instances):
    class Mine(nnUNetPredictor):
        pass

    with pytest.raises(InputError, match="derive it from nnunetv2_conflunet"):
        predictor(Mine, Oracle()).predict_sliding_window_return_logits(torch.zeros(8, *SHAPE))


def test_a_network_without_heads_is_refused_by_our_predictor():
    with pytest.raises(InputError, match="without heads"):
        predictor(ConfLUNetPredictor, SemanticOracle())


def same_partition(a, b):
    """Whether two maps hold the same instances under other ids."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("transpose_forward", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_instances_come_back_in_the_images_axis_order(instances, transpose_forward, folds, device):
    """The plans' axes, crop and spacing differ from the image's; several folds are averaged."""
    network_spacing = [SPACING[axis] for axis in transpose_forward]
    plans = small_plans(spacing_mm=network_spacing, transpose_forward=transpose_forward)
    # The network's axes: the positions and centers of the preprocessed image come in its own order.
    data = channels(instances, SPACING)
    order = [0, 1, *(2 + axis for axis in transpose_forward), *(5 + axis for axis in transpose_forward)]
    data = data[order]
    data[:, :2] = 0
    made = predictor(ConfLUNetPredictor, Oracle(), plans, device=device)
    made.list_of_parameters = [{}] * folds
    found = made.predict_instances(data, {"spacing": SPACING})
    kept = np.where(np.arange(SHAPE[0])[:, None, None] >= 2, instances, 0)
    np.testing.assert_array_equal(found.segmentation > 0, kept > 0)
    assert same_partition(found.instances, kept)
    assert len(found.lesions) == 3
    # The first lesion's row is where its center of mass is, k first in the array.
    row = found.lesions.set_index("id").loc[found.instances[CENTERS[2]]]
    mass = np.argwhere(kept == 3).mean(0)
    np.testing.assert_allclose([row.centroid_voxel_k, row.centroid_voxel_j, row.centroid_voxel_i], mass, atol=1e-9)
    assert row.mean_probability > 0.95 and row.center_score > 0.8


def test_other_resolution_of_the_network(instances):
    """The network works at twice the voxel size along two axes; the image gets its instances at its own."""
    plans = small_plans(spacing_mm=(1.5, 2.0, 2.4))
    found = predictor(ConfLUNetPredictor, Oracle(), plans).predict_instances(
        channels(instances, SPACING), {"spacing": SPACING}
    )
    foreground = found.segmentation > 0
    assert np.count_nonzero(foreground & (instances > 0)) > 0.8 * np.count_nonzero(instances)
    np.testing.assert_array_equal(found.instances > 0, foreground)
    both = foreground & (instances > 0)
    pairs, counts = np.unique(np.stack([found.instances[both], instances[both]]), axis=1, return_counts=True)
    assert found.instances.max() == 3
    best = sum(counts[pairs[1] == i].max() for i in (1, 2, 3))
    assert best > 0.95 * both.sum()


def test_two_dimensional_images(device):
    instances = balls((40, 44), [(15, 15), (15, 22), (28, 30)], 4.2, (1.0, 1.0))
    plans = small_plans(dim=2, patch_size=(24, 24))
    made = predictor(ConfLUNetPredictor, Oracle(axes=(0, 1)), plans, mirror_axes=(0, 1), device=device)
    found = made.predict_instances(channels(instances, (1.0, 1.0))[:, None], {"spacing": (999.0, 1.0, 1.0)})
    assert found.instances.shape == (1, 40, 44)
    assert same_partition(found.instances[0], instances)


@pytest.fixture
def files(tmp_path, instances):
    """The oracle's channels as files of an oblique 3 x 1 x 1 mm image whose first axis runs to the left."""
    angle = np.deg2rad(25)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    # File order is (x, y, z): the array's last axis first.
    affine[:3, :3] = tilt @ np.diag([-1.0, 1.0, 1.0]) @ np.diag([1.0, 1.0, 3.0])
    affine[:3, 3] = (40, -25, 13)
    lesions = balls((20, 34, 38), [(8, 12, 12), (8, 12, 19), (12, 22, 24)], 4.0, (3.0, 1.0, 1.0))
    for i, channel in enumerate(channels(lesions, (3.0, 1.0, 1.0))):
        nibabel.save(nibabel.Nifti1Image(channel.transpose(), affine), tmp_path / f"oblique_{i:04d}.nii.gz")
    (tmp_path / "out").mkdir()
    return tmp_path, lesions, affine


def oblique_predictor(reader, kind=ConfLUNetPredictor, network=None):
    plans = small_plans(spacing_mm=(3.0, 1.0, 1.0), patch_size=(12, 16, 16), reader=reader)
    return predictor(kind, network or Oracle(), plans)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_instances_of_an_oblique_image_lie_on_it_in_the_world(files, reader):
    folder, lesions, affine = files
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    made = oblique_predictor(reader)
    made.predict_from_files_sequential(source, [str(folder / "out" / "oblique")], save_probabilities=True)

    written = nibabel.load(folder / "out" / "instances" / "oblique.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    ids = np.asarray(written.dataobj)
    assert ids.dtype == np.uint16 and same_partition(ids, lesions.transpose())
    # Physical points: the center of mass of each lesion in the world, from the source's own affine.
    table = pd.read_csv(folder / "out" / "instances" / "oblique.csv")
    for i in (1, 2, 3):
        voxels = np.argwhere(lesions.transpose() == i)
        world = nibabel.affines.apply_affine(affine, voxels.mean(0))
        row = table.set_index("id").loc[ids[tuple(voxels[0])]]
        np.testing.assert_allclose(row[[f"centroid_world_{a}_mm" for a in "xyz"]].astype(float), world, atol=1e-3)
        np.testing.assert_allclose(row[[f"centroid_voxel_{a}" for a in "ijk"]].astype(float), voxels.mean(0), atol=1e-4)
        assert row.world_convention == "RAS"
        assert row.volume_mm3 == pytest.approx(3 * len(voxels), rel=1e-5)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_in_memory_and_in_files_the_lesion_table_is_the_same(files, reader):
    folder, _, _ = files
    source = [str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]
    made = oblique_predictor(reader)
    image, properties = made.plans_manager.image_reader_writer_class().read_images(source)
    found = made.predict_instances(image, properties)
    made.predict_from_files_sequential([source], [str(folder / "out" / "a")])
    written = pd.read_csv(folder / "out" / "instances" / "a.csv")
    pd.testing.assert_frame_equal(found.lesions, written, check_dtype=False, rtol=1e-5)


def test_a_single_slice_in_a_dataset_of_volumes():
    """One thick slice that the network sees as several thin ones."""
    lesions = balls((1, 34, 38), [(0, 12, 12), (0, 12, 18), (0, 24, 26)], 4.0)
    plans = small_plans(spacing_mm=(1.0, 1.0, 1.0), patch_size=(4, 16, 16))
    data = channels(lesions, (5.0, 1.0, 1.0))
    made = predictor(ConfLUNetPredictor, FlatOracle(), plans)
    found = made.predict_instances(data, {"spacing": (5.0, 1.0, 1.0)})
    assert same_partition(found.instances, lesions)


class FlatOracle(Oracle):
    """Between equal slices positions do not differ, so that no flip can be seen across them."""

    def forward(self, x):
        output = super().forward(x)
        output[:, 3] = 0
        return output


def test_the_semantic_files_are_nnunets_byte_by_byte(files):
    folder, _, _ = files
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    oblique_predictor("SimpleITKIO").predict_from_files_sequential(source, [str(folder / "out" / "a")], True)
    stock = oblique_predictor("SimpleITKIO", nnUNetPredictor, SemanticOracle())
    stock.predict_from_files_sequential(source, [str(folder / "out" / "b")], True)
    assert (folder / "out" / "a.nii.gz").read_bytes() == (folder / "out" / "b.nii.gz").read_bytes()
    ours, theirs = np.load(folder / "out" / "a.npz"), np.load(folder / "out" / "b.npz")
    assert list(ours) == list(theirs)
    np.testing.assert_array_equal(ours["probabilities"], theirs["probabilities"])
    assert not (folder / "out" / "instances" / "b.nii.gz").exists()


def test_saved_heads_are_in_the_images_axes(files):
    folder, lesions, _ = files
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    oblique_predictor("SimpleITKIO").predict_from_files_sequential(source, [str(folder / "out" / "a")], True)
    heads = np.load(folder / "out" / "instances" / "a.npz")
    heatmap, offsets_mm = center_offset_targets(lesions, (3.0, 1.0, 1.0))
    assert heads["crop"].tolist() == [[0, n] for n in lesions.shape]
    np.testing.assert_allclose(heads["heatmap"], heatmap, atol=2e-3)
    np.testing.assert_allclose(heads["offsets_mm"][:, lesions > 0], offsets_mm[:, lesions > 0], atol=1e-2)


def test_a_case_is_done_only_with_its_instance_map(files, capsys):
    folder, _, _ = files
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    output = [str(folder / "out" / "a")]
    made = oblique_predictor("SimpleITKIO")

    def left(**arguments):
        return len(made._manage_input_and_output_lists(source, output, overwrite=False, **arguments)[0])

    assert left() == 1
    made.predict_from_files_sequential(source, output)
    assert left() == 0
    assert left(save_probabilities=True) == 1
    (folder / "out" / "instances" / "a.nii.gz").unlink()
    assert left() == 1
    assert len(made._manage_input_and_output_lists(source, output, overwrite=True)[0]) == 1


def test_a_prediction_is_not_continued_with_other_settings(files):
    folder, _, _ = files
    source = [channels_of(folder)] * 2
    output = [str(folder / "out" / name) for name in "ab"]
    oblique_predictor("SimpleITKIO").predict_from_files_sequential(source[:1], output[:1])
    before = files_of(folder / "out" / "instances")
    made = oblique_predictor("SimpleITKIO")
    settings = ModelSettings.from_plans(made.plans_manager.plans).instantiation
    ModelSettings({}).tuned_to(replace(settings, heatmap_threshold=0.7)).put_into(made.plans_manager.plans)
    with pytest.raises(InputError, match="holds instances made with another heatmap_threshold than the model has now"):
        made.predict_from_files_sequential(source, output, overwrite=False)
    assert files_of(folder / "out" / "instances") == before
    made.predict_from_files_sequential(source[:1], output[:1], overwrite=True)
    made.predict_from_files_sequential(source, output, overwrite=False)
    assert (folder / "out" / "instances" / "b.nii.gz").is_file()


def test_limits_that_no_instance_can_reach_are_said(files, capsys):
    folder, _, _ = files
    made = oblique_predictor("SimpleITKIO")
    ModelSettings({}).tuned_to(InstantiationSettings(min_extent_mm=500.0)).put_into(made.plans_manager.plans)
    made.predict_from_files_sequential([channels_of(folder)], [str(folder / "out" / "a")])
    said = capsys.readouterr().out
    assert "Warning: a has no instances. The image is " in said and "the size filter would remove every" in said
    assert (folder / "out" / "a.nii.gz").is_file()


def test_one_case_without_instances_does_not_keep_the_others_from_theirs(files, monkeypatch):
    folder, _, _ = files
    made_of = export.instances_from_output

    def fail_for_the_second(*args):
        calls.append(args)
        if len(calls) == 2:
            raise InputError("the heatmap holds NaN")
        return made_of(*args)

    calls = []
    monkeypatch.setattr(export, "instances_from_output", fail_for_the_second)
    output = [str(folder / "out" / name) for name in "abc"]
    with pytest.raises(InputError, match="1 of 3 cases failed: Case b has no instances: the heatmap holds NaN"):
        oblique_predictor("SimpleITKIO").predict_from_files_sequential([channels_of(folder)] * 3, output)
    written = {file.name for file in (folder / "out" / "instances").glob("*.nii.gz")}
    assert written == {"a.nii.gz", "c.nii.gz"}


def test_old_maps_and_heads_never_stand_beside_a_new_segmentation(files, monkeypatch):
    folder, _, _ = files
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    made = oblique_predictor("SimpleITKIO")
    made.predict_from_files_sequential(source, [str(folder / "out" / "a")], save_probabilities=True)
    assert (folder / "out" / "instances" / "a.npz").exists()

    def fail(*args, **kwargs):
        raise RuntimeError("power cut")

    monkeypatch.setattr("nnunetv2_conflunet.inference.export.instances_from_output", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        made.predict_from_files_sequential(source, [str(folder / "out" / "a")])
    assert (folder / "out" / "a.nii.gz").exists()
    assert not any((folder / "out" / "instances" / f"a{ending}").exists() for ending in (".nii.gz", ".npz"))


def test_nnunets_exports_are_its_own_again_after_ours(files):
    folder, _, _ = files
    before = stock_prediction.export_prediction_from_logits
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    oblique_predictor("SimpleITKIO").predict_from_files_sequential(source, [str(folder / "out" / "a")])
    assert stock_prediction.export_prediction_from_logits is before


def test_arrays_are_returned_as_nnunet_returns_them(instances, device):
    made = predictor(ConfLUNetPredictor, Oracle(), device=device)
    stock = predictor(nnUNetPredictor, SemanticOracle(), device=device)
    data = channels(instances, SPACING)
    ours = made.predict_single_npy_array(data, {"spacing": SPACING}, None, None, True)
    theirs = stock.predict_single_npy_array(data, {"spacing": SPACING}, None, None, True)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_empty_prediction_gives_an_empty_map_and_table(files):
    folder, lesions, affine = files
    empty = channels(np.zeros_like(lesions), (3.0, 1.0, 1.0))
    for i, channel in enumerate(empty):
        nibabel.save(nibabel.Nifti1Image(channel.transpose(), affine), folder / f"empty_{i:04d}.nii.gz")
    source = [[str(folder / f"empty_{i:04d}.nii.gz") for i in range(8)]]
    oblique_predictor("SimpleITKIO").predict_from_files_sequential(source, [str(folder / "out" / "empty")])
    assert not np.asarray(nibabel.load(folder / "out" / "instances" / "empty.nii.gz").dataobj).any()
    assert len(pd.read_csv(folder / "out" / "instances" / "empty.csv")) == 0


def test_an_image_with_nan_is_named(files):
    folder, _, _ = files
    path = folder / "oblique_0001.nii.gz"
    image = nibabel.load(path)
    content = np.asarray(image.dataobj).copy()
    content[20, 17, 10] = np.nan
    nibabel.save(nibabel.Nifti1Image(content, image.affine), path)
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    message = r"Case oblique has no instances: heatmap holds .* NaN .*; either its image holds some, too"
    with pytest.raises(InputError, match=message):
        oblique_predictor("NibabelIO").predict_from_files_sequential(source, [str(folder / "out" / "oblique")])
    assert [file.name for file in (folder / "out").glob("instances/*")] == ["prediction.json"]


@pytest.mark.parametrize("method", ["predict_from_files", "predict_from_files_sequential"])
def test_settings_that_are_not_possible_are_named_before_the_network_runs(files, monkeypatch, method):
    folder, _, _ = files
    made = oblique_predictor("SimpleITKIO")
    made.plans_manager.plans["conflunet"] = {"instantiation": {"window_mm": float("nan")}}
    monkeypatch.setattr(Oracle, "forward", pytest.fail)
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    with pytest.raises(InputError, match=r"^plans\.json, 'conflunet': window_mm is nan; it must be a positive number"):
        getattr(made, method)(source, [str(folder / "out" / "oblique")])
    assert not list((folder / "out").glob("*.nii.gz"))


def test_files_that_macos_wrote_beside_images_are_named(files):
    folder, _, _ = files
    (folder / "._oblique_0000.nii.gz").write_bytes(bytes.fromhex("00051607"))
    made = oblique_predictor("SimpleITKIO")
    with pytest.raises(InputError, match=r"metadata files of macOS \(\._oblique_0000\.nii\.gz\), which nnU-Net takes"):
        made._manage_input_and_output_lists(str(folder), str(folder / "out"))


def test_what_the_size_filter_removed_is_said_of_each_case(files, capsys):
    folder, lesions, _ = files
    source = [[str(folder / f"oblique_{i:04d}.nii.gz") for i in range(8)]]
    smallest_mm3 = 3 * np.bincount(lesions.ravel())[1:].min()
    plans = small_plans(spacing_mm=(3.0, 1.0, 1.0), patch_size=(12, 16, 16))
    plans["conflunet"] = {"instantiation": {"min_volume_mm3": smallest_mm3 + 1.0}}
    predictor(ConfLUNetPredictor, Oracle(), plans).predict_from_files_sequential(source, [str(folder / "out" / "a")])
    left = np.count_nonzero(3 * np.bincount(lesions.ravel())[1:] > smallest_mm3)
    limits = f"{smallest_mm3 + 1.0:g} mm3 and 3 mm"
    assert f"a: {left} instances; the size filter ({limits}) removed {3 - left}\n" in capsys.readouterr().out


def channels_of(folder, case="oblique"):
    return [str(folder / f"{case}_{i:04d}.nii.gz") for i in range(8)]


@pytest.mark.parametrize("name", ["t.nii.gz", "s.nii", "s.NII", "a.b"])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"])
def test_output_names_are_nnunets_whatever_its_writer_makes_of_them(files, reader, name):
    folder, lesions, _ = files
    source = [channels_of(folder), channels_of(folder)]
    (folder / "stock").mkdir()
    oblique_predictor(reader, nnUNetPredictor, SemanticOracle()).predict_from_files_sequential(
        source[:1], [str(folder / "stock" / name)], True
    )
    made = oblique_predictor(reader)
    outputs = [str(folder / "out" / output) for output in (name, "other")]
    made.predict_from_files_sequential(source, outputs, True)

    theirs = {file.name for file in (folder / "stock").iterdir()}
    of_other = {f"other{ending}" for ending in (".nii.gz", ".npz", ".pkl")}
    assert {file.name for file in (folder / "out").iterdir()} == {*theirs, *of_other, "instances"}
    (segmentation,) = (name for name in theirs if name.lower().endswith(".nii.gz"))
    assert (folder / "out" / segmentation).read_bytes() == (folder / "stock" / segmentation).read_bytes()
    # The map has the name of the segmentation, and table and heads that name without its ending.
    case = segmentation[: -len(".nii.gz")]
    expected = {segmentation, f"{case}.csv", f"{case}.npz", "other.nii.gz", "other.csv", "other.npz"}
    expected.add("prediction.json")
    assert {file.name for file in (folder / "out" / "instances").iterdir()} == expected
    ids = np.asarray(nibabel.Nifti1Image.from_bytes(_unzipped(folder / "out" / "instances" / segmentation)).dataobj)
    assert same_partition(ids, lesions.transpose())
    assert made._manage_input_and_output_lists(source, outputs, overwrite=False, save_probabilities=True)[0] == []
    (folder / "out" / "instances" / f"{case}.npz").unlink()
    left = made._manage_input_and_output_lists(source, outputs, overwrite=False, save_probabilities=True)[1]
    assert left == outputs[:1]


def _unzipped(path):
    return gzip.decompress(path.read_bytes())


def test_instances_are_made_again_of_a_case_with_such_a_name(files):
    folder, lesions, _ = files
    for i in range(8):
        (folder / f"oblique_{i:04d}.nii.gz").rename(folder / f"s.nii_{i:04d}.nii.gz")
    oblique_predictor("SimpleITKIO").predict_from_files_sequential(str(folder), str(folder / "out"), True)
    assert (folder / "out" / "instances" / "s.nii.gz").is_file()
    reports, failures = instantiate_folder(folder / "out", folder / "again", InstantiationSettings(), num_processes=1)
    assert (list(reports), failures) == (["s"], {})
    assert same_partition(np.asarray(nibabel.load(folder / "again" / "s.nii.gz").dataobj), lesions.transpose())


def test_cases_of_one_file_are_refused_before_any_work(files):
    folder, _, _ = files
    source = [channels_of(folder), channels_of(folder)]
    outputs = [str(folder / "out" / name) for name in ("s", "s.nii")]
    with pytest.raises(InputError, match=r"Two cases would be written to .*out/s\.nii\.gz"):
        oblique_predictor("SimpleITKIO").predict_from_files_sequential(source, outputs)
    assert not list((folder / "out").glob("*.nii.gz"))
    oblique_predictor("NibabelIO").predict_from_files_sequential(source, outputs)
    assert len(list((folder / "out" / "instances").glob("*.nii.gz"))) == 2


@pytest.fixture
def filling(monkeypatch, disk):
    """The function (name) after which export goes on with 100 bytes of room, and the disk."""
    with ExitStack() as stack:

        def fill_at(name, before=False):
            function = getattr(export, name)

            def wrapped(*args):
                result = None if before else function(*args)
                stack.enter_context(disk.room(100))
                return function(*args) if before else result

            monkeypatch.setattr(export, name, wrapped)

        yield fill_at, disk.folder, stack.close


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_of_a_truncated_segmentation_no_instances_are_made(files, filling, monkeypatch, reader):
    folder, _, _ = files
    fill_at, out, empty = filling
    source, made = [channels_of(folder)], oblique_predictor(reader)
    fill_at("export_prediction_from_logits", before=True)
    with pytest.raises(InputError, match=r"nnU-Net could not write .*a\.nii\.gz completely.*Is the disk full\?"):
        made.predict_from_files_sequential(source, [str(out / "a")])
    empty()
    assert not [name for name in files_of(out) if not name.endswith(".json")]
    monkeypatch.undo()
    made.predict_from_files_sequential(source, [str(out / "a")], overwrite=False)
    assert same_partition(np.asarray(nibabel.load(out / "instances" / "a.nii.gz").dataobj), files[1].transpose())


@pytest.mark.parametrize("save_probabilities", [False, True])
def test_on_a_full_disk_a_case_is_not_done(files, filling, monkeypatch, capsys, save_probabilities):
    # With capsys what is printed goes to memory, and not to a file that may not grow either.
    folder, _, _ = files
    fill_at, out, empty = filling
    source, output, made = [channels_of(folder)], [str(out / "a")], oblique_predictor("SimpleITKIO")
    fill_at("instances_from_output")
    first = "npz" if save_probabilities else r"nii\.gz"
    with pytest.raises(InputError, match=rf"instances/a\.{first} cannot be written completely"):
        made.predict_from_files_sequential(source, output, save_probabilities)
    empty()
    assert [file.name for file in (out / "instances").iterdir()] == ["prediction.json"]
    assert made._manage_input_and_output_lists(source, output, overwrite=False)[0] == source
    monkeypatch.undo()
    made.predict_from_files_sequential(source, output, save_probabilities, overwrite=False)
    assert made._manage_input_and_output_lists(source, output, None, False, 0, 1, save_probabilities)[0] == []


@pytest.mark.parametrize("name", ["a.nii.gz", "a.npz", "instances/a.nii.gz", "instances/a.csv", "instances/a.npz"])
def test_a_case_of_which_an_earlier_version_left_a_half_file_is_predicted_again(files, name):
    folder, _, _ = files
    source, output, made = [channels_of(folder)], [str(folder / "out" / "a")], oblique_predictor("SimpleITKIO")
    made.predict_from_files_sequential(source, output, save_probabilities=True)
    whole = (folder / "out" / name).read_bytes()
    for n in (0, len(whole) // 2, len(whole) - 1):
        (folder / "out" / name).write_bytes(whole[:n])
        assert made._manage_input_and_output_lists(source, output, None, False, 0, 1, True)[0] == source
    (folder / "out" / name).write_bytes(whole)
    assert made._manage_input_and_output_lists(source, output, None, False, 0, 1, True)[0] == []


@contextmanager
def printing_nothing():
    """Where pytest gathers what is printed, in workers too, is a file that may not grow under a limit."""
    kept = os.dup(1)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_a_case_that_a_worker_cannot_write_fails_the_command_and_no_other_case(files):
    """In nnUNetv2_predict no one catches the error, so its status is 1."""
    resource = pytest.importorskip("resource")
    folder, lesions, affine = files
    for i, channel in enumerate(channels(np.zeros_like(lesions), (3.0, 1.0, 1.0))):
        nibabel.save(nibabel.Nifti1Image(channel.transpose(), affine), folder / f"empty_{i:04d}.nii.gz")
    cases, out = ["oblique", "empty", "again"], folder / "out"
    sources = dict(zip(cases, (channels_of(folder), channels_of(folder, "empty"), channels_of(folder)), strict=True))
    made = oblique_predictor("SimpleITKIO")
    (folder / "sizes").mkdir()
    made.predict_from_files_sequential(list(sources.values()), [str(folder / "sizes" / case) for case in cases])
    # All files of the empty case have room, the lesion tables of the others do not.
    room = max(file.stat().st_size for file in (folder / "sizes").rglob("empty*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def iterator():
        # By now the worker has started, under the limit, which is for it alone.
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for case, source in sources.items():
            data, _, properties = made.configuration_manager.preprocessor_class(verbose=False).run_case(
                source, None, made.plans_manager, made.configuration_manager, made.dataset_json
            )
            yield {"data": torch.from_numpy(data), "ofile": str(out / case), "data_properties": properties}

    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with (
            printing_nothing(),
            pytest.raises(InputError, match=r"2 of 3 cases failed: .*oblique\.csv cannot .* \| .*again\.csv cannot"),
        ):
            made.predict_from_data_iterator(iterator(), num_processes_segmentation_export=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(file.name for file in (out / "instances").iterdir()) == ["empty.csv", "empty.nii.gz"]
