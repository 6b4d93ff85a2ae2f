"""The held-out loss: a mean over labelled tokens that hides nothing."""

import math
from types import SimpleNamespace

import pytest
import torch

from training.heldout import heldout_loss


class Scripted(torch.nn.Module):
    """Returns the loss that stands in the batch."""

    def forward(self, labels, loss):
        return SimpleNamespace(loss=loss)


def sample(loss: float, labelled: int) -> dict:
    return {"labels": torch.tensor([[-100] + [1] * labelled]), "loss": torch.tensor(loss)}


def measure(*samples) -> dict:
    return heldout_loss(Scripted(), {"a": samples}, lambda rows: rows[0], 1, 0, 1, torch.device("cpu"))


def test_tokens_count_and_batches_without_any_do_not():
    result = measure(sample(1.0, 3), sample(5.0, 1), sample(math.nan, 0))
    assert result["loss"] == pytest.approx(2.0) and result["tokens"] == 4
    assert result["sources"]["a"]["samples"] == 3


def test_a_model_that_broke_has_no_good_loss():
    """NaN counted as zero would look like the best model of all."""
    assert math.isnan(measure(sample(1.0, 3), sample(math.nan, 3))["loss"])
