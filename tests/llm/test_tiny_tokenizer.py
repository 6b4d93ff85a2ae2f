"""The byte tokenizer: lossless on any text, special tokens single, the same after saving."""

import random

from transformers import AutoTokenizer

from llm.tiny_tokenizer import CHAT_TOKENS, VISION_TOKENS, build_byte_tokenizer, byte_alphabet


def test_round_trip_on_any_unicode():
    tokenizer = build_byte_tokenizer()
    draw = random.Random(0)
    ranges = ((32, 127), (1, 0xD800), (0xE000, 0x110000))
    for _ in range(500):
        text = "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(40)))
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text.encode()) and not set(ids) & set(tokenizer.all_special_ids)


def test_vocabulary_is_bytes_and_special_tokens():
    tokenizer = build_byte_tokenizer(extra_tokens=("<x>",))
    assert len(set(byte_alphabet())) == 256 and len(tokenizer) == 256 + len(CHAT_TOKENS) + len(VISION_TOKENS) + 1
    for token in (*CHAT_TOKENS, *VISION_TOKENS, "<x>"):
        assert tokenizer.encode(token, add_special_tokens=False) == [tokenizer.convert_tokens_to_ids(token)]
    assert tokenizer.pad_token == "<pad>" and tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.convert_tokens_to_ids("<pad>") == 0


def test_saves_and_loads(tmp_path):
    tokenizer = build_byte_tokenizer(chat_template="{{ messages }}")
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nnaïve 😀  <image>"
    assert again.encode(text) == tokenizer.encode(text) and again.chat_template == tokenizer.chat_template
