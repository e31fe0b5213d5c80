"""The reweighted loss (paper, Eq. 6) against a loop over every element."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dv2_core.diffusion import reweighted_loss
from tests.oracles.public import noise


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """prediction, target [F, C, h, w] and masks [F, 1, 8h, 8w] whose edges fall between latent cells."""
    masks = torch.zeros(3, 1, 32, 48)
    for n in range(3):
        masks[n, 0, 4 + 3 * n : 20 + 3 * n, 5 * n : 18 + 5 * n] = 1.0
    return noise(3, 2, 4, 6, seed=1), noise(3, 2, 4, 6, seed=2), masks


def loop(prediction: Tensor, target: Tensor, masks: Tensor, lambda_l: float) -> float:
    total = 0.0
    frames, channels, height, width = prediction.shape
    for n in range(frames):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    inside = float(masks[n, 0, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].mean())
                    error = float(target[n, c, i, j] - prediction[n, c, i, j])
                    total += (lambda_l * inside + (1 - inside)) * error**2
    return total / prediction.numel()


@pytest.mark.parametrize("lambda_l", [1.0, 2.0, 4.0])
def test_reweighted_loss_equals_a_loop_over_every_element(lambda_l: float) -> None:
    loss, _ = reweighted_loss(*batch(), lambda_l)
    assert float(loss) == pytest.approx(loop(*batch(), lambda_l), rel=1e-5)


def test_lambda_l_of_one_equals_plain_mse() -> None:
    prediction, target, masks = batch()
    loss, parts = reweighted_loss(prediction, target, masks, 1.0)
    torch.testing.assert_close(loss, F.mse_loss(prediction, target))
    torch.testing.assert_close(parts["mse"], F.mse_loss(prediction, target))


def test_an_all_one_mask_multiplies_the_loss_by_lambda_l_and_an_all_zero_mask_does_not_change_it() -> None:
    prediction, target, masks = batch()
    plain = F.mse_loss(prediction, target)
    torch.testing.assert_close(reweighted_loss(prediction, target, torch.ones_like(masks), 2.0)[0], 2.0 * plain)
    torch.testing.assert_close(reweighted_loss(prediction, target, torch.zeros_like(masks), 2.0)[0], plain)


def test_the_logged_errors_are_means_inside_and_outside_of_the_boxes_and_carry_no_gradient() -> None:
    prediction, target, _ = batch()
    masks = torch.zeros(3, 1, 32, 48)
    masks[:, :, :16, :24] = 1.0  # exactly two by three latent cells
    prediction.requires_grad_()
    loss, parts = reweighted_loss(prediction, target, masks, 2.0)
    error = (prediction.detach() - target).square()
    torch.testing.assert_close(parts["inside"], error[:, :, :2, :3].mean())
    outside = (error.sum() - error[:, :, :2, :3].sum()) / (error.numel() - error[:, :, :2, :3].numel())
    torch.testing.assert_close(parts["outside"], outside)
    assert loss.requires_grad and not any(part.requires_grad for part in parts.values())


def test_the_logged_errors_are_finite_when_there_is_no_inside_or_no_outside() -> None:
    prediction, target, masks = batch()
    for mask in (torch.zeros_like(masks), torch.ones_like(masks)):
        assert all(torch.isfinite(part) for part in reweighted_loss(prediction, target, mask, 2.0)[1].values())


def test_the_loss_is_computed_in_fp32_for_half_precision_predictions() -> None:
    prediction, target, masks = batch()
    loss, _ = reweighted_loss(prediction.bfloat16(), target.bfloat16(), masks, 2.0)
    expected, _ = reweighted_loss(prediction.bfloat16().float(), target.bfloat16().float(), masks, 2.0)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)


def test_the_gradient_is_lambda_l_times_as_large_inside_the_box() -> None:
    prediction, target, _ = batch()
    masks = torch.zeros(3, 1, 32, 48)
    masks[:, :, :16, :24] = 1.0
    gradients = []
    for lambda_l in (1.0, 2.0):
        leaf = prediction.clone().requires_grad_()
        reweighted_loss(leaf, target, masks, lambda_l)[0].backward()
        gradients.append(leaf.grad)
    ratio = gradients[1] / gradients[0]
    torch.testing.assert_close(ratio[:, :, :2, :3], torch.full((3, 2, 2, 3), 2.0))
    torch.testing.assert_close(ratio[:, :, 2:], torch.ones(3, 2, 2, 6))
