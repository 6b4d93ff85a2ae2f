"""The processor: messages or tagged text plus images and videos -> everything the model's forward takes.

Placeholder counts come from the projector's own `num_tokens`, so they equal the features by construction. A sample is
never cut: what does not fit, does not match or has nothing to learn from is a `SampleError` that names it.
"""

import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from projectors.components import num_tokens, static_source
from vlm.chat import CHATML_TEMPLATE, Conversation
from vlm.collate import MEDIA_KEYS, collate, collate_packed
from vlm.errors import SampleError
from vlm.evs import check_places, check_pruning_rate, kept_tokens, spread_tokens
from vlm.fingerprint import geometry_fingerprint
from vlm.geometry import Size, plan_prompt
from vlm.prompt_documents import expand_documents
from vlm.prompt_media import prepare_media
from vlm.prompt_tokens import lay_out
from vlm.prompt_volumes import expand_volumes
from vlm.prompt_writer import Prompt, PromptWriter, token_id
from vlm.self_contained import SelfContainedMixin
from vlm.tagged_text import split_tags
from vlm.video_layout import thin_sample
from vlm.video_settings import check_video

DEFAULT_PROJECTOR = {"type": "pixel_shuffle", "downsample": 2, "ps_version": "v2"}
DEFAULT_TOKENS = {"image": "<image>", "video": "<video>", "image_start": "<img>", "image_end": "</img>"}


