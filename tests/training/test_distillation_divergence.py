"""Self-distillation: targets are what they are called, and the divergence in chunks is its definition."""

import pytest
import torch
from torch import nn

from training.distillation.divergence import ROWS, head_divergence, head_divergence_full
from training.distillation.targets import target_maker, target_names


def test_targets_are_distributions_of_the_teacher():
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 7), torch.randint(7, (50,))
    assert target_names() == ("agreed", "self", "swapped")
    for name in target_names():
        found, asked = target_maker(name)(logits, labels, 2.0)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(50))
        torch.testing.assert_close(found.exp().sort(-1).values, (logits / 2).softmax(-1).sort(-1).values)
        assert asked is None or torch.equal(asked, logits.argmax(-1) == labels)
    swapped, _ = target_maker("swapped")(logits, labels, 2.0)
    assert torch.equal(swapped.argmax(-1), labels)
    right = logits.argmax(-1) == labels
    assert 0 < right.sum() < 50 and torch.allclose(swapped[right], (logits[right] / 2).log_softmax(-1))


@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("number", [0, 5, ROWS, 2 * ROWS + 3])
def test_chunks_are_the_definition(name, number):
    torch.manual_seed(0)
    student, teacher = nn.Linear(6, 11).double(), nn.Linear(4, 11).double()
    theirs, labels, weights = torch.randn(number, 4).double(), torch.randint(11, (number,)), torch.rand(number)
    for part in (None, weights):
        given = []
        for function in (head_divergence, head_divergence_full):
            rows = torch.linspace(-1, 1, number * 6).double().view(number, 6).requires_grad_()
            student.zero_grad()
            found = function(student, teacher, rows, theirs, labels, part, target_maker(name), 1.7)
            total = found if function is head_divergence_full else found.total
            total.backward()
            given.append((total.detach(), rows.grad, student.weight.grad.clone()))
        for one, other in zip(*given, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, check_dtype=False)
    assert teacher.weight.grad is None
    assert number < ROWS or total > 0


def test_more_chunks_than_rows_change_nothing_but_the_calls():
    calls, student = [], nn.Linear(6, 11)
    student.register_forward_hook(lambda *args: calls.append(1))
    rows = torch.randn(3, 6, requires_grad=True)
    options = (nn.Linear(6, 11), rows, rows.detach(), torch.tensor([1, 2, 3]), None, target_maker("self"), 1.0)
    once = head_divergence(student, *options)
    assert len(calls) == 1
    often = head_divergence(student, *options, least_chunks=3)
    assert len(calls) == 4 and torch.equal(once.total, often.total)
    often.total.backward()
    assert len(calls) == 7
