"""Text side of the siglip2 and clip adaptors: a sentence into the space of an adaptor's summary.

The towers are not part of any RADIO checkpoint; they are the teachers' own, opened by transformers' classes from the
Hugging Face cache or from a folder. Cosines of `encode_text` with an adaptor's summary rank sentences for a picture.
"""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Siglip2TextModel,
    SiglipTextModel,
)
from transformers.utils import cached_file

from encoders.adaptor_specs import aliases_of
from encoders.errors import RadioCheckpointError


class Teacher(NamedTuple):
    """`family`: of `FAMILIES`; `source`: hub id of a checkpoint with the text tower; `instead`: where there is none."""

    family: str
    source: str | None = None
    instead: str = ""


# By the first name of the teacher's row of aliases. The reference opens clip and siglip through open_clip, whose files
# transformers does not read.
TEACHERS = {
    "siglip2-g": Teacher("siglip", "google/siglip2-giant-opt-patch16-384"),
    "siglip2-so400m": Teacher("siglip", "google/siglip2-so400m-patch16-naflex"),
    "siglip": Teacher("siglip", None, "its text tower is an open_clip file"),
    "clip": Teacher("clip", None, "its text tower is an open_clip file (ViT-H-14-378-quickgelu, dfn5b)"),
}
# model_type -> family and the class of the text tower; FixRes SigLIP 2 checkpoints have SigLIP's type
FAMILIES = {
    "siglip": ("siglip", SiglipTextModel),
    "siglip_text_model": ("siglip", SiglipTextModel),
    "siglip2": ("siglip", Siglip2TextModel),
    "siglip2_text_model": ("siglip", Siglip2TextModel),
    "clip": ("clip", CLIPTextModelWithProjection),
    "clip_text_model": ("clip", CLIPTextModelWithProjection),
}
OTHER_HALF = [r"^vision_model\.", r"^visual_projection\.", r"^logit_scale$", r"^logit_bias$"]


def canonicalize(text: str) -> str:
    """As SigLIP's training data: `_` is a space, no ASCII punctuation, lower case, single spaces."""
    text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(text.lower().split())


class TextTower(nn.Module):
    """A text model and its tokenizer, from `load_text_tower`.

    Attributes: `context_length`, tokens a sentence is padded or cut to; `dim`, width of the embeddings.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, family: str) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.family = family
        self.context_length = model.config.max_position_embeddings
        self.dim = model.config.projection_dim if family == "clip" else model.config.projection_size

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Token ids `(N, context_length)`. SigLIP's texts are canonicalized first."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise ValueError("no texts to tokenize")
        if self.family == "siglip":
            texts = [canonicalize(text) for text in texts]
        # SigLIP pools the last position, and was trained with padding there: the side is part of the model.
        return self.tokenizer(
            texts,
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )["input_ids"].to(self.model.device)

    def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Embeddings `(N, dim)` of token ids `(N, context_length)`; with `normalize` of length 1."""
        if tokens.ndim != 2 or tokens.shape[1] != self.context_length:
            raise ValueError(f"token ids {tuple(tokens.shape)} are not (N, {self.context_length}); use `tokenize`")
        # No attention mask: SigLIP attends to padding as in training, and CLIP never looks past the end of a text.
        output = self.model(input_ids=tokens)
        embeddings = output.text_embeds if self.family == "clip" else output.pooler_output
        return F.normalize(embeddings, dim=-1) if normalize else embeddings


