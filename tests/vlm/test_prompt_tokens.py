"""Token ids of a rendered prompt, for tokenizers of the SentencePiece kind and without offsets too."""

import string

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from llm.tiny_tokenizer import build_byte_tokenizer
from tests.helpers.processing import assistant, make_processor, picture, template, unmasked_runs, user
from vlm.prompt_tokens import TextEncoder

SPECIALS = ["<s>", "</s>", "<image>", "<video>", "<img>", "</img>", "<|im_start|>", "<|im_end|>", "<think>"]


def sentencepiece_like(scheme: str) -> PreTrainedTokenizerFast:
    """One token a character, words opened by "▁", as Llama 2's and Gemma's tokenizers do."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0)] + [(c, -3.0) for c in sorted({*string.printable} - {" "})]
    backend = Tokenizer(Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIALS[2:]})
    return tokenizer


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_literals_get_no_spaces_that_nobody_wrote(scheme: str):
    tokenizer = sentencepiece_like(scheme)
    processor = make_processor(tokenizer)
    ids = processor.encode([user("x<image>y <|im_end|> z"), assistant("an </s> a")])["input_ids"].tolist()
    pieces = "".join(tokenizer.convert_ids_to_tokens(ids)).replace("▁", " ")
    assert "x<image>y <|im_end|> z<|im_end|>" in pieces and "an </s> a<|im_end|>" in pieces
    assert ids.count(tokenizer.convert_tokens_to_ids("<image>")) == 0
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("name", ["chatml", "mistral_v1", "zephyr"])
def test_labels_are_the_words(name: str, scheme: str):
    tokenizer = sentencepiece_like(scheme)
    processor = make_processor(tokenizer, chat_template=template(name))
    messages = [user(picture(), "a <image> b"), assistant("a word"), user("next"), assistant("[/INST] two </s> ends")]
    runs = unmasked_runs(processor.encode(messages), tokenizer)
    end = "<|im_end|>" if name == "chatml" else "</s>"
    assert [run.strip().removesuffix(end).strip() for run in runs] == ["a word", "[/INST] two </s> ends"]
    assert all(run.endswith(end) for run in runs)


class Slow:
    """A tokenizer without a backend: everything the encoder may use of it."""

    def __init__(self, fast):
        self.fast = fast

    def __call__(self, text, add_special_tokens=False, truncation=False):
        return {"input_ids": self.fast(text, add_special_tokens=add_special_tokens)["input_ids"]}


def test_without_offsets_the_text_is_cut_at_the_spans():
    fast = build_byte_tokenizer()
    spans = [(3, 7), (9, 11)]
    text = "abcdefghijklm<|im_end|>"
    by_offset = TextEncoder(fast, set()).encode_run(text, spans, True)
    assert TextEncoder(Slow(fast), set()).encode_run(text, spans, True) == by_offset
    assert fast.decode([i for i, flag in zip(*by_offset) if flag]) == "defgjk"


def test_a_token_across_the_start_of_a_span_is_split():
    tokenizer = sentencepiece_like("first")  # has the token "▁a"
    encoder = TextEncoder(tokenizer, set())
    text = "x a a"
    whole, _ = encoder.encode_run(text, [], True)
    ids, flags = encoder.encode_run(text, [(2, 5)], True)
    assert len(whole) == 4 and len(ids) == 5  # "▁", "x", "▁a", "▁a" against the first "▁a" cut in two
    assert tokenizer.convert_ids_to_tokens([i for i, flag in zip(ids, flags) if flag]) == ["a", "▁a"]


def test_literal_pieces_never_form_a_token():
    tokenizer = build_byte_tokenizer()
    encoder = TextEncoder(tokenizer, {"<image>", "image>", "<<image>"})
    for text in ("<image>", "<<image>", "image>"):
        assert tokenizer.decode(encoder.encode_literal(text)) == text
        assert not set(encoder.encode_literal(text)) & set(tokenizer.all_special_ids)
