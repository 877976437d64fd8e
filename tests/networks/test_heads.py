import copy
import pickle

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from support import small_architecture
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_conflunet.networks import (
    HeadChannels,
    heads_of,
    set_training_without_deep_supervision,
    unwrapped,
    widen_with_heads,
)
from nnunetv2_conflunet.utilities.errors import InputError


def network(n_outputs, dim=3, residual=False):
    architecture = small_architecture(dim, 3, residual)
    torch.manual_seed(0)
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        n_outputs,
        deep_supervision=True,
    )


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_channels_and_names(dim, residual):
    heads = HeadChannels(3, dim)
    wide = widen_with_heads(network(heads.n_channels, dim, residual), heads)
    assert heads.n_channels == 3 + 1 + dim
    assert (heads.offset(0), heads.offset(dim - 1)) == (4, 3 + dim)
    assert list(wide.state_dict()) == list(network(3, dim, residual).state_dict())
    outputs = wide(torch.randn(1, 1, *[16] * dim))
    assert [tuple(o.shape[:2]) for o in outputs] == [(1, 3), (1, 3), (1, 1 + dim)]


def test_only_the_semantic_channels_begin_at_random():
    wide = widen_with_heads(network(6), HeadChannels(2, 3))
    for layer in wide.decoder.seg_layers:
        assert layer.weight[:2].abs().sum() > 0
        assert not layer.weight[2:].any() and not layer.bias[2:].any()
        assert layer.weight.requires_grad


def test_without_deep_supervision_the_training_flag_decides():
    wide = widen_with_heads(network(6), HeadChannels(2, 3))
    wide.decoder.deep_supervision = False
    x = torch.randn(1, 1, 16, 16, 16)
    plain = wide(x)
    assert plain.shape[1] == 6
    assert set_training_without_deep_supervision(wide, True) is False
    semantic, heads = wide(x)
    assert torch.equal(torch.cat([semantic, heads], dim=1), plain)


def test_a_network_can_be_copied_and_sent_to_another_process():
    wide = widen_with_heads(network(6), HeadChannels(2, 3))
    for copied in (copy.deepcopy(wide), pickle.loads(pickle.dumps(wide))):
        assert heads_of(copied) == HeadChannels(2, 3)
        assert len(copied(torch.randn(1, 1, 16, 16, 16))) == 3


def test_weights_of_another_shape_are_refused():
    wide = widen_with_heads(network(6), HeadChannels(2, 3))
    wide.load_state_dict(network(6).state_dict())
    with pytest.raises(InputError, match=r"seg_layers.*\(2, .*instead of \(6, .*-pretrained_weights"):
        wide.load_state_dict(network(2).state_dict())


def test_weights_load_through_what_wraps_the_network():
    wide = widen_with_heads(network(6), HeadChannels(2, 3))
    nn.ModuleList([wide]).load_state_dict(nn.ModuleList([wide]).state_dict())
    torch.compile(wide).load_state_dict(torch.compile(wide).state_dict())
    wide.load_state_dict({k: v for k, v in wide.state_dict().items() if "encoder" in k}, strict=False)


def test_the_heads_add_no_break_to_the_graph_that_torch_compiles():
    wide = widen_with_heads(network(6), HeadChannels(2, 3))
    explained = torch._dynamo.explain(wide)(torch.randn(1, 1, 16, 16, 16))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def test_a_network_without_output_layers_is_refused():
    with pytest.raises(InputError, match="Linear has no decoder with seg_layers"):
        widen_with_heads(nn.Linear(2, 2), HeadChannels(2, 3))


def test_any_other_network_has_no_heads():
    assert heads_of(network(2)) is None and heads_of(None) is None


def test_heads_are_found_in_a_compiled_network_that_is_distributed_and_compiled_again(tmp_path):
    wide = widen_with_heads(network(6), HeadChannels(2, 3))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        # As nnU-Net's final validation gets it from a training on several GPUs with nnUNet_compile.
        wrapped = torch.compile(DistributedDataParallel(torch.compile(wide)))
        assert unwrapped(wrapped) is wide and heads_of(wrapped) == HeadChannels(2, 3)
    finally:
        dist.destroy_process_group()
