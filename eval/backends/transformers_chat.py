"""Any image-text-to-text model of transformers, so that peers can be run side by side with ours; also text-only models.

Prompts are written by the checkpoint's own chat template and turned into tensors by its own processor, a batch at a
time, padded on the left. Pictures and frames are opened by our readers, so that all models are shown the same.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from eval.backends.base import Backend, Batch, Decoding, Encoded, Messages, RefusedError, Reply
from eval.backends.chat_prompt import ChatPrompt
from eval.backends.open_media import Clip, FrameSampling, frames_as_images, media_of, open_media
from eval.backends.radio import collapse_repeats
from eval.backends.stopping import FirstToken, TextStop, stop_token_ids, without_padding
from eval.backends.yes_no import Forced, Tokens, YesNo, weigh

CHARACTERS_A_TOKEN = 4  # an estimate, for sorting
PIXELS_A_TOKEN = 28 * 28  # likewise; no more than TOKENS_A_PICTURE
TOKENS_A_PICTURE = 2048
MILLISECONDS = 1000


@dataclass
class Asked:
    """A prompt before its processor has seen it."""

    text: str
    images: list[Image.Image]
    clips: list[Clip]


class TransformersBackend(Backend):
    """A model and its processor; with a tokenizer in place of the processor the text-only baseline."""

    name = "transformers"

    def __init__(self, model: Any, processor: Any, fingerprint: str | None = None) -> None:
        """Raises ValueError where nothing says which token ends an answer."""
        self.model, self.its_processor, self.fingerprint = model.eval(), processor, fingerprint
        self.processor = FrameSampling()
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.stop_ids = stop_token_ids(model, processor)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(
                self.stop_ids[0]
            )
        self.tokenizer.padding_side = "left"  # what follows the padding of the right would be answered
        self.prompt = ChatPrompt(processor)
        self.sees = getattr(processor, "image_processor", None) is not None
        self.watches = getattr(processor, "video_processor", None) is not None
        self.media_ids = media_token_ids(model.config) or media_token_ids(processor)

    @property
    def on_cpu(self) -> bool:
        return self.model.device.type == "cpu"

    def check(self, media_kinds: set[str]) -> None:
        if media_kinds and not self.sees:
            raise RefusedError(
                f"{type(self.model).__name__} came without an image processor and reads text only: ask with --blind "
                "for the text-only baseline"
            )

    def encode(self, messages: Messages, sample_id: str) -> Encoded:
        asked = self._asked(messages)
        sizes = [image.size for image in asked.images] + [frame.size for c in asked.clips for frame in c.frames]
        shown = sum(min(width * height // PIXELS_A_TOKEN, TOKENS_A_PICTURE) for width, height in sizes)
        return Encoded(
            data=asked,
            length=len(asked.text) // CHARACTERS_A_TOKEN + shown,
            nbytes=3 * sum(width * height for width, height in sizes),
            prompt=asked.text,
        )

    def _asked(self, messages: Messages) -> Asked:
        opened = open_media(messages, self.processor.video)
        if not self.watches:
            opened = frames_as_images(opened)
        images, clips = media_of(opened, "image"), media_of(opened, "video")
        self.check({"image"} if images or clips else set())
        return Asked(self.prompt.text(opened), images, clips)

    def generate(self, batch: list[Encoded], decoding: Decoding, **how: Any) -> Batch:
        """`how`: further arguments of the model's `generate`, for callers that sample or stream."""
        replies: dict[int, Reply] = {}
        prefill: float | None = 0.0
        for places in alike(batch):
            part = self._generate_alike([batch[place] for place in places], decoding, how)
            replies |= zip(places, part.replies)
            prefill = None if prefill is None or part.prefill_seconds is None else prefill + part.prefill_seconds
        return Batch([replies[place] for place in range(len(batch))], prefill)

    def yes_no(self, batch: list[Encoded]) -> list[YesNo]:
        found: dict[int, YesNo] = {}
        for places in alike(batch):
            inputs = self._inputs([batch[place].data for place in places])

            @torch.no_grad()
            def write(tokens: Tokens, inputs: dict[str, Any] = inputs) -> torch.Tensor:
                return torch.stack(self._written(inputs, tokens), dim=1)

            found |= zip(places, weigh(write, self.tokenizer))
        return [found[place] for place in range(len(batch))]

    def _written(self, inputs: dict[str, Any], tokens: Tokens) -> tuple[torch.Tensor, ...]:
        """Logits (B, V) before each of the tokens, which are forced through `generate`: weighed as they would be
        written, whatever the model's attention does with a prefix."""
        return self.model.generate(
            **inputs, **Forced(tokens).how(), eos_token_id=self.stop_ids, pad_token_id=self.tokenizer.pad_token_id,
            **GREEDY,
        ).logits  # fmt: skip

    def _generate_alike(self, batch: list[Encoded], decoding: Decoding, how: dict[str, Any]) -> Batch:
        started = time.perf_counter()
        inputs = self._inputs([one.data for one in batch])
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        first = FirstToken()
        criteria = [first, TextStop(decoding, self.decode, ids.shape[1])] if decoding.stop else [first]
        with torch.no_grad():
            output = self.model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                eos_token_id=self.stop_ids,
                pad_token_id=self.tokenizer.pad_token_id,
                stopping_criteria=criteria,
                **(GREEDY | how),
            )
        replies = []
        for place, new in enumerate(new_tokens(output, ids).tolist()):
            asked = ids[place][mask[place]]
            batch[place].prompt = collapse_repeats(self.tokenizer.decode(asked.tolist()))
            media = sum(int((asked == token).sum()) for token in self.media_ids)
            replies.append(self._reply(new, decoding, len(asked), media))
        return Batch(replies, first.at - started if first.at else None)

    def _reply(self, new: list[int], decoding: Decoding, prompt_tokens: int, media_tokens: int) -> Reply:
        end = next((place for place, token in enumerate(new) if token in self.stop_ids), None)
        new = new if end is None else new[:end]
        text, cut = decoding.cut(self.decode(new))
        new = without_padding(new, self.tokenizer.pad_token_id) if cut else new
        return Reply(
            text.strip(), prompt_tokens=prompt_tokens, media_tokens=media_tokens, tokens=len(new),
            stopped=cut or end is not None,
        )  # fmt: skip

    def decode(self, ids: list[int]) -> str:
        """As the harnesses do for other people's models: without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _inputs(self, asked: list[Asked]) -> dict[str, Any]:
        """The tensors of a batch, on the model's device. Raises ValueError where the processor pads on the right."""
        texts = [one.text for one in asked]
        if self.its_processor is self.tokenizer:
            has_template = self.tokenizer.chat_template is not None  # which writes the first token itself
            inputs = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=not has_template)
            inputs.pop("token_type_ids", None)
        else:
            media: dict[str, Any] = {}
            if asked[0].images:
                media["images"] = [one.images for one in asked]
            if clips := [clip for one in asked for clip in one.clips]:
                media["videos"] = [np.stack([np.asarray(frame) for frame in clip.frames]) for clip in clips]
                media |= {"video_metadata": [metadata_of(clip) for clip in clips], "do_sample_frames": False}
            inputs = self.its_processor(
                text=texts, padding=True, padding_side="left", return_tensors="pt",
                **self._special_tokens(texts), **media,
            )  # fmt: skip
            inputs.pop("labels", None)  # PaliGemma's processor writes some for training
        if not bool(inputs["attention_mask"][:, -1].all()):
            raise ValueError(f"{type(self.its_processor).__name__} pads prompts on the right; nothing can follow there")
        dtype = self.model.dtype
        return {
            key: value.to(self.model.device, dtype if value.is_floating_point() else None)
            if torch.is_tensor(value)
            else value
            for key, value in inputs.items()
        }

    def _special_tokens(self, texts: list[str]) -> dict[str, bool]:
        """A template that wrote the first token is not to get a second one, as in transformers' own chat templates."""
        bos = self.tokenizer.bos_token
        return {"add_special_tokens": False} if bos and all(text.startswith(bos) for text in texts) else {}

    def describe(self) -> dict[str, Any]:
        from eval.results import describe_model

        about = describe_model(self.model, self.its_processor)
        configured = (
            self.model.generation_config.to_diff_dict()
        )  # a repetition penalty, say, acts on greedy answers too
        configured.pop("transformers_version", None)
        return {
            **about,
            "video": {**self.processor.video, "given_as": "video" if self.watches else "images with times"},
            "prompt_form": self.prompt.form,
            "generation_config": configured,
            "fingerprint": self.fingerprint,
        }

    def answer_probability(self, messages: Messages) -> tuple[float, int]:
        """As in the base. The end-of-turn token counts."""
        words = "".join(item["text"] for item in open_media(messages[-1:], self.processor.video)[0]["content"])
        answer = self.tokenizer(words.strip(), add_special_tokens=False)["input_ids"] + self.stop_ids[:1]
        with torch.no_grad():
            written = self._written(self._inputs([self._asked(messages[:-1])]), tuple(answer))
        logits = torch.stack(written, dim=1)[0].float()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer, device=logits.device))
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"a loss of {float(loss)} over {len(answer)} tokens of an answer")
        return float(torch.exp(-loss)), len(answer)


