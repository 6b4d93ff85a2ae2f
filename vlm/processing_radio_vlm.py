"""The processor: messages or tagged text plus images and videos -> everything the model's forward takes.

Placeholder counts come from the projector's own `num_tokens`, so they equal the features by construction. A sample is
never cut: what does not fit, does not match or has nothing to learn from is a `SampleError` that names it.
"""

import re

import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from projectors.components import num_tokens, static_source
from vlm.chat import (
    CHATML_TEMPLATE,
    GENERATION_TAG,
    LITERAL,
    MEDIA,
    SENTINEL,
    ControlGuard,
    Conversation,
    MediaItem,
    control_strings,
    flatten,
    render,
    takes_strings,
)
from vlm.collate import collate
from vlm.errors import SampleError
from vlm.fingerprint import geometry_fingerprint
from vlm.geometry import plan_image
from vlm.label_mask import assistant_spans, family_markers, find_family, spans_by_growth
from vlm.prompt_media import prepare_media
from vlm.prompt_tokens import TextEncoder, lay_out
from vlm.self_contained import SelfContainedMixin
from vlm.tagged_text import split_tags

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
DEFAULT_PROJECTOR = {"type": "pixel_shuffle", "downsample": 2, "ps_version": "v2"}
DEFAULT_VIDEO = {"max_frames": 8, "fps": 2.0, "temporal_patch_size": 1, "max_num_patches": None, "frame_labels": True}
DEFAULT_TOKENS = {"image": "<image>", "video": "<video>", "image_start": "<img>", "image_end": "</img>"}


