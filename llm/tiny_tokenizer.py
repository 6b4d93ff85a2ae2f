"""A tokenizer without training data: one token a byte, plus the chat and vision tokens.

Tests and the tiny preset need a tokenizer that exists offline, round-trips any Unicode text without loss and reads
digits one by one (what a small model can learn to copy).
"""

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

CHAT_TOKENS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
VISION_TOKENS = ("<image>", "<video>", "<img>", "</img>")


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, index = byte value (the table of GPT-2's encoder)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(b) if b in set(printable) else chr(next(spare)) for b in range(256)]


def build_byte_tokenizer(
    extra_tokens: tuple[str, ...] = (), chat_template: str | None = None
) -> PreTrainedTokenizerFast:
    """Special tokens first (ids 0..), then the 256 bytes; `extra_tokens` are further special tokens after them."""
    specials = [*CHAT_TOKENS, *VISION_TOKENS]
    vocab = {token: i for i, token in enumerate([*specials, *byte_alphabet()])}
    backend = Tokenizer(BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*specials, *extra_tokens)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["</s>", "<|im_start|>", *VISION_TOKENS, *extra_tokens],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,
        chat_template=chat_template,
    )
