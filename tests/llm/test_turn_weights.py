"""Square-root turn weights: a two-turn case by hand, a slow loop over runs, and the formula they stand for."""

import math

import pytest
import torch

from llm.linear_cross_entropy import linear_cross_entropy
from llm.turn_weights import sqrt_turn_weights

X = -100


def runs(labels, seq_idx=None):
    """Positions of each run of labelled tokens of each row, the slow way."""
    found = []
    for row, line in enumerate(labels.tolist()):
        open_run = False
        for column, label in enumerate(line):
            cut = seq_idx is not None and column > 0 and seq_idx[row, column] != seq_idx[row, column - 1]
            if label != X and open_run and not cut:
                found[-1].append((row, column))
            elif label != X:
                found.append([(row, column)])
            open_run = label != X
    return found


def test_two_turns_by_hand():
    labels = torch.tensor([[X, 5, X, X, 7, 8, 9, 1, X]])
    weights = sqrt_turn_weights(labels, shifted=True)
    torch.testing.assert_close(weights, torch.tensor([[0, 1, 0, 0, 0.5, 0.5, 0.5, 0.5, 0]]))
    nll = torch.arange(9.0)[None]
    # mean 1 of one token, mean 5.5 of four: (1 * sqrt(1) + 5.5 * sqrt(4)) / (sqrt(1) + sqrt(4)) = 12 / 3
    assert (weights * nll).sum() / weights.sum() == 4.0
    assert nll[labels != X].mean() == pytest.approx(4.6), "the plain mean differs"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_loop_over_turns(seed, packed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 20, (3, 40), generator=g)
    labels[torch.rand(3, 40, generator=g) < 0.3] = X
    seq_idx = (torch.rand(3, 40, generator=g) < 0.2).cumsum(1) if packed else None
    hidden, head = torch.randn(3, 40, 8, generator=g), torch.randn(20, 8, generator=g)
    found = linear_cross_entropy(hidden, head, labels, sqrt_turn_weights(labels, seq_idx, shifted=True))
    nll = -torch.log_softmax(hidden @ head.T, -1)
    top = bottom = 0.0
    for turn in runs(labels, seq_idx):
        mean = sum(nll[row, column, labels[row, column]].item() for row, column in turn) / len(turn)
        top, bottom = top + mean * math.sqrt(len(turn)), bottom + math.sqrt(len(turn))
    assert found.item() == pytest.approx(top / bottom, rel=1e-5)


def test_rows_and_samples_cut_turns():
    touching = torch.tensor([[X, 1, 2], [3, 4, X]])  # one run only if rows were laid end to end
    torch.testing.assert_close(sqrt_turn_weights(touching, shifted=True), (touching != X) * 2**-0.5)
    labels = torch.tensor([[1, 2, 3, 4]])
    torch.testing.assert_close(sqrt_turn_weights(labels, shifted=True), torch.full((1, 4), 0.5))
    cut = sqrt_turn_weights(labels, torch.tensor([[0, 1, 1, 1]]), shifted=True)
    torch.testing.assert_close(cut, torch.tensor([[1, 3**-0.5, 3**-0.5, 3**-0.5]]))
    torch.testing.assert_close(sqrt_turn_weights(labels[0], shifted=True), torch.full((4,), 0.5))


def test_nothing_labelled():
    assert torch.equal(sqrt_turn_weights(torch.full((2, 3), X), shifted=True), torch.zeros(2, 3))
    assert sqrt_turn_weights(torch.zeros(2, 0, dtype=torch.long), shifted=True).shape == (2, 0)


def test_bad_input():
    labels = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"seq_idx \(2, 4\).*labels \(2, 3\)"):
        sqrt_turn_weights(labels, torch.zeros(2, 4), shifted=True)
    with pytest.raises(ValueError, match="integer.*float32"):
        sqrt_turn_weights(labels.float(), shifted=True)


def test_of_unshifted_labels_the_first_of_a_sample_is_no_target():
    """Six tokens of which the model predicts five weigh 1 / sqrt(5), and the model's loss is the formula."""
    from llm import families, load_language_model

    labels = torch.tensor([[3, 4, 5, 6, 7, 8, 9, X, 11, 12]])
    seq_idx = torch.tensor([[0] * 6 + [1] * 4])
    weights = sqrt_turn_weights(labels, seq_idx)
    torch.testing.assert_close(weights, torch.tensor([[0, *[5**-0.5] * 5, 0, 0, *[2**-0.5] * 2]]))
    model = load_language_model(families()["llama"].tiny()).eval()
    ids = labels.clamp(min=0)
    options = {"seq_idx": seq_idx, "labels": labels, "skip_logits": True}
    nll = torch.nn.functional.cross_entropy(model(ids, seq_idx=seq_idx).logits[0, :-1], ids[0, 1:], reduction="none")
    turns = [nll[0:5], nll[7:9]]
    wanted = sum(turn.mean() * len(turn) ** 0.5 for turn in turns) / sum(len(turn) ** 0.5 for turn in turns)
    torch.testing.assert_close(model(ids, token_weights=weights, **options).loss, wanted, rtol=1e-5, atol=1e-5)
    plain = model(ids, **options).loss
    assert (plain - wanted).abs() > 1e-4, "the control: without weights"