def alike(batch: list[Encoded]) -> list[list[int]]:
    """Places of a batch that may be put to a processor at once.

    Processors want media for all texts of a call or for none, and clips of one length: they stack them, or fill the
    shorter ones up, and then an answer would depend on its neighbours.
    """
    groups: dict[tuple[bool, frozenset[int]], list[int]] = defaultdict(list)
    for place, one in enumerate(batch):
        groups[bool(one.data.images), frozenset(len(clip.frames) for clip in one.data.clips)].append(place)
    return list(groups.values())


def media_token_ids(part: Any) -> list[int]:
    """Ids of the placeholders of images and videos that a config or processor names."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    ids = [getattr(part, name, None) for name in names]
    return sorted({one for one in ids if isinstance(one, int)})


# What a generation config says of sampling means nothing to greedy decoding, and is warned of otherwise.
GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}


def new_tokens(output: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """What was generated: encoder-decoders, and models that generate from embeddings, return no prompt before it."""
    width = ids.shape[1]
    return output[:, width:] if output.shape[1] >= width and bool((output[:, :width] == ids).all()) else output


def metadata_of(clip: Clip) -> dict[str, Any]:
    """A clip's times in the form of transformers' VideoMetadata: frames of a video of 1000 frames a second."""
    times = clip.timestamps or [float(second) for second in range(len(clip.frames))]
    indices = [round(time * MILLISECONDS) for time in times]
    step = (indices[-1] - indices[0]) / (len(indices) - 1) if len(indices) > 1 else MILLISECONDS
    total = max(indices[-1] + 1, round(len(indices) * step))
    width, height = clip.frames[0].size
    return {
        "total_num_frames": total, "fps": float(MILLISECONDS), "frames_indices": indices,
        "duration": total / MILLISECONDS, "width": width, "height": height,
    }  # fmt: skip
