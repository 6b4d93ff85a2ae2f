"""Building an untrained model: an encoder, a fresh projector and a language model put together, tokens included."""

import copy
import logging

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RadioConfig,
    RadioModel,
)

from encoders.adaptors import build_adaptors
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel
from encoders.versions import RELEASES
from vlm.configuration_radio_vlm import SPECIAL_TOKENS, RadioVLMConfig
from vlm.errors import RadioVLMError
from vlm.image_processing_radio_vlm import RadioVLMImageProcessor
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration
from vlm.processing_radio_vlm import RadioVLMProcessor
from vlm.special_tokens import add_special_tokens, check_special_tokens, fit_embeddings

logger = logging.getLogger(__name__)

CHATML_MARKERS = ("<|im_start|>", "<|im_end|>")
# What may be chosen for an encoder that has its weights already.
SCHEDULE = ("vitdet_num_global", "vitdet_num_windowed")
VISION_OPTIONS = ("vitdet_window_size", *SCHEDULE, "cpe_training", "pos_dropout")


def build_vlm(
    vision: RadioConfig | RadioModel,
    text: PreTrainedConfig | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    projector: dict | None = None,
    geometry: dict | None = None,
    video: dict | None = None,
    special_tokens: dict[str, str] | None = None,
    features: dict | None = None,
    vision_options: dict | None = None,
) -> tuple[RadioVLMForConditionalGeneration, RadioVLMProcessor]:
    """Put the parts together.

    Models keep their weights (and are used, not copied); configs give random weights on the current default device,
    `torch.device("meta")` included. The tokenizer is copied before tokens are added.

    Args:
        vision: a `RadioEncoder`, a `RadioVisionModel`, transformers' `RadioModel`, or a config of any of them. Teacher
            heads are dropped, nothing here reads them; normalizers, final norm and windows stay.
        projector: overrides of the projector's defaults, `{"type": ...}` chooses another one.
        geometry, video, special_tokens: overrides, see `RadioVLMConfig`.
        features: which features of the encoder are used, `RadioVLMConfig.vision_features`.
        vision_options: changes of the encoder's config that need no other weights, see `VISION_OPTIONS`.
            `cpe_training` is off unless it is named here.
    """
    tokenizer = copy.deepcopy(tokenizer)
    strings = {**SPECIAL_TOKENS, **(special_tokens or {})}
    before, known = len(tokenizer), set(tokenizer.get_vocab().values())
    # without a template of its own the processor writes ChatML; as plain text its markers would never end an answer
    turns = () if getattr(tokenizer, "chat_template", None) else CHATML_MARKERS
    ids = add_special_tokens(tokenizer, strings, turns)

    has_weights = not isinstance(text, PreTrainedConfig)
    if not has_weights:
        text = AutoModelForCausalLM.from_config(copy.deepcopy(text), trust_remote_code=False)
    _check_tie(text)
    fit_embeddings(text, before, len(tokenizer), sorted(set(tokenizer.get_vocab().values()) - known))
    if isinstance(vision, PreTrainedConfig):
        vision = RadioVisionModel._from_config(tower_config(vision, vision_options))
    else:
        vision = adopt_radio(vision, vision_options)

    config = RadioVLMConfig(
        vision_config=vision.config,
        text_config=text.config,
        projector_config=projector,
        geometry=geometry,
        video=video,
        special_tokens=strings,
        vision_features=features,
        **{f"{role}_token_id": token for role, token in ids.items()},
    )
    model = RadioVLMForConditionalGeneration(config, vision_model=vision, language_model=text)
    embeddings = model.get_input_embeddings().weight
    model.multi_modal_projector.to(dtype=embeddings.dtype)
    if not embeddings.is_meta:
        model.multi_modal_projector.to(device=embeddings.device)
    processor = RadioVLMProcessor(
        RadioVLMImageProcessor(geometry=config.geometry),
        tokenizer,
        projector_config=config.projector_config,
        video=config.video,
        special_tokens=config.special_tokens,
    )
    _set_generation_config(model, text if has_weights else None, processor)
    return model, processor