class RadioVLMProcessor(SelfContainedMixin, ProcessorMixin):
    """Combines `RadioVLMImageProcessor` with any tokenizer.

    Args:
        image_processor: Resizes and cuts images and frames.
        tokenizer: Should know the strings of `special_tokens`; without a `<video>` token frames use the image's.
        chat_template: Jinja source; default: the tokenizer's own, else ChatML.
        projector_config: The model's; decides how many placeholders a grid becomes.
        video: max_frames, fps (sampling of files), temporal_patch_size (frames a tubelet), max_num_patches (a frame's
            budget), frame_labels (False: no "Frame 1 sampled at ..." text, for tiny models), temporal_pool (so many
            frames or tubelets are averaged) and pruning_rate (share of video tokens left out, see `vlm.evs`).
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
        self.video = check_video(video, self.projector_config)
        known = {role: token for role, token in (special_tokens or {}).items() if role in DEFAULT_TOKENS}
        self.special_tokens = {**DEFAULT_TOKENS, **known}
        self._writers: dict[tuple, PromptWriter] = {}

    @classmethod
    def _load_tokenizer_from_pretrained(cls, *args, **kwargs):
        """As in transformers; code that a tokenizer names never inherits the trust given to this checkpoint."""
        return super()._load_tokenizer_from_pretrained(*args, **{**kwargs, "trust_remote_code": False})

    # ---- tokens -------------------------------------------------------------------------------------------------

    @property
    def image_token_id(self) -> int:
        """Id of the image placeholder, looked up by string."""
        return self._writer().token_ids["image"]

    @property
    def video_token_id(self) -> int:
        """Id of the video placeholder: the image's when the tokenizer has none of its own (as NVIDIA's)."""
        return self._writer().token_ids["video"]

    @property
    def image_token(self) -> str:
        """String of the image placeholder."""
        return self.special_tokens["image"]

    @property
    def stop_token_ids(self) -> list[int]:
        """Ids that end an answer: the tokenizer's eos, and the template's end of turn where that is one token."""
        family = self._writer().family
        ends = {self.tokenizer.eos_token, family.end if family else None} - {None}
        return sorted({found for text in ends if (found := token_id(self.tokenizer, text)) is not None})

    @property
    def fingerprint(self) -> str:
        """What model and processor must agree on; see `vlm.fingerprint`."""
        token_ids = self._writer().token_ids
        return geometry_fingerprint(self.image_processor.geometry, self.projector_config, self.video, token_ids)

    @property
    def model_input_names(self) -> list[str]:
        """Every key a batch of this processor may have."""
        return ["input_ids", "attention_mask", "mm_token_type_ids", *MEDIA_KEYS]

    def num_image_tokens(self, height: int, width: int) -> int:
        """How many placeholders an image of `height` x `width` pixels becomes when it is alone in its prompt."""
        plan = plan_prompt([Size(height, width)], self.image_processor.geometry, self.video).plans[0]
        return sum(num_tokens(self.projector_config, *grid) for grid in plan.maps)

    def _expand(self, messages: list[dict]) -> list[dict]:
        """Documents as pages, volumes as slices (within the tokens that an item allows)."""
        return expand_volumes(expand_documents(messages), self.num_image_tokens)

    def set_pruning_rate(self, rate: float) -> None:
        """Leave out this share of the tokens of every video from now on; needs no other model or weights.

        Raises:
            ValueError: no share in [0, 1), or a projector whose tokens have no fixed places.
        """
        check_places(self.projector_config, check_pruning_rate(rate), self.video["temporal_pool"])
        self.video = {**self.video, "pruning_rate": float(rate)}

    def prune_videos(self, encoded: dict, rate: float) -> dict:
        """A sample of `encode` whose videos are whole -> the same with a share `rate` of their placeholders left out.

        Adds `video_num_tokens` (V,): how many tokens of each video the model keeps. Which ones, and so where in the
        prompt they stand, is its choice; see `vlm.evs` and `vlm.video_layout`. Samples without a video pass through.

        Raises:
            ValueError: no share in [0, 1), or a projector whose tokens have no fixed places.
        """
        if "video_grid_thw" not in encoded:
            return encoded
        rate = check_pruning_rate(rate)
        check_places(self.projector_config, rate, self.video["temporal_pool"])
        full, kept = [], []
        for frames, grid_h, grid_w in encoded["video_grid_thw"].tolist():
            groups = -(-frames // self.video["temporal_pool"])
            count = num_tokens(self.projector_config, grid_h, grid_w)
            full.append([count] * groups)
            kept.append(spread_tokens(groups, count, kept_tokens(groups, count, rate)))
        return thin_sample(encoded, full, kept)

    def _writer(self, chat_template: str | None = None) -> PromptWriter:
        """What belongs to a template (source or name; default: the processor's own), kept until tokens change."""
        known = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        source = known.get(chat_template or "default", chat_template)
        if source is None:
            raise ValueError(f"the chat template named 'default' is missing; there are: {', '.join(known)}")
        key = (source, len(self.tokenizer), tuple(self.special_tokens.values()), id(self.tokenizer))
        writer = self._writers.get(key)
        if writer is None:
            writer = PromptWriter(self.tokenizer, source, dict(self.special_tokens))
            self._writers = {key: writer} if len(self._writers) > 8 else {**self._writers, key: writer}
        return writer

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_writers": {}}

    def remote_code_parts(self) -> dict[str, str]:
        """The static stand-in for the projector search, for checkpoints that carry their code."""
        return {"components.py": static_source(self.projector_config["type"])}

    def to_dict(self) -> dict:
        """As ProcessorMixin's; what was worked out for templates is no part of the checkpoint."""
        kept, self._writers = self._writers, {}
        try:
            return super().to_dict()
        finally:
            self._writers = kept

    # ---- one sample ---------------------------------------------------------------------------------------------

    def encode(
        self,
        messages: list[dict],
        add_generation_prompt: bool = False,
        max_length: int | None = None,
        sample_id: object = None,
        pixel_dtype: torch.dtype | None = torch.float32,
        return_labels: bool | None = None,
        chat_template: str | None = None,
        pruning_rate: float | None = None,
        **template_variables,
    ) -> dict[str, torch.Tensor]:
        """One conversation -> unbatched tensors.

        Args:
            messages: `[{"role", "content": str or [{"type": "text"|"image"|"video", ...}]}]`.
            max_length: In tokens after expansion; a longer sample is an error, never cut.
            pixel_dtype: `torch.uint8` keeps pixels as 0..255 (for caches; `collate` converts; rounding <= 0.5/255);
                None: see `encode_text`.
            return_labels: Default: unless `add_generation_prompt`.
            pruning_rate: Share of video tokens left out; default: `video["pruning_rate"]`.
            template_variables: Seen by the template, e.g. `enable_thinking`.

        Returns:
            input_ids (L,), mm_token_type_ids (L,), labels (L,) with -100 off the assistant's words, and when present
            pixel_values (N, C*P*P), image_grid_hw (maps, 2: one a tile), pixel_values_videos (M, T*C*P*P),
            video_grid_thw (V, 3), video_num_tokens (V,).

        Raises:
            SampleError: reasons no_labels, too_long, bad_message, media_dropped, no_media, too_many_patches and those
                of the media.
        """
        want_labels = not add_generation_prompt if return_labels is None else return_labels
        variables = {"add_generation_prompt": add_generation_prompt, **template_variables}
        try:
            writer = self._writer(chat_template)
            prompt = writer.write(self._expand(messages), want_labels, variables)
            encoded = self._encode(prompt, writer, pixel_dtype, sample_id, pruning_rate)
            self._check_length(encoded, max_length)
            if not want_labels:
                del encoded["labels"]
            elif return_labels is None and bool((encoded["labels"] == -100).all()):
                shown = writer.readable(prompt)
                shown = shown if len(shown) < 300 else shown[:300] + "…"
                raise SampleError(f"no assistant words to learn from in {shown!r}", reason="no_labels")
            return encoded
        except SampleError as error:
            if error.sample_id is None and sample_id is not None:
                error.sample_id = str(sample_id)
            raise

    def encode_text(self, messages: list[dict], **options) -> dict[str, torch.Tensor]:
        """What `encode` returns, without the pixels: pictures are measured by their headers and not decoded (video
        files are, since what a header says of their frames is often wrong).

        Args and errors: those of `encode`, except damage that shows only in decoding.
        """
        return self.encode(messages, **{**options, "pixel_dtype": None})

    def num_tokens(self, messages: list[dict], **options) -> int:
        """The length of what `encode` returns for the same arguments; see `encode_text`."""
        return len(self.encode_text(messages, **options)["input_ids"])

    def _encode(
        self,
        prompt: Prompt,
        writer: PromptWriter,
        dtype: torch.dtype | None,
        sample_id: object = None,
        pruning_rate: float | None = None,
    ) -> dict[str, torch.Tensor]:
        """A prompt with sentinels -> tensors, labels included; opens its media (dtype None: their headers)."""
        prompts, tensors = prepare_media(
            prompt.chat.media,
            self.image_processor,
            self.projector_config,
            self.video,
            writer.chunks,
            writer.token_ids,
            dtype,
            sample_id,
        )
        rows = lay_out(prompt.text, prompt.spans, prompt.chat.literals, prompts, writer.encoder)
        names = ("input_ids", "mm_token_type_ids", "labels")
        encoded = {**{name: torch.tensor(row, dtype=torch.long) for name, row in zip(names, rows)}, **tensors}
        return self.prune_videos(encoded, self.video["pruning_rate"] if pruning_rate is None else pruning_rate)

    @staticmethod
    def _check_length(encoded: dict, max_length: int | None) -> None:
        length = len(encoded["input_ids"])
        if max_length is not None and length > max_length:
            message = f"{length} tokens do not fit max_length={max_length}: raise it, or use fewer or smaller media"
            raise SampleError(message, reason="too_long")

    def collate(self, encoded: list[dict], padding_side: str = "right") -> dict:
        """Samples of `encode` -> one padded batch; with media it also names the `geometry_fingerprint`."""
        return self._marked(collate(encoded, self._pad_id(), padding_side))

    def collate_packed(self, rows: list[list[dict]]) -> dict:
        """Rows of samples of `encode` -> one batch of packed rows, see `vlm.collate.collate_packed`."""
        return self._marked(collate_packed(rows, self._pad_id()))

    def _pad_id(self) -> int:
        pad_id = self.tokenizer.pad_token_id
        return (self.tokenizer.eos_token_id or 0) if pad_id is None else pad_id

    def _marked(self, batch: dict) -> dict:
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
            writer = self._writer(chat_template)
            variables["add_generation_prompt"] = add_generation_prompt
            texts = [writer.readable(writer.write(self._expand(rows), False, variables)) for rows in batch]
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
        pruning_rate: float | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Text in which `<image>` and `<video>` are tags, with exactly as many images and videos.

        Args:
            images: One image, a flat list (dealt out to the texts in order) or one list a text.
            videos: Likewise; a video is a path, a list of frames or a (T, 3, H, W) tensor.
            video_timestamps: Seconds of each frame, one list a video.
            padding_side: Default: the tokenizer's.
            pruning_rate: As in `encode`.
            add_special_tokens: Put the tokenizer's own bos and eos around each text that does not start with bos.

        Raises:
            SampleError: `tag_mismatch` when tags and media differ in number.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        if not texts:
            raise ValueError("text is needed: a string or a list of strings with <image> / <video> tags")
        writer = self._writer()
        before, behind = writer.encoder.affixes() if add_special_tokens else ([], [])
        encoded = []
        for piece, media in split_tags(texts, images, videos, video_timestamps, self.special_tokens):
            sample = self._encode(Prompt(piece, Conversation([], media)), writer, torch.float32, None, pruning_rate)
            del sample["labels"]
            ids, types = sample["input_ids"], sample["mm_token_type_ids"]
            if before != ids[: len(before)].tolist() or not before:
                sample["input_ids"] = torch.tensor([*before, *ids.tolist(), *behind], dtype=torch.long)
                sample["mm_token_type_ids"] = torch.nn.functional.pad(types, (len(before), len(behind)))
            self._check_length(sample, max_length)
            encoded.append(sample)
        return BatchFeature(self.collate(encoded, padding_side or self.tokenizer.padding_side))

    def post_process_image_text_to_text(
        self, generated_outputs, skip_special_tokens: bool = True, **kwargs
    ) -> list[str]:
        """Generated ids (B, L) -> texts."""
        return self.tokenizer.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)
