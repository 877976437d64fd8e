import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from nnunetv2_conflunet.trainers.loss import ConfLUNetLoss, FocalLoss, center_loss, offset_loss
from nnunetv2_conflunet.trainers.targets import HEATMAP_AND_OFFSETS, HEATMAP_ONLY, NOTHING

GRID = {"spacing_mm": (1.0, 1.0, 1.0), "sigma_mm": 2.0}


class Zero(nn.Module):
    def forward(self, logits, labels):
        return logits.sum() * 0


def packed(heatmap, offsets, validity):
    return torch.cat([heatmap[:, None], offsets, validity[:, None]], dim=1).half()


def test_center_loss_is_the_mean_square_over_valid_voxels():
    valid = torch.tensor([[True, True, False, True]])
    assert center_loss(torch.tensor([[1.0, 0, 9, 0]]), torch.zeros(1, 4), valid) == pytest.approx(1 / 3)


def test_with_a_focus_the_center_of_a_lesion_counts_more_than_the_background():
    valid = torch.tensor([[True, True, False, True]])
    target = torch.tensor([[1.0, 0.0, 1.0, 0.5]])
    # Errors 1, 1 and 0.5 with the weights 1 + 3 * (1, 0, 0.5).
    found = center_loss(torch.tensor([[0.0, 1, 9, 0]]), target, valid, focus=3)
    assert found == pytest.approx((4 * 1 + 1 * 1 + 2.5 * 0.25) / 3)


def test_offset_loss_is_the_l1_norm_in_mm_over_valid_voxels():
    offsets = torch.tensor([[[1.0, 0, 5], [2.0, 0, 5]]])
    valid = torch.tensor([[True, True, False]])
    assert offset_loss(offsets, torch.zeros(1, 2, 3), valid) == pytest.approx((3 + 0) / 2)


@pytest.mark.parametrize("loss", [center_loss, offset_loss])
def test_without_a_valid_voxel_a_loss_is_zero_with_zero_gradient(loss):
    shape = (1, 4) if loss is center_loss else (1, 2, 4)
    prediction = torch.ones(shape, requires_grad=True)
    value = loss(prediction, torch.zeros(shape), torch.zeros(1, 4, dtype=torch.bool))
    value.backward()
    assert value == 0 and not prediction.grad.any()


def test_sum_and_parts():
    shape = (2, 5, 5, 5)
    heads = torch.zeros(2, 4, 5, 5, 5)
    target = packed(torch.full(shape, 0.5), torch.ones(2, 3, 5, 5, 5), torch.full(shape, HEATMAP_AND_OFFSETS))
    loss = ConfLUNetLoss(Zero(), alpha=10, beta=0.1, deep_supervision=False, **GRID)
    total = loss.weighted_sum([torch.zeros(2, 2, 5, 5, 5), heads], [torch.zeros(2, 1, 5, 5, 5), target])
    assert {k: v.item() for k, v in loss.parts.items()} == {"seg": 0, "center": 0.25, "offsets": 3}
    assert total == pytest.approx(10 * 0.25 + 0.1 * 3)
    assert not any(part.requires_grad for part in loss.parts.values())


def test_masked_voxels_have_no_gradient():
    shape = (1, 4, 4, 4)
    validity = torch.full(shape, float(HEATMAP_ONLY))
    validity[0, 0], validity[0, 1] = NOTHING, HEATMAP_AND_OFFSETS
    heads = torch.ones(1, 4, 4, 4, 4, requires_grad=True)
    target = packed(torch.zeros(shape), torch.zeros(1, 3, 4, 4, 4), validity)
    loss = ConfLUNetLoss(Zero(), alpha=1, beta=1, deep_supervision=False, **GRID)
    loss.weighted_sum([torch.zeros(1, 2, 4, 4, 4), heads], [torch.zeros(1, 1, 4, 4, 4), target]).backward()
    heatmap_gradient, offset_gradient = heads.grad[0, 0] != 0, heads.grad[0, 1:] != 0
    np.testing.assert_array_equal(heatmap_gradient, (validity[0] >= HEATMAP_ONLY).numpy())
    np.testing.assert_array_equal(offset_gradient, np.broadcast_to((validity[0] == 2).numpy(), (3, 4, 4, 4)))


