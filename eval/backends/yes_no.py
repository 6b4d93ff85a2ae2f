"""How probable "yes" is as an answer, beside "no": what calibration of yes/no questions is measured on.

P(yes) = p(yes) / (p(yes) + p(no)), where p(word) is the probability that the answer begins with it, summed over the
ways to write it (`yes`, `Yes`, `YES`, with and without a blank before). A spelling of several tokens counts with the
product of their probabilities, so nothing depends on how a tokenizer cuts words. p(yes) + p(no) is kept: where it is
small, the model was about to say something else, and P(yes) says little.

A tokenizer that spells letter by letter begins "none" as it begins "no"; that mass is counted as no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

FORMS = ("{}", " {}")
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class YesNo:
    """`p_yes` is P(yes); `mass` is p(yes) + p(no), the share of probability that P(yes) was made of."""

    p_yes: float
    mass: float


def spellings(tokenizer: Any, word: str) -> list[Tokens]:
    """The token sequences of a word, none the beginning of another (whose probability it holds already).

    Raises ValueError where the tokenizer cannot write it.
    """
    texts = [form.format(case) for form in FORMS for case in (word, word.capitalize(), word.upper())]
    unknown = getattr(tokenizer, "unk_token_id", None)
    found = {tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts}
    found = sorted(tokens for tokens in found if tokens and unknown not in tokens)
    if not found:
        raise ValueError(f"the tokenizer cannot write {word!r}: a probability of it does not exist")
    return [tokens for tokens in found if not any(tokens[: len(o)] == o for o in found if o != tokens)]


def weigh(write: Callable[[Tokens], torch.Tensor], tokenizer: Any) -> list[YesNo]:
    """P(yes) of each prompt of a batch.

    write: makes the model write these tokens after every prompt and returns the logits (B, T, V) before each of them.
        Called once where all spellings are single tokens, else as often as their beginnings differ.
    """
    yes, no = spellings(tokenizer, "yes"), spellings(tokenizer, "no")
    runs = {}
    for tokens in sorted({*yes, *no}, key=len, reverse=True):
        if _run_of(tokens, runs) is None:
            runs[tokens] = torch.log_softmax(write(tokens).float(), dim=-1)
    total_yes, total_no = (torch.logsumexp(_logs(words, runs), dim=0) for words in (yes, no))
    mass = (total_yes.exp() + total_no.exp()).tolist()
    found = [YesNo(p, m) for p, m in zip(torch.sigmoid(total_yes - total_no).tolist(), mass)]
    if any(one.p_yes != one.p_yes for one in found):
        raise ValueError("the model gives no probabilities: its logits are not finite")
    return found


def _run_of(tokens: Tokens, runs: Iterable[Tokens]) -> Tokens | None:
    """A run that passes all places at which `tokens` are weighed: the last token itself need not have been written."""
    return next((run for run in runs if run[: len(tokens) - 1] == tokens[:-1]), None)


def _logs(words: list[Tokens], runs: dict[Tokens, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities (spellings, B)."""
    return torch.stack(
        [sum(runs[_run_of(tokens, runs)][:, place, token] for place, token in enumerate(tokens)) for tokens in words]
    )


class Forced:
    """A `prefix_allowed_tokens_fn` that lets a model write these tokens and no others."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens, self.start = tokens, None

    def __call__(self, _: int, ids: torch.Tensor) -> list[int]:
        self.start = len(ids) if self.start is None else self.start
        return [self.tokens[len(ids) - self.start]]

    def how(self) -> dict[str, Any]:
        """Arguments of `generate`, which then returns the logits too."""
        count = len(self.tokens)
        return {
            "max_new_tokens": count, "min_new_tokens": count, "prefix_allowed_tokens_fn": self, "output_logits": True,
            "return_dict_in_generate": True,
        }  # fmt: skip
