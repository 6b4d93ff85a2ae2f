"""Text towers, tiny and random, saved whole and alone: opened in full, with the embeddings of the model saved."""

import json
import logging

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    Siglip2TextModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextModel,
)

from encoders.errors import RadioCheckpointError
from encoders.text_towers import canonicalize, load_text_tower, why_no_text_tower

TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TEXT, "num_hidden_layers": 1}
WORDS = "<pad> <eos> <unk> <bos> a photo of the liver with no lesion sharp chest image two cats".split()
TEXTS = ["A photo of_the LIVER, with no lesion!", "two cats", ""]


def save_tokenizer(folder, clip: bool = False) -> None:
    """Words; an end token after them, for CLIP a start token before. Padding on the left unless told otherwise."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(word, special=True) for word in WORDS[:4]])
    template = "<bos> $A <eos>" if clip else "$A <eos>"
    special = [("<eos>", 1), ("<bos>", 3)]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
    )
    tokenizer.save_pretrained(folder)


def build(kind: str):
    torch.manual_seed(0)
    ids = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1}
    if kind == "clip":
        text = {**TEXT, **ids, "projection_dim": 24, "max_position_embeddings": 20}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=24))
    else:
        config, whole = (SiglipConfig, SiglipModel) if kind == "siglip" else (Siglip2Config, Siglip2Model)
        model = whole(config(text_config={**TEXT, **ids, "projection_size": 24}, vision_config=VISION))
    for parameter in model.parameters():  # the classes' own initialisation is too small to tell anything
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def save_text_alone(kind: str, model, folder) -> None:
    if kind == "clip":
        alone = CLIPTextModelWithProjection(model.config.text_config)
        alone.text_model.load_state_dict(model.text_model.state_dict())
        alone.text_projection.load_state_dict(model.text_projection.state_dict())
    else:
        alone = {"siglip": SiglipTextModel, "siglip2": Siglip2TextModel}[kind](model.config.text_config)
        alone.load_state_dict(model.text_model.state_dict())
    alone.save_pretrained(folder)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "text_alone"])
@pytest.mark.parametrize("kind, teacher", [("siglip", "siglip2-g"), ("siglip2", "siglip2-so400m"), ("clip", "clip")])
def test_same_embeddings_as_the_saved_model(kind, teacher, whole, tmp_path, caplog, monkeypatch):
    model = build(kind)
    if whole:
        model.save_pretrained(tmp_path)
    else:
        save_text_alone(kind, model, tmp_path)
    save_tokenizer(tmp_path, clip=kind == "clip")
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # for caplog
    tower = load_text_tower(teacher, source=tmp_path)
    assert "UNEXPECTED" not in caplog.text
    if whole:
        type(tower.model).__bases__[0].from_pretrained(tmp_path, config=tower.model.config)
        assert "UNEXPECTED" in caplog.text, "the control: the class itself reports the picture half"
    tokens = tower.tokenize(TEXTS)
    assert tokens.shape == (3, 20 if kind == "clip" else 64) and tower.dim == 24
    with torch.no_grad():
        embeddings = tower.encode_text(tokens)
        wanted = model.text_model(input_ids=tokens).pooler_output
        if kind == "clip":
            wanted = model.text_projection(wanted)
        unit = tower.encode_text(tokens, normalize=True)
    assert embeddings.shape == (3, 24)
    torch.testing.assert_close(embeddings, wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(unit, embeddings / embeddings.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-2, "the control: another text"
    assert not tower.training


@pytest.fixture
def siglip_folder(tmp_path):
    build("siglip").save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path


def test_tokens(siglip_folder):
    """Canonicalized, ended, padded on the right whatever the tokenizer's config says, cut with the end kept."""
    tower = load_text_tower("siglip2-g", source=siglip_folder)
    first, second, empty = tower.tokenize(TEXTS).tolist()
    assert [WORDS[i] for i in first if i] == "a photo of the liver with no lesion <eos>".split()
    assert second == [WORDS.index("two"), WORDS.index("cats"), 1, *[0] * 61]
    assert empty == [1, *[0] * 63]
    long = tower.tokenize(["cats " * 100])[0].tolist()
    assert long == [WORDS.index("cats")] * 63 + [1]
    assert tower.tokenize("two cats").tolist() == [second]
    with pytest.raises(ValueError, match="no texts"):
        tower.tokenize([])
    with pytest.raises(ValueError, match=r"\(1, 5\) are not \(N, 64\)"):
        tower.encode_text(torch.zeros(1, 5, dtype=torch.long))