def load_vlm(path: str, **kwargs) -> tuple[RadioVLMForConditionalGeneration, RadioVLMProcessor]:
    """Model and processor of a checkpoint, their tokens compared; keyword arguments go to the model."""
    model = RadioVLMForConditionalGeneration.from_pretrained(path, **kwargs)
    processor = RadioVLMProcessor.from_pretrained(path)
    check_special_tokens(model.config, processor.tokenizer)
    return model, processor


def tower_config(config: RadioConfig, options: dict | None = None) -> RadioEncoderConfig:
    """Config of a VLM's encoder: a copy in the wider form, without teacher heads, with `options` (`VISION_OPTIONS`)."""
    unknown = sorted(set(options or {}) - set(VISION_OPTIONS))
    if unknown:
        raise RadioVLMError(f"unknown vision options {', '.join(unknown)}; known: {', '.join(VISION_OPTIONS)}")
    wide = RadioEncoderConfig.of(config)
    if wide.adaptors:
        logger.info("teacher heads stay behind, a language model has no use for them: %s", ", ".join(wide.adaptors))
    values = {key: value for key, value in wide.to_dict().items() if key != "model_type"}
    schedules = [options or {}, vars(wide), vars(RELEASES[wide.version]) if wide.version in RELEASES else {}]
    schedule = next((said for said in schedules if any(said.get(name) for name in SCHEDULE)), {})
    values |= {"adaptors": None, "cpe_training": False} | {name: schedule.get(name) for name in SCHEDULE}
    values |= options or {}
    values["vitdet_window_size"] = values.get("vitdet_window_size") or None  # 0 switches windows off
    try:
        new = RadioEncoderConfig(**values)
    except ValueError as error:
        raise RadioVLMError(f"vision encoder: {error}") from error
    new._attn_implementation = config._attn_implementation
    return new


def adopt_radio(model: RadioModel, options: dict | None = None) -> RadioVisionModel:
    """The same model, weights and all, as the `RadioVisionModel` of a VLM; see `tower_config`."""
    config, old, is_native = tower_config(model.config, options), model.config, not isinstance(model, RadioVisionModel)
    for module in model.modules():
        if getattr(module, "config", None) is old:  # one object for all, or set_attn_implementation would miss some
            module.config = config
    model.__class__ = RadioVisionModel
    if is_native:
        model.extend()
    model.adaptors = build_adaptors(config)
    model.embeddings.cpe_training, model.embeddings.pos_dropout = config.cpe_training, config.pos_dropout
    return model.train(model.training)


def _set_generation_config(
    model: RadioVLMForConditionalGeneration, trained: PreTrainedModel | None, processor: RadioVLMProcessor
) -> None:
    """Sampling settings of a trained language model are kept; answers end at its stop tokens and the template's."""
    stops = set(processor.stop_token_ids)
    if trained is not None and getattr(trained, "generation_config", None) is not None:
        model.generation_config = copy.deepcopy(trained.generation_config)
        old = trained.generation_config.eos_token_id
        stops |= set(old if isinstance(old, list) else [] if old is None else [old])
    model.generation_config.eos_token_id = sorted(stops)
    for name in ("bos_token_id", "pad_token_id"):
        if trained is None or getattr(model.generation_config, name, None) is None:
            setattr(model.generation_config, name, getattr(processor.tokenizer, name))


def _check_tie(text: PreTrainedModel) -> None:
    """A config that claims a tie its weights do not have would tie them on the next load: the weights win."""
    head = text.get_output_embeddings()
    if head is None or not getattr(text.config, "tie_word_embeddings", False) or head.weight.is_meta:
        return
    source = text.get_input_embeddings().weight
    if head.weight is not source and not torch.equal(head.weight, source) and text._tied_weights_keys:
        text.config.tie_word_embeddings = False
