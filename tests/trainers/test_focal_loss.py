import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from nnunetv2_conflunet.trainers.focal_loss import FocalLoss


def logits_of(probabilities):
    """(1, C, N) logits whose softmax is the given (C, N) probabilities."""
    return torch.log(torch.tensor(probabilities, dtype=torch.float64))[None]


def test_the_mean_of_eq_4_over_the_voxels():
    # True labels 1, 0 with probabilities 0.8 and 0.5.
    logits = logits_of([[0.2, 0.5], [0.8, 0.5]])
    expected = np.mean([-(0.2**2) * np.log(0.8), -(0.5**2) * np.log(0.5)])
    assert FocalLoss(2.0)(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_without_an_exponent_it_is_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 5, 6), generator=generator)
    assert FocalLoss(0.0)(logits, labels).item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)


def test_voxels_of_the_ignore_label_take_no_part():
    logits = logits_of([[0.2, 0.5, 0.9], [0.8, 0.5, 0.1]])
    with_ignored = FocalLoss(2.0, ignore_label=2)(logits, torch.tensor([[1, 0, 2]]))
    assert with_ignored.item() == pytest.approx(FocalLoss(2.0)(logits[..., :2], torch.tensor([[1, 0]])).item())


def test_without_a_labelled_voxel_it_is_zero_with_zero_gradient():
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
