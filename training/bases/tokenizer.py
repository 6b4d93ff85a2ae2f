"""The tokenizer of the tiny language model: byte-level BPE (any text goes through, no unknown token), trained in a
second on the words of the embedded corpora. Numbers of two digits and frequent words become one token each, as in the
tokenizers of large models: looking a word up is then matching one token, which a model of two attention layers learns.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from training.data.synthetic.documents import LABELS, READ_PROMPT, VALUES

SPECIAL_TOKENS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
WORDS = (
    *LABELS, *VALUES, READ_PROMPT, "What Which How many first where is the of on in and or a no yes to",
    "Direction First move left right up down red green blue yellow circle square",
    "Side Size Number Window Table Modality lesion lesions largest none mm CT MR Experts LESIONS kg pc hr ml",
    "Cardiomegaly Effusion Nodule cardiomegaly effusion nodule findings FINDINGS DX CR Sequence FLAIR T Report not",
    "error unknown disagree",
)  # fmt: skip
VOCAB_SIZE = 640  # an upper bound: training stops when every word above is one token
PIECES = r"\p{N}{1,2}|\p{L}+| |\n|[^\s\p{L}\p{N}]|\s"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% elif message['role'] == 'system' %}{{ '<|system|>' + message['content'] }}"
    "{% else %}{{ '<|user|>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; the same on every machine. Ids 0–4 are the special tokens, then 256 bytes, then merged words."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    backend.train_from_iterator(WORDS, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,
        chat_template=CHAT_TEMPLATE,
    )
