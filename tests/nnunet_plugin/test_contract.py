"""The contract with nnU-Net: all that the package relies on is still so in the nnU-Net that is installed.

Runs by itself in seconds, against a newer nnU-Net too: nothing of the package is imported but the list.
"""

import ast
import inspect
import re
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch

from nnunetv2_conflunet.nnunet_plugin import holds
from nnunetv2_conflunet.nnunet_plugin.holds import HOLDS, PREDICTOR, TRAINER, TRANSFORMS

PACKAGE = Path(holds.__file__).parents[1]
STOCK = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures", "acvl_utils")


def broken(hold):
    """What is not as a hold assumes, in a sentence; None when all is."""
    reason = reason_of(hold)
    if reason is None:
        return None
    return f"The hold '{hold.name}' broke: {hold.at} {reason}. It carries: {hold.carries} ({hold.used_by})."


def reason_of(hold):
    try:
        found = resolve_name(hold.at)
    except (ImportError, AttributeError) as error:
        return f"is not there ({error})"
    for name in (*hold.attributes.split(), *hold.methods):
        if not hasattr(found, name):
            return f"has no {name}"
    if hold.parameters is not None and (taken := other_parameters(found, hold.parameters)):
        return f"takes ({taken}) and not ({hold.parameters})"
    for name, parameters in hold.methods.items():
        if taken := other_parameters(getattr(found, name), parameters):
            return f"has {name}({taken}) and not {name}({parameters})"
    text = "".join(inspect.getsource(found).split()) if hold.source else ""
    for piece in hold.source:
        if "".join(piece.split()) not in text:
            return f"has no `{piece}` in its source"
    if hold.behavior:
        try:
            holds_true = BEHAVIORS[hold.name](found)
        except Exception as error:
            return f"fails ({type(error).__name__}: {error}) where it is assumed that {hold.behavior}"
        if not holds_true:
            return f"is not as assumed: {hold.behavior}"
    return None


def other_parameters(function, expected):
    """The parameters of a function where they are not the expected ones."""
    parameters = inspect.signature(function).parameters.values()
    names = [str(p).partition(":")[0] if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) else p.name for p in parameters]
    wanted = expected.removesuffix("...").split()
    same = names[: len(wanted)] == wanted if expected.endswith("...") else names == wanted
    return None if same else " ".join(names)


def environment_is_read_late(variable):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_extTrainer", "somewhere")
        before = variable.is_set(), variable.get()
        patch.delenv("nnUNet_extTrainer")
        return before == (True, "somewhere") and not variable.is_set()


def decoder_gives_scales(kind):
    network = kind(1, 3, (2, 3, 4), torch.nn.Conv2d, 3, (1, 2, 2), 1, 5, 1, conv_bias=True, deep_supervision=True)
    network.apply(network.initialize)
    scales = network(torch.zeros(1, 1, 8, 8))
    network.decoder.deep_supervision = False
    finest = network.decoder.seg_layers[-1]
    return (
        isinstance(scales, list | tuple)
        and [tuple(scale.shape) for scale in scales] == [(1, 5, 8, 8), (1, 5, 4, 4)]
        and (finest.in_channels, finest.out_channels) == (2, 5)
        and torch.equal(network(torch.zeros(1, 1, 8, 8)), scales[0])
    )


def compiled_knows_its_network(_):
    network = torch.nn.Linear(1, 1)
    return torch.compile(network)._orig_mod is network


def grids_cover_the_same_extent(resample):
    """Linear resampling of positions gives the position of each new voxel's middle."""
    positions = np.arange(16.0)[None, :, None, None] + np.zeros((1, 16, 4, 4))
    found = resample(positions, (10, 4, 4), (1.0, 1.0, 1.0), (1.6, 1.0, 1.0), is_seg=False, order=1)
    return np.allclose(found[0, :, 0, 0], (np.arange(10) + 0.5) * 1.6 - 0.5, atol=1e-3)


def blocks_begin_with_the_channel(parameters):
    blocks, chunks = parameters((1, 40, 50, 60), (16, 16, 16), 2)
    return len(blocks) == len(chunks) == 4 and blocks[0] == chunks[0] == 1


