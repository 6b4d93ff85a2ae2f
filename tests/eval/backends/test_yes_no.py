"""P(yes) of a backend against the softmax computed by hand, on tiny real models, and its sums on made-up logits."""

import pytest
import torch

from eval.backends.base import Backend
from eval.backends.radio import RadioBackend
from eval.backends.transformers_chat import TransformersBackend
from eval.backends.yes_no import spellings, weigh
from tests.helpers.data_folders import write_image
from tests.helpers.stage_runs import small_vlm
from tests.helpers.tiny_peers import tiny_llava


def question(*items):
    return [{"role": "user", "content": [*items]}]


@pytest.fixture
def prompts(tmp_path):
    """With a picture and without, of different lengths: the batch is padded."""
    write_image(tmp_path / "a.png", size=(64, 48))
    return [
        question({"type": "image", "image": str(tmp_path / "a.png")}, {"type": "text", "text": "Is there a mass?"}),
        question({"type": "text", "text": "Is there any nodule in the left lung?"}),
        question({"type": "text", "text": "Well?"}),
    ]


def by_hand(logits_of, tokenizer):
    """(P(yes), p(yes) + p(no)); logits_of: ids of an answer -> logits (T, V) before each, from one whole forward."""
    total = {}
    for word in ("yes", "no"):
        total[word] = 0.0
        for text in (word, word.title(), word.upper(), f" {word}", f" {word.title()}", f" {word.upper()}"):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            logs = torch.log_softmax(logits_of(ids).double(), -1)
            total[word] += float(sum(logs[place, token] for place, token in enumerate(ids)).exp())
    return total["yes"] / (total["yes"] + total["no"]), total["yes"] + total["no"]


def test_our_own_model(prompts):
    model, processor = small_vlm()
    backend = RadioBackend(model, processor)
    weighed = backend.yes_no([backend.encode(messages, "x") for messages in prompts])
    for messages, found in zip(prompts, weighed, strict=True):

        def logits_of(ids, messages=messages):
            whole = processor.encode(messages, add_generation_prompt=True)
            whole.pop("labels", None)
            start = len(whole["input_ids"])
            whole["input_ids"] = torch.cat([whole["input_ids"], torch.tensor(ids)])
            for name in ("mm_token_type_ids", "attention_mask"):
                if name in whole:
                    more = torch.full((len(ids),), int(name == "attention_mask"), dtype=whole[name].dtype)
                    whole[name] = torch.cat([whole[name], more])
            with torch.no_grad():
                return model(**processor.collate([whole])).logits[0, start - 1 : start - 1 + len(ids)]

        p_yes, mass = by_hand(logits_of, processor.tokenizer)
        assert (found.p_yes, found.mass) == (pytest.approx(p_yes, rel=1e-3), pytest.approx(mass, rel=1e-3))
    assert len({round(found.p_yes, 6) for found in weighed}) == 3  # three prompts, three probabilities


def test_other_peoples_models(prompts):
    model, processor = tiny_llava()
    backend = TransformersBackend(model, processor)
    encoded = [backend.encode(messages, "x") for messages in prompts]
    weighed = backend.yes_no(encoded)
    for one, found in zip(encoded, weighed, strict=True):
        inputs = backend._inputs([one.data])

        def logits_of(ids, inputs=inputs):
            start = inputs["input_ids"].shape[1]
            whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
            rest = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")}
            with torch.no_grad():
                logits = model(input_ids=whole, attention_mask=torch.ones_like(whole), **rest).logits[0]
            return logits[start - 1 : start - 1 + len(ids)]

        p_yes, mass = by_hand(logits_of, backend.tokenizer)
        assert (found.p_yes, found.mass) == (pytest.approx(p_yes, rel=1e-3), pytest.approx(mass, rel=1e-3))
    assert len({round(found.p_yes, 6) for found in weighed}) == 3


class Tokenizer:
    """Whole words, of which `Yes` exists with a blank only, and `NO` is two tokens."""

    words = {"yes": [1], " yes": [2], "Yes": [9, 3], " Yes": [3], "YES": [4], " YES": [4, 0], "no": [5], "NO": [6, 5]}
    unk_token_id = 0

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": self.words.get(text, [0])}


def test_spellings_are_counted_once():
    assert spellings(Tokenizer(), "yes") == [(1,), (2,), (3,), (4,), (9, 3)]
    assert spellings(Tokenizer(), "no") == [(5,), (6, 5)]
    with pytest.raises(ValueError, match="cannot write 'maybe'"):
        spellings(Tokenizer(), "maybe")
    letters = type("Letters", (), {"__call__": lambda self, text, **_: {"input_ids": list(text.encode())}})()
    assert len(spellings(letters, "yes")) == 6


def test_sums_over_spellings():
    first = torch.tensor([0.1, 0.1, 0.2, 0.05, 0.05, 0.1, 0.2, 0.0, 0.0, 0.2]).log()
    after = {9: torch.tensor([0.5, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]).log(), 6: torch.tensor([0.25] * 4 + [0] * 6).log()}
    asked = []

    def write(tokens):
        asked.append(tokens)
        return torch.stack([first, *(after[token] for token in tokens[:-1])])[None]

    [found] = weigh(write, Tokenizer())
    yes, no = 0.1 + 0.2 + 0.05 + 0.05 + 0.2 * 0.5, 0.1 + 0.2 * 0.0
    assert found.p_yes == pytest.approx(yes / (yes + no)) and found.mass == pytest.approx(yes + no)
    assert sorted(asked) == [(6, 5), (9, 3)]  # single tokens are weighed on the way


def test_what_is_not_finite_is_an_error_and_an_endpoint_says_nothing():
    with pytest.raises(ValueError, match="not finite"):
        weigh(lambda tokens: torch.full((1, len(tokens), 10), float("nan")), Tokenizer())
    assert Backend().yes_no([]) is None
