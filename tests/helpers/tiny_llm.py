"""Tiny language models of every family, packed rows of random samples, and the slow way to what a packed row must give:
transformers' own model on one sample at a time.
"""

import copy
import random

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from llm import families, prepare_language_model

VOCABULARY = 96


def native_model(source: str | PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """transformers' own model of a family's tiny configuration, or of a configuration; float32, eval mode."""
    config = families()[source].tiny() if isinstance(source, str) else source
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if config.model_type == "nemotron_h":  # 5.23 clamps steps to an initialisation range (transformers#48989)
        for module in model.modules():
            if hasattr(module, "time_step_limit"):
                module.time_step_limit = tuple(config.time_step_limit)
    return model


def prepared_copy(native: PreTrainedModel) -> PreTrainedModel:
    """The same weights, prepared."""
    return prepare_language_model(copy.deepcopy(native))


def random_rows(rows: int, seed: int = 0, longest: int = 300) -> list[list[int]]:
    """Sample lengths of `rows` packed rows of one common length: 1 ... `longest`, every row with a sample of length 1
    inside it, one longer than a chunk of 64 and one of exactly `longest`."""
    chance = random.Random(seed)
    found = []
    for _ in range(rows):
        lengths = [longest, 1, chance.randint(65, longest), *(chance.randint(1, longest) for _ in range(2))]
        chance.shuffle(lengths)
        found.append(lengths)
    total = max(map(sum, found))
    return [lengths + split_rest(total - sum(lengths), longest) for lengths in found]


def split_rest(rest: int, longest: int) -> list[int]:
    """Samples of at most `longest` that sum to `rest`."""
    return [longest] * (rest // longest) + ([rest % longest] if rest % longest else [])


def seq_idx_of(rows: list[list[int]]) -> torch.Tensor:
    """(B, L) sample numbers from the sample lengths of every row."""
    return torch.stack([torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in rows])


def random_ids(rows: list[list[int]], seed: int = 0) -> torch.Tensor:
    """(B, L) token ids beside the special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (len(rows), sum(rows[0])), generator=generator)


def samples(tensor: torch.Tensor, rows: list[list[int]]) -> list[torch.Tensor]:
    """(B, L, ...) -> the (1, l, ...) piece of every sample, row after row."""
    return [piece for i, row in enumerate(rows) for piece in tensor[i : i + 1].split(row, dim=1)]


def separate_logits(model: PreTrainedModel, ids: torch.Tensor, rows: list[list[int]]) -> torch.Tensor:
    """(B, L, V): the model called once a sample, laid out as the packed rows are."""
    logits = [model(input_ids=sample, use_cache=False).logits for sample in samples(ids, rows)]
    return torch.cat(logits, dim=1).view(*ids.shape, -1)


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Parameter name -> gradient of `loss`, for every parameter that it reaches; those of the model are left empty."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: grad for name, grad in zip(named, found) if grad is not None}


def gradient_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Largest ||found - wanted|| / ||wanted|| over the parameters; both must hold the same ones."""
    assert found.keys() == wanted.keys()
    return max(((found[name] - wanted[name]).norm() / wanted[name].norm()).item() for name in wanted)


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest absolute difference."""
    assert found.shape == wanted.shape
    return (found - wanted).abs().max().item()