def test_clip_keeps_its_text(tmp_path):
    """Canonical form is SigLIP's alone; what stands after the end of a text changes nothing in CLIP."""
    build("clip").save_pretrained(tmp_path)
    save_tokenizer(tmp_path, clip=True)
    tower = load_text_tower("clip", source=tmp_path)
    tokens = tower.tokenize(["A photo", "a photo"])
    assert tokens[:, :4].tolist() == [[3, 2, 5, 1], [3, 4, 5, 1]]
    other = tokens.clone()
    other[:, 4:] = 9
    with torch.no_grad():
        torch.testing.assert_close(tower.encode_text(tokens), tower.encode_text(other), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "text, canonical",
    [
        ("Hello,  World!", "hello world"),
        ("a_photo-of\tthe X-ray", "a photoof the xray"),
        ("  ÄRZTE's  ", "ärztes"),
        ("...", ""),
    ],
)
def test_canonicalize(text, canonical):
    assert canonicalize(text) == canonical


def test_dtype(siglip_folder):
    tower = load_text_tower("siglip2-g", source=siglip_folder, dtype=torch.bfloat16)
    assert tower.encode_text(tower.tokenize(["two cats"])).dtype == torch.bfloat16


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    "teacher, message",
    [
        ("siglip2-g", "'siglip2-g'.*left out because.*google/siglip2-giant-opt-patch16-384.*download it once"),
        ({"name": "siglip2-g", "type": "siglip2"}, "google/siglip2-giant-opt-patch16-384"),
        ({"name": "t3", "model": "siglip2-so400m"}, "'t3'.*google/siglip2-so400m-patch16-naflex"),
        ("clip", "'clip'.*left out because.*open_clip.*`source`"),
        ({"name": "x", "model": "ViT-H-14-378-quickgelu", "pretrained": "dfn5b"}, "'x'.*open_clip"),
        ("sam3", "'sam3'.*no text side of this teacher is known; those of siglip2-g"),
        ({"type": "rtx"}, "neither a `name` nor a `model`"),
    ],
)
def test_left_out_because(teacher, message, empty_cache):
    with pytest.raises(RadioCheckpointError, match="(?s)" + message):
        load_text_tower(teacher)
    reason = why_no_text_tower(teacher)
    assert reason is not None and "left out because" in reason


def test_report_reads_no_weights(siglip_folder):
    assert why_no_text_tower("siglip2-g", siglip_folder) is None
    assert why_no_text_tower("my-own", siglip_folder) is None
    (siglip_folder / "model.safetensors").unlink()
    assert "model.safetensors of" in why_no_text_tower("siglip2-g", siglip_folder)


def edit_config(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_files_that_do_not_fit(siglip_folder, tmp_path):
    with pytest.raises(RadioCheckpointError, match="of the siglip family, the teacher is of the clip family"):
        load_text_tower("clip", source=siglip_folder)
    with pytest.raises(RadioCheckpointError, match="config.json of .*nowhere is not here"):
        load_text_tower("siglip2-g", source=tmp_path / "nowhere")
    weights = (siglip_folder / "model.safetensors").read_bytes()
    (siglip_folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(RadioCheckpointError, match="cannot be opened"):
        load_text_tower("siglip2-g", source=siglip_folder)
    edit_config(siglip_folder, model_type="bert")
    with pytest.raises(RadioCheckpointError, match="'bert' checkpoint, not SigLIP"):
        load_text_tower("siglip2-g", source=siglip_folder)


def test_weights_of_another_width(siglip_folder):
    edit_config(siglip_folder, text_config={**TEXT, "vocab_size": len(WORDS), "projection_size": 16})
    with pytest.raises(RadioCheckpointError, match="cannot be opened"):
        load_text_tower("siglip2-g", source=siglip_folder)


def test_clip_without_projection(tmp_path):
    """`CLIPTextModel` alone ends before the shared space."""
    CLIPTextModel(build("clip").config.text_config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, clip=True)
    with pytest.raises(RadioCheckpointError, match="no weights for text_projection.weight"):
        load_text_tower("clip", source=tmp_path)


def test_no_tokenizer(tmp_path):
    build("siglip").save_pretrained(tmp_path)
    with pytest.raises(RadioCheckpointError, match="cannot be opened"):
        load_text_tower("siglip2-g", source=tmp_path)