def only_two_transforms_move_voxels(module):
    still = tuple(
        resolve_name(f"{TRANSFORMS}.{name}")
        for name in (
            "base.basic_transform:ImageOnlyTransform",
            "base.basic_transform:SegOnlyTransform",
            "utils.nnunet_masking:MaskImageTransform",
            "utils.pseudo2d:Convert3DTo2DTransform",
            "utils.pseudo2d:Convert2DTo3DTransform",
        )
    )
    scales = ((1, 1, 1), (0.5, 0.5, 0.5))
    trainer = module.nnUNetTrainer
    training = trainer.get_training_transforms((8, 8, 8), 0.1, scales, (0, 1, 2), True, use_mask_for_norm=[True])
    validation = trainer.get_validation_transforms(scales)
    inner = [getattr(transform, "transform", transform) for transform in (*training.transforms, *validation.transforms)]
    moving = [type(transform).__name__ for transform in inner if not isinstance(transform, still)]
    last = {type(of.transforms[-1]).__name__ for of in (training, validation)}
    return moving == ["SpatialTransform", "MirrorTransform"] and last == {"DownsampleSegForDSTransform"}


def affine_leads_to_the_crop(kind):
    """The voxel that the patch's corner shows is where the affine matrix leads, counted from the middles."""
    transform = kind((9, 9), 0, False, p_rotation=1, rotation=(0.5, 0.5), mode_seg="nearest", border_mode_seg="zeros")
    crop = torch.arange(1, 1 + 21 * 21, dtype=torch.int16).view(1, 21, 21)
    params = transform.get_parameters(image=crop.float())
    patch = transform.apply({"segmentation": crop}, **params)["segmentation"]
    corner = np.array([0, 0]) - (np.array(transform.patch_size) - 1) / 2
    source = params["affine"] @ corner + np.array(params["center_location_in_pixels"]) - 0.5
    row, column = np.rint(source).astype(int)
    undrawn = kind((9, 9), 0, False).get_parameters(image=crop.float())
    return (
        patch[0, 0, 0] == crop[0, row, column]
        and params["elastic_offsets"] is None
        and (undrawn["grid"], undrawn["affine"]) == (None, None)
    )


def mirroring_flips_drawn_axes(kind):
    transform, image = kind(allowed_axes=(0, 1)), torch.arange(12).view(1, 3, 4)
    flipped = transform.apply({"image": image, "segmentation": image}, axes=[1])
    drawn = transform.get_parameters(image=image)["axes"]
    return torch.equal(flipped["segmentation"], image.flip(2)) and set(drawn) <= {0, 1}


def scales_are_a_list(kind):
    scales = kind(ds_scales=((1, 1), (0.5, 0.5)))(segmentation=torch.zeros(1, 4, 4))["segmentation"]
    return [tuple(scale.shape) for scale in scales] == [(1, 4, 4), (1, 2, 2)]


def steps_may_return_more(collate):
    steps = [{"loss": np.array(1.0), "seg": np.float32(2), "measured": np.array([True, False])}] * 2
    return np.mean(collate(steps)["loss"]) == 1 and len(collate(steps)["measured"]) == 2


def log_takes_more(kind):
    logger = kind(None, False)
    values = logger.local_logger.my_fantastic_logging
    known = values["mean_fg_dice"] == []
    values.setdefault("more", [])
    logger.log("more", 1.5, 0)
    return known and logger.get_value("more", step=-1) == 1.5 and logger.get_value("more", step=None) == [1.5]


BEHAVIORS = {
    "environment of the search": environment_is_read_late,
    "decoder of a U-Net": decoder_gives_scales,
    "torch's compiled module": compiled_knows_its_network,
    "grid of preprocessing": grids_cover_the_same_extent,
    "chunks of preprocessed files": blocks_begin_with_the_channel,
    "augmentation of a trainer": only_two_transforms_move_voxels,
    "spatial transform": affine_leads_to_the_crop,
    "mirroring transform": mirroring_flips_drawn_axes,
    "scales of deep supervision": scales_are_a_list,
    "collecting of what steps return": steps_may_return_more,
    "log of a training": log_takes_more,
}


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: hold.name)
def test_nnunet_is_as_the_package_relies_on(hold):
    if sentence := broken(hold):
        pytest.fail(sentence, pytrace=False)


