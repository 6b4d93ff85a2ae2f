"""Other people's image-text-to-text models, tiny and random, with the byte tokenizer: what peers are compared through.

Only families whose processors work without torchvision.
"""

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from llm.tiny_tokenizer import build_byte_tokenizer

# A template over typed items, as most peers have; the tokenizer's end of turn closes each.
ITEMS_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for item in m['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}{% else %}<{{ item['type'] }}>{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRING_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
LANGUAGE = {
    "vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 4,
}  # fmt: skip
SIGHT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SIZE = {"height": 32, "width": 32}


def tiny_llava(template: str | None = ITEMS_TEMPLATE, tokenizer=None):
    """(model, processor); 16 tokens an image."""
    torch.manual_seed(0)
    tokenizer = tokenizer or build_byte_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**SIGHT, projection_dim=32), text_config=LlamaConfig(**LANGUAGE),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size=SIZE, crop_size=SIZE)
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    )  # fmt: skip
    return with_ends(LlavaForConditionalGeneration(config), tokenizer), processor


def tiny_idefics3():
    """(model, processor): tiles of a picture, several pictures a prompt, masks for both."""
    torch.manual_seed(0)
    tiles = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    extra = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tiles)
    tokenizer = build_byte_tokenizer(extra_tokens=extra)
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(pictures, tokenizer, image_seq_len=4, chat_template=ITEMS_TEMPLATE)
    text = LlamaConfig(**LANGUAGE)
    config = Idefics3Config(
        vision_config={**SIGHT, "initializer_range": 0.3}, text_config=text, scale_factor=2, pad_token_id=0,
        image_token_id=processor.image_token_id,
    )  # fmt: skip
    return with_ends(Idefics3ForConditionalGeneration(config), tokenizer), processor


def tiny_paligemma():
    """(model, processor): no chat template, and a prefix that attends to itself in both directions."""
    torch.manual_seed(0)
    tokenizer = build_byte_tokenizer()
    pictures = SiglipImageProcessorPil(size=SIZE)
    pictures.image_seq_length = 16
    processor = PaliGemmaProcessor(pictures, tokenizer)
    text = {**LANGUAGE, "model_type": "gemma", "vocab_size": len(tokenizer) + 8, "head_dim": 16}
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**SIGHT).to_dict(), text_config=text, projection_dim=32,
        image_token_id=processor.image_token_id,
    )  # fmt: skip
    return with_ends(PaliGemmaForConditionalGeneration(config), tokenizer), processor


def tiny_llama():
    """(model, tokenizer): reads text only."""
    torch.manual_seed(0)
    tokenizer = build_byte_tokenizer(chat_template=ITEMS_TEMPLATE)
    return with_ends(LlamaForCausalLM(LlamaConfig(**LANGUAGE)), tokenizer), tokenizer


def with_ends(model, tokenizer):
    """float32 in evaluation mode, with the tokenizer's end in the generation config, as published models have it."""
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = 0
    return model.float().eval()