def load_text_tower(
    teacher: str | Mapping,
    source: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    local_files_only: bool = True,
) -> TextTower:
    """The text tower of an adaptor, in evaluation mode.

    Args:
        teacher: name of the adaptor, or its entry of the checkpoint's `args.teachers` (`name`, `model`).
        source: folder or hub id of a transformers checkpoint (SigLIP, SigLIP 2 or CLIP, whole or text alone); None:
            the one this teacher is known to be.
        local_files_only: take the cache as it is; False: download what is not there.

    Raises:
        RadioCheckpointError: "left out because ...": no text side, no files, files of another kind, missing weights.
    """
    label, known = _known(teacher)
    source = _source(label, known, source)
    absent = why_no_text_tower(teacher, source) if local_files_only else None
    if absent:
        raise RadioCheckpointError(absent)
    where = f"text tower of adaptor {label!r}, {source}"
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local_files_only)
        family, model_class = FAMILIES.get(config.model_type, (None, None))
        if family is None:
            raise RadioCheckpointError(
                f"{where}: left out because it is a {config.model_type!r} checkpoint, not SigLIP, SigLIP 2 or CLIP"
            )
        if known is not None and family != known.family:
            raise RadioCheckpointError(
                f"{where}: left out because it is of the {family} family, the teacher is of the {known.family} family"
            )
        model, info = _text_alone(model_class).from_pretrained(
            source,
            config=_text_config(config),
            dtype=dtype,
            local_files_only=local_files_only,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = _load_tokenizer(source, local_files_only)
    except RadioCheckpointError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise RadioCheckpointError(f"{where}: left out because it cannot be opened: {reason}") from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:4])
        raise RadioCheckpointError(f"{where}: left out because it has no weights for {missing}")
    if len(tokenizer) > model.config.vocab_size:
        raise RadioCheckpointError(
            f"{where}: left out because its tokenizer has {len(tokenizer)} tokens, its weights "
            f"{model.config.vocab_size}"
        )
    return TextTower(model, tokenizer, family).eval()


def why_no_text_tower(teacher: str | Mapping, source: str | Path | None = None) -> str | None:
    """The reason for a load report why an adaptor comes without text side; None where the files of one are here.
    Reads no weights."""
    try:
        label, known = _known(teacher)
        source = _source(label, known, source)
    except RadioCheckpointError as error:
        return str(error)
    for names in (("config.json",), ("model.safetensors", "model.safetensors.index.json")):
        try:
            found = any(_file(source, name) for name in names)
        except OSError:  # a path that is none
            found = False
        if not found:
            return (
                f"text tower of adaptor {label!r}: left out because {names[0]} of {source} is not here; download it "
                "once, or pass a folder as `source`"
            )
    return None


def _known(teacher: str | Mapping) -> tuple[str, Teacher | None]:
    """What to call the teacher, and what is known of it: by its name, else by its model."""
    names = [teacher] if isinstance(teacher, str) else [teacher.get("name"), teacher.get("model")]
    names = [name for name in names if name]
    if not names:
        raise RadioCheckpointError("text tower: left out because the teacher has neither a `name` nor a `model`")
    for name in names:
        for alias in aliases_of(name):
            if alias in TEACHERS:
                return names[0], TEACHERS[alias]
    return names[0], None


def _source(label: str, known: Teacher | None, source: str | Path | None) -> str:
    if source is None and known is None:
        raise RadioCheckpointError(
            f"text tower of adaptor {label!r}: left out because no text side of this teacher is known; those of "
            f"{', '.join(TEACHERS)} are"
        )
    if source is None and known.source is None:
        raise RadioCheckpointError(
            f"text tower of adaptor {label!r}: left out because {known.instead}; pass `source`, a folder with the same "
            "model in transformers' format"
        )
    return str(known.source if source is None else source)


def _text_config(config: Any) -> Any:
    """The text half of a config. CLIP's whole checkpoints keep the width of the projection outside of it."""
    text = getattr(config, "text_config", config)
    if config.model_type == "clip":
        text.projection_dim = config.projection_dim
    return text


def _text_alone(model_class: type) -> type:
    """The class, told that a whole checkpoint's picture half is none of its business."""
    return type(model_class.__name__, (model_class,), {"_keys_to_ignore_on_load_unexpected": OTHER_HALF})


def _file(source: str, name: str, local_files_only: bool = True) -> str | None:
    return cached_file(
        source,
        name,
        local_files_only=local_files_only,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _load_tokenizer(source: str, local_files_only: bool) -> Any:
    """`tokenizer.json` as it is where there is one: the classes that some configs name rebuild it, and drop what it
    says of padding and end tokens."""
    exact = _file(source, "tokenizer.json", local_files_only)
    loader = PreTrainedTokenizerFast if exact else AutoTokenizer
    return loader.from_pretrained(source, local_files_only=local_files_only)