def imports_of_nnunet():
    """Every name that the package imports of nnU-Net or its libraries, with the modules that do."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}:{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] in STOCK:
                    found.setdefault(name, []).append(str(file.relative_to(PACKAGE)))
    return found


@pytest.mark.parametrize("name, files", imports_of_nnunet().items())
def test_what_the_package_imports_of_nnunet_is_there(name, files):
    try:
        resolve_name(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{', '.join(files)} import {name}: {error}", pytrace=False)


def overridden(at, folder, pattern):
    """The methods of a class of nnU-Net that classes in some modules of the package have too."""
    files = sorted((PACKAGE / folder).glob(pattern))
    kinds = [node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)]
    names = {node.name for kind in kinds for node in kind.body if isinstance(node, ast.FunctionDef)}
    return {f"{at}.{name}" for name in names if hasattr(resolve_name(at), name) and not hasattr(object, name)}


@pytest.mark.parametrize("overriding", [(TRAINER, "trainers", "*.py"), (PREDICTOR, "inference", "predictor.py")])
def test_every_method_that_the_package_overrides_is_in_the_list(overriding):
    listed = {f"{hold.at}.{name}" for hold in HOLDS for name in hold.methods} | {hold.at for hold in HOLDS}
    found = overridden(*overriding)
    assert len(found) > 5
    assert not found - listed, f"Add holds for {sorted(found - listed)}."


def test_the_list_names_modules_that_are_there_and_each_behavior_has_its_check():
    for hold in HOLDS:
        for module in hold.used_by.split():
            assert (PACKAGE / (module.replace(".", "/") + ".py")).is_file(), f"'{hold.name}' names {module}."
    assert {hold.name for hold in HOLDS if hold.behavior} == set(BEHAVIORS)
    assert len({hold.name for hold in HOLDS}) == len(HOLDS)


# Changes of nnU-Net, each with the hold that must notice and what its sentence must say.
CHANGES = {
    "a method is gone": (
        "mirroring at prediction",
        lambda patch, predictor: patch.delattr(predictor, "_internal_maybe_mirror_and_predict"),
        "is not there .*offsets that survive mirroring",
    ),
    "a parameter is new": (
        "network of a trainer",
        lambda patch, predictor: patch.setattr(
            resolve_name(TRAINER), "build_network_architecture", lambda plans_manager, dataset_json: None
        ),
        r"takes \(plans_manager dataset_json\) and not .*heads as additional output channels",
    ),
    "another function is called": (
        "export of many cases",
        lambda patch, predictor: patch.setattr(
            predictor, "predict_from_data_iterator", predictor.predict_single_npy_array
        ),
        "has no `apply_async.export_prediction_from_logits.*lesion tables of nnUNetv2_predict",
    ),
    "the logger is another": (
        "log of a training",
        lambda patch, predictor: patch.delattr(
            resolve_name("nnunetv2.training.logging.nnunet_logger:MetaLogger"), "log"
        ),
        "has no log.*parts of the loss in the log",
    ),
    "the scales come in another order": (
        "decoder of a U-Net",
        lambda patch, predictor: reverse_scales(patch),
        "is not as assumed: decoder.*heads apart from the logits",
    ),
}


def reverse_scales(patch):
    decoder = resolve_name("dynamic_network_architectures.building_blocks.unet_decoder:UNetDecoder")
    forward = decoder.forward
    patch.setattr(decoder, "forward", lambda self, skips: forward(self, skips)[::-1])


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_nnunet_breaks_the_hold_with_a_sentence(change, monkeypatch):
    name, make, sentence = CHANGES[change]
    hold = next(hold for hold in HOLDS if hold.name == name)
    if broken(hold):
        pytest.skip("broken without the change")
    make(monkeypatch, resolve_name(PREDICTOR))
    found = broken(hold)
    assert found.startswith(f"The hold '{name}' broke: ") and re.search(sentence, found), found


@pytest.mark.parametrize(
    "parameters, as_expected",
    [("a b c", True), ("a ...", True), ("...", True), ("a b", False), ("a c b", False), ("a b c d", False)],
)
def test_parameters_are_compared_in_order(parameters, as_expected):
    assert (other_parameters(lambda a, b=1, c=2: None, parameters) is None) == as_expected