def test_half_precision_outputs_are_compared_in_float32(device):
    """float16 squares of small errors vanish, and sums over a patch overflow."""
    heads = torch.full((1, 4, 40, 40, 40), 100.0, device=device).half()
    target = packed(torch.zeros(1, 40, 40, 40), torch.zeros(1, 3, 40, 40, 40), torch.full((1, 40, 40, 40), 2.0))
    target = target.to(device)
    loss = ConfLUNetLoss(Zero(), alpha=1, beta=1, deep_supervision=False, **GRID)
    with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
        loss.weighted_sum([torch.zeros(1, 2, 40, 40, 40), heads], [torch.zeros(1, 1, 40, 40, 40), target])
    assert loss.parts["center"].item() == pytest.approx(1e4) and loss.parts["offsets"].item() == pytest.approx(300)


@pytest.mark.parametrize(
    "validity, measured",
    [
        (NOTHING, [True, False, False]),
        (HEATMAP_ONLY, [True, True, False]),
        (HEATMAP_AND_OFFSETS, [True, True, True]),
    ],
)
def test_a_part_without_targets_is_not_measured(validity, measured):
    shape = (1, 4, 4, 4)
    target = packed(torch.zeros(shape), torch.zeros(1, 3, 4, 4, 4), torch.full(shape, float(validity)))
    loss = ConfLUNetLoss(Zero(), alpha=1, beta=1, deep_supervision=False, **GRID)
    loss.weighted_sum([torch.zeros(1, 2, 4, 4, 4), torch.ones(1, 4, 4, 4, 4)], [torch.zeros(1, 1, 4, 4, 4), target])
    assert loss.measured.tolist() == measured


def logits_of(probabilities):
    """(1, C, N) logits whose softmax is the given (C, N) probabilities."""
    return torch.log(torch.tensor(probabilities, dtype=torch.float64))[None]


def test_the_focal_loss_is_the_mean_of_eq_4_over_the_voxels():
    # True labels 1, 0 with probabilities 0.8 and 0.5.
    logits = logits_of([[0.2, 0.5], [0.8, 0.5]])
    expected = np.mean([-(0.2**2) * np.log(0.8), -(0.5**2) * np.log(0.5)])
    assert FocalLoss(2.0)(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_without_an_exponent_the_focal_loss_is_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 5, 6), generator=generator)
    assert FocalLoss(0.0)(logits, labels).item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)


def test_voxels_of_the_ignore_label_take_no_part():
    logits = logits_of([[0.2, 0.5, 0.9], [0.8, 0.5, 0.1]])
    with_ignored = FocalLoss(2.0, ignore_label=2)(logits, torch.tensor([[1, 0, 2]]))
    assert with_ignored.item() == pytest.approx(FocalLoss(2.0)(logits[..., :2], torch.tensor([[1, 0]])).item())


def test_without_a_labeled_voxel_it_is_zero_with_zero_gradient():
    logits = torch.randn(1, 2, 4, requires_grad=True)
    loss = FocalLoss(2.0, ignore_label=2)(logits, torch.full((1, 4), 2))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_half_precision_is_computed_in_float32():
    logits = torch.tensor([[[8.0], [-8.0]]])
    single = FocalLoss(2.0)(logits, torch.tensor([[1]]))
    assert FocalLoss(2.0)(logits.half(), torch.tensor([[1]])).item() == pytest.approx(single.item(), rel=1e-6)
    assert torch.isfinite(FocalLoss(2.0)(torch.tensor([[[200.0], [-200.0]]]).half(), torch.tensor([[1]])))