class RadioVLMProcessor(SelfContainedMixin, ProcessorMixin):
    """Combines `RadioVLMImageProcessor` with any tokenizer.

    Args:
        image_processor: Resizes and cuts images and frames.
        tokenizer: Should know the strings of `special_tokens`; without a `<video>` token frames use the image's.
        chat_template: Jinja source; default: the tokenizer's own, else ChatML.
        projector_config: The model's; decides how many placeholders a grid becomes.
        video: max_frames, fps (sampling of files), temporal_patch_size (frames a tubelet), max_num_patches (a frame's
            budget) and frame_labels (False: no "Frame 1 sampled at ..." text, for tiny models).
        special_tokens: Strings for the roles image, video, image_start, image_end.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        chat_template=None,
        projector_config=None,
        video=None,
        special_tokens=None,
    ):
        if chat_template is None:
            chat_template = getattr(tokenizer, "chat_template", None) or CHATML_TEMPLATE
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.projector_config = dict(projector_config or DEFAULT_PROJECTOR)
        self.video = {**DEFAULT_VIDEO, **(video or {})}
        known = {role: token for role, token in (special_tokens or {}).items() if role in DEFAULT_TOKENS}
        self.special_tokens = {**DEFAULT_TOKENS, **known}
        self._cache: dict = {}

    # ---- tokens -------------------------------------------------------------------------------------------------

    def _token_id(self, role: str) -> int | None:
        """The id of a role's token, looked up by string; None when the tokenizer has no such token."""
        token_id = self.tokenizer.convert_tokens_to_ids(self.special_tokens[role])
        return None if token_id is None or token_id == self.tokenizer.unk_token_id else int(token_id)

    @property
    def image_token_id(self) -> int:
        """Id of the image placeholder."""
        token_id = self._token_id("image")
        if token_id is None:
            raise ValueError(f"the tokenizer has no token {self.special_tokens['image']!r}: add it (vlm.build does)")
        return token_id

    @property
    def video_token_id(self) -> int:
        """Id of the video placeholder: the image's when the tokenizer has none of its own (as NVIDIA's)."""
        token_id = self._token_id("video")
        return self.image_token_id if token_id is None else token_id

    @property
    def image_token(self) -> str:
        """String of the image placeholder."""
        return self.special_tokens["image"]

    @property
    def video_token(self) -> str:
        """String of the video placeholder that the prompt really uses."""
        return self.special_tokens["image" if self._token_id("video") is None else "video"]

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids that end an answer: the tokenizer's eos, and the template's end of turn where that is one token."""
        family = find_family(self.chat_template)
        marker = (family.end if family else None) or self.tokenizer.eos_token
        ids = [self.tokenizer.convert_tokens_to_ids(text) for text in (self.tokenizer.eos_token, marker) if text]
        return sorted({int(i) for i in ids if i is not None and i != self.tokenizer.unk_token_id})

    @property
    def fingerprint(self) -> str:
        """What model and processor must agree on; see `vlm.fingerprint`."""
        ids = {"image": self.image_token_id, "video": self.video_token_id}
        return geometry_fingerprint(self.image_processor.geometry, self.projector_config, self.video, ids)

    @property
    def model_input_names(self) -> list[str]:
        """Every key a batch of this processor may have."""
        media = ["pixel_values", "image_grid_hw", "pixel_values_videos", "video_grid_thw"]
        return ["input_ids", "attention_mask", "mm_token_type_ids", *media]

    def num_image_tokens(self, height: int, width: int) -> int:
        """How many placeholders an image of `height` x `width` pixels becomes."""
        return num_tokens(self.projector_config, *plan_image(height, width, self.image_processor.geometry))

    def _template_state(self, chat_template: str) -> dict:
        """Per template: family, guard, encoder, probes. Recomputed when the tokenizer's vocabulary or tokens change."""
        tokenizer = self.tokenizer
        key = (chat_template, len(tokenizer), tuple(self.special_tokens.values()), id(tokenizer))
        state = self._cache.get(key)
        if state is None:
            # templates add these to strings; a tokenizer without one has an empty one
            variables = {"bos_token": "", "eos_token": "", **tokenizer.special_tokens_map}
            family = find_family(chat_template)
            markers = family_markers(family, tokenizer.eos_token)
            control = control_strings(tokenizer, chat_template, (*markers, *self.special_tokens.values()))
            wrap = [self._token_id(role) is not None for role in ("image_start", "image_end")]
            start, end = (
                (self.special_tokens["image_start"], self.special_tokens["image_end"]) if all(wrap) else ("", "")
            )
            state = {
                "family": family,
                "guard": ControlGuard(control),
                "encoder": TextEncoder(tokenizer, control),
                "as_items": not takes_strings(chat_template, variables),
                "chunks": {"image": start + self.image_token + end, "video": start + self.video_token + end},
                "ids": {"image": self.image_token_id, "video": self.video_token_id},
                "variables": variables,
                "has_tags": bool(GENERATION_TAG.search(chat_template)),
            }
            self._cache = {key: state} if len(self._cache) > 8 else {**self._cache, key: state}
        return state

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_cache": {}}

    def remote_code_parts(self) -> dict[str, str]:
        """The static stand-in for the projector search, for checkpoints that carry their code."""
        return {"components.py": static_source(self.projector_config["type"])}

    def to_dict(self) -> dict:
        """As ProcessorMixin's; the caches of compiled templates are no part of the checkpoint."""
        kept, self._cache = self._cache, {}
        try:
            return super().to_dict()
        finally:
            self._cache = kept

    def _prepare_media(self, media: list[MediaItem], state: dict, dtype: torch.dtype):
        return prepare_media(
            media, self.image_processor, self.projector_config, self.video, state["chunks"], state["ids"], dtype
        )

    # ---- one sample ---------------------------------------------------------------------------------------------

    def encode(
        self,
        messages: list[dict],
        add_generation_prompt: bool = False,
        max_length: int | None = None,
        sample_id: object = None,
        pixel_dtype: torch.dtype = torch.float32,
        return_labels: bool | None = None,
        chat_template: str | None = None,
        **template_variables,
    ) -> dict[str, torch.Tensor]:
        """One conversation -> unbatched tensors.

        Args:
            messages: `[{"role", "content": str or [{"type": "text"|"image"|"video", ...}]}]`.
            max_length: In tokens after expansion; a longer sample is an error, never cut.
            pixel_dtype: `torch.uint8` keeps pixels as 0..255 (for caches; `collate` converts; rounding <= 0.5/255).
            return_labels: Default: unless `add_generation_prompt`.
            template_variables: Seen by the template, e.g. `enable_thinking`.

        Returns:
            input_ids (L,), mm_token_type_ids (L,), labels (L,) with -100 off the assistant's words, and when present
            pixel_values (N, C*P*P), image_grid_hw (I, 2), pixel_values_videos (M, T*C*P*P), video_grid_thw (V, 3).

        Raises:
            SampleError: reasons no_labels, too_long, bad_message, media_dropped, no_media and those of the media.
        """
        try:
            chat_template = chat_template or self.chat_template
            want_labels = not add_generation_prompt if return_labels is None else return_labels
            state = self._template_state(chat_template)
            variables = {**state["variables"], "add_generation_prompt": add_generation_prompt, **template_variables}
            chat = flatten(messages, state["guard"])
            chat.messages = _with_thinking_switch(
                chat.messages, chat_template, template_variables.get("enable_thinking")
            )
            rendered = render(chat, chat_template, state["as_items"], want_labels and state["has_tags"], variables)
            spans = rendered.spans
            if want_labels and not state["has_tags"]:
                spans = self._family_spans(rendered.text, chat, chat_template, state, variables)
            prompts, tensors = self._prepare_media(chat.media, state, pixel_dtype)
            ids, types, labels = lay_out(rendered.text, spans, chat.literals, prompts, state["encoder"])
            if max_length is not None and len(ids) > max_length:
                message = (
                    f"{len(ids)} tokens do not fit max_length={max_length}; raise it, or use fewer or smaller media"
                )
                raise SampleError(message, reason="too_long")
            encoded = {"input_ids": torch.tensor(ids), "mm_token_type_ids": torch.tensor(types), **tensors}
            if want_labels:
                encoded["labels"] = torch.tensor(labels)
                if return_labels is None and bool((encoded["labels"] == -100).all()):
                    shown = self._readable(rendered.text, chat)
                    shown = shown if len(shown) < 300 else shown[:300] + "…"
                    raise SampleError(f"no assistant words to learn from in {shown!r}", reason="no_labels")
            return encoded
        except SampleError as error:
            if error.sample_id is None and sample_id is not None:
                error.sample_id = str(sample_id)
            raise

    def _family_spans(self, text: str, chat, chat_template: str, state: dict, variables: dict) -> list[tuple[int, int]]:
        """Spans from the turn table; for an unknown family from how the rendering grows with each turn."""
        if state["family"] is not None:
            turns = [
                (message["content"], any(message.get(name) for name in REASONING_FIELDS))
                for message in chat.messages
                if message["role"] == "assistant"
            ]
            return assistant_spans(text, state["family"], self.tokenizer.eos_token, turns)

        def rendering(count: int, prompt: bool) -> str:
            part = Conversation(chat.messages[:count])
            part.media = [None] * sum(ord(c) >= MEDIA for m in part.messages for c in m["content"])
            return render(
                part, chat_template, state["as_items"], False, {**variables, "add_generation_prompt": prompt}
            ).text

        turns = [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
        return spans_by_growth([(rendering(i, True), rendering(i + 1, False)) for i in turns], text)

    def collate(self, encoded: list[dict], padding_side: str = "right") -> dict:
        """Samples of `encode` -> one padded batch; with media it also names the `geometry_fingerprint`."""
        pad_id = self.tokenizer.pad_token_id
        if pad_id is None:
            pad_id = self.tokenizer.eos_token_id or 0
        batch = collate(encoded, pad_id, padding_side)
        if "pixel_values" in batch or "pixel_values_videos" in batch:
            batch["geometry_fingerprint"] = self.fingerprint  # the model compares it with its own, once
        return batch

    # ---- the transformers surface -------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        conversation: list,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str | None = "pt",
        return_labels: bool = False,
        padding_side: str | None = None,
        max_length: int | None = None,
        processor_kwargs: dict | None = None,
        enable_thinking: bool | None = None,
        padding: object = None,
        truncation: object = None,
        **variables,
    ):
        """One conversation or a list of them -> a batch (`tokenize=True`) or the prompt text.

        `padding_side` defaults to left before generation, else right. `padding` and `truncation` are accepted and
        ignored: a batch is always padded to its longest member, and nothing is ever cut.
        """
        is_batch = len(conversation) > 0 and isinstance(conversation[0], (list, tuple))
        batch = conversation if is_batch else [conversation]
        options = {**(processor_kwargs or {})}
        max_length = max_length or options.get("max_length")
        padding_side = padding_side or options.get("padding_side")
        if enable_thinking is not None:
            variables["enable_thinking"] = enable_thinking
        if not tokenize:
            texts = [self._plain_text(m, chat_template, add_generation_prompt, variables) for m in batch]
            return texts if is_batch else texts[0]
        encoded = [
            self.encode(
                messages,
                add_generation_prompt,
                max_length,
                chat_template=chat_template,
                return_labels=return_labels,
                **variables,
            )
            for messages in batch
        ]
        continues = add_generation_prompt or variables.get("continue_final_message")
        out = BatchFeature(self.collate(encoded, padding_side or ("left" if continues else "right")))
        return out if return_dict else out["input_ids"]

    def _plain_text(self, messages: list[dict], chat_template: str | None, prompt: bool, variables: dict) -> str:
        """The rendered prompt with one tag an item, as other software prints it."""
        chat_template = chat_template or self.chat_template
        state = self._template_state(chat_template)
        variables = {**state["variables"], "add_generation_prompt": prompt, **variables}
        chat = flatten(messages, state["guard"])
        chat.messages = _with_thinking_switch(chat.messages, chat_template, variables.get("enable_thinking"))
        return self._readable(render(chat, chat_template, state["as_items"], False, variables).text, chat)

    def _readable(self, text: str, chat: Conversation) -> str:
        """A rendered prompt with literals back in place and one tag for each media item."""

        def shown(match: re.Match) -> str:
            code = ord(match[0])
            return (
                self.special_tokens[chat.media[code - MEDIA].kind] if code >= MEDIA else chat.literals[code - LITERAL]
            )

        return SENTINEL.sub(shown, text)

    def __call__(
        self,
        images=None,
        text=None,
        videos=None,
        video_timestamps: list | None = None,
        return_tensors: str | None = "pt",
        padding_side: str | None = None,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        **kwargs,
    ) -> BatchFeature:
        """Text in which `<image>` and `<video>` are tags, with exactly as many images and videos.

        Args:
            images: One image, a flat list (dealt out to the texts in order) or one list a text.
            videos: Likewise; a video is a path, a list of frames or a (T, 3, H, W) tensor.
            video_timestamps: Seconds of each frame, one list a video.
            padding_side: Default: the tokenizer's.
            add_special_tokens: Put the tokenizer's own bos and eos around each text that does not start with bos.

        Raises:
            SampleError: `tag_mismatch` when tags and media differ in number.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        if not texts:
            raise ValueError("text is needed: a string or a list of strings with <image> / <video> tags")
        state = self._template_state(self.chat_template)
        pieces = split_tags(texts, images, videos, video_timestamps, self.special_tokens)
        before, behind = state["encoder"].affixes() if add_special_tokens else ([], [])
        encoded = []
        for piece, media in pieces:
            prompts, tensors = self._prepare_media(media, state, torch.float32)
            ids, types, _ = lay_out(piece, None, [], prompts, state["encoder"])
            if before != ids[: len(before)] or not before:
                ids, types = [*before, *ids, *behind], [0] * len(before) + types + [0] * len(behind)
            if max_length is not None and len(ids) > max_length:
                raise SampleError(f"{len(ids)} tokens do not fit max_length={max_length}", reason="too_long")
            encoded.append({"input_ids": torch.tensor(ids), "mm_token_type_ids": torch.tensor(types), **tensors})
        return BatchFeature(self.collate(encoded, padding_side or self.tokenizer.padding_side))

    def post_process_image_text_to_text(
        self, generated_outputs, skip_special_tokens: bool = True, **kwargs
    ) -> list[str]:
        """Generated ids (B, L) -> texts."""
        return self.tokenizer.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)


def _with_thinking_switch(messages: list[dict], chat_template: str, enable_thinking: bool | None) -> list[dict]:
    """For templates steered by `/think` and `/no_think` in the text (Nemotron Nano v2), not by a variable."""
    if enable_thinking is None or "/no_think" not in chat_template:
        return messages
    switch = "/think" if enable_thinking else "/no_think"
    if messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']} {switch}"}, *messages[1:]]
    return [{"role": "system", "content": switch}, *messages]
