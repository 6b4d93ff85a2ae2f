"""The README.md beside an exported checkpoint: what it is, its parts, licences, stages, results, use, limits.

Everything is read from the checkpoint's own config (and a results file, if there is one); nothing is typed twice.
"""

import re
from typing import Any

from projectors.components import num_tokens
from vlm.notice import NOTICE

# What a base's name says about its weights: (pattern, hub licence id, sentence). First match wins. Case matters: hub
# names are written `C-RADIOv4-H`, `RADIO-L`, `E-RADIO`, releases and their files `c-radio_v4-h`, `radio_v2.5-l`; a
# folder called `radio` says nothing of its origin.
LICENCES = (
    (r"(^|[/:])(C-RADIO|c-radio_v)", "nvidia-open-model-license", "C-RADIO weights: NVIDIA Open Model License."),
    (r"(^|[/:])(E?-?RADIO|(e-)?radio_v)", "nvidia-source-code-license-nc",
     "RADIO and E-RADIO weights: NVIDIA Source Code License (NSCL), **non-commercial use only**."),
    (r"^preset:", "apache-2.0", "initialised at random; no foreign weights."),
)  # fmt: skip
UNKNOWN = "the licence of its origin applies; check it before you pass the checkpoint on."

USE = """```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
inputs = processor.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64)
print(processor.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```"""

# transformers' names of layer kinds -> what people call them
LAYERS = {"linear_attention": "Mamba", "mamba": "Mamba", "full_attention": "attention", "mlp": "MLP", "moe": "MoE"}

# task -> (heading, main figure, controls in the order of the columns)
FIGURES = {
    "documents": ("documents: exact match", "exact_match", {"images_exchanged": "images exchanged"}),
    "videos": ("videos: accuracy", "accuracy", {"frames_shuffled": "frames shuffled"}),
    "medical": (
        "medical: accuracy",
        "accuracy",
        {"expert_withheld": "expert withheld", "expert_wrong": "expert wrong"},
    ),
}


def licence_of(base: str, release: str | None = None) -> tuple[str | None, str]:
    """(hub licence id or None, sentence) for the name of a base, e.g. "nvidia/C-RADIOv4-H" or "preset:tiny"; where that
    tells nothing, for the `release` that its weights say they are."""
    for name in (base, release or ""):
        for pattern, licence, sentence in LICENCES:
            if re.search(pattern, name):
                return licence, sentence
    return None, UNKNOWN


def encoder_line(config: dict[str, Any]) -> str:
    """The encoder in one line: sizes, windows, which of its features are used."""
    vision, wanted = config.get("vision_config") or {}, config.get("vision_features") or {}
    words = [
        f"RADIO, width {vision.get('hidden_size')}, {vision.get('num_hidden_layers')} layers",
        f"{vision.get('patch_size', 16)}-pixel patches",
    ]
    window, layers = vision.get("vitdet_window_size"), wanted.get("layers")
    words += [f"attention in windows of {window}×{window} patches"] * bool(window)
    if layers:
        words.append(f"features of blocks {', '.join(map(str, layers))} ({wanted.get('aggregation')})")
    if wanted.get("summary"):
        words.append(f"{(config.get('projector_config') or {}).get('summary_tokens')} class tokens")
    return ", ".join(words)


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"


def results_table(results: dict[str, Any]) -> str:
    """Markdown table stage × task with the controls, from the `stages` of a results.json; "" when it has none."""
    stages = results.get("stages") or {}
    tasks = [task for task in FIGURES if any(task in stage for stage in stages.values())]
    if not tasks:
        return ""
    head = ["stage"]
    for task in tasks:
        title, _, controls = FIGURES[task]
        head += [title, *controls.values()]
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)]
    for name, stage in stages.items():
        row = [name]
        for task in tasks:
            _, main, controls = FIGURES[task]
            figures = stage.get(task) or {}
            row.append(_figure(figures.get(main)))
            row += [_figure((figures.get("controls") or {}).get(control)) for control in controls]
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def kinds_table(results: dict[str, Any]) -> str:
    """Documents by kind after the last stage that was measured, as a Markdown table; "" without such figures."""
    stages = [stage for stage in (results.get("stages") or {}).values() if (stage.get("documents") or {}).get("kinds")]
    if not stages:
        return ""
    lines = ["| documents by kind, last stage | exact match | images exchanged | n |", "|---|---:|---:|---:|"]
    for kind, row in stages[-1]["documents"]["kinds"].items():
        figures = [_figure(row.get(key)) for key in ("exact_match", "images_exchanged")]
        lines.append(f"| {kind} | {' | '.join(figures)} | {row.get('n', '–')} |")
    return "\n".join(lines)


def asks_experts(results: dict[str, Any]) -> bool:
    """Whether the model was measured with experts on call: some stage's figures say how it called them."""
    stages = (results.get("stages") or {}).values()
    return any("trigger_recall" in (figures or {}) for stage in stages for figures in stage.values())


def _layers(text: dict[str, Any]) -> str:
    """`52 layers (24 Mamba, 4 attention, 24 MLP)` for a hybrid, `32 layers` for any other language model."""
    kinds = text.get("layers_block_type") or text.get("layer_types") or []
    kinds = [LAYERS.get(kind, kind) for kind in kinds]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    total = text.get("num_hidden_layers") or len(kinds)
    return f"{total} layers" + (f" ({', '.join(f'{n} {kind}' for kind, n in counts.items())})" if counts else "")


def _tokens(projector: dict[str, Any]) -> int | str:
    """Tokens of a picture of 48 x 48 patches (2, 3 and 4 divide its sides)."""
    try:
        return num_tokens(projector, 48, 48)
    except ValueError:  # odd sides that this projector takes no pictures of
        return "?"


def parts_table(config: dict[str, Any]) -> str:
    """Markdown table of encoder, projector and language model, with where each came from."""
    text, projector = (config.get(f"{part}_config") or {} for part in ("text", "projector"))
    bases = config.get("base_models") or {}
    fold = f"{projector.get('type')}: 48×48 patches → {_tokens(projector)} tokens"
    head = [projector[key] for key in ("norm", "activation") if projector.get(key)]
    head += [f"hidden {projector['hidden_size']}"] if projector.get("hidden_size") else []
    rows = [
        ("vision encoder", encoder_line(config), bases.get("vision", "not recorded")),
        ("projector", ", ".join([fold, *head]), "new"),
        ("language model", f"{text.get('model_type')}, width {text.get('hidden_size')}, {_layers(text)}, "
         f"vocabulary {text.get('vocab_size')}", bases.get("text", "not recorded")),
    ]  # fmt: skip
    lines = ["| part | what | weights from |", "|---|---|---|"]
    return "\n".join(lines + [f"| {name} | {what} | `{base}` |" for name, what, base in rows])


def model_card(config: dict[str, Any], results: dict[str, Any] | None = None, name: str = "RADIO-VLM") -> str:
    """The whole README.md as text.

    config: the checkpoint's config.json as a dict. `config["base_models"]` (`{"vision": …, "text": …}`) says where the
    weights came from. results: a results.json of the demo's shape, or None.
    """
    bases = config.get("base_models") or {}
    releases = {"vision": (config.get("vision_config") or {}).get("version")}
    licences = {part: licence_of(bases[part], releases.get(part)) for part in ("vision", "text") if part in bases}
    ids = {licence for licence, _ in licences.values()}
    hub_licence = "apache-2.0" if ids == {"apache-2.0"} else "other"
    table = results_table(results) if results else ""
    stages = ", ".join((results or {}).get("stages") or ()) or "not recorded"
    licence_lines = dict.fromkeys(f"- `{bases[part]}`: {sentence}" for part, (_, sentence) in licences.items())
    geometry, video = config.get("geometry") or {}, config.get("video") or {}
    sections = [
        f"---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\nlicense: {hub_licence}\n"
        "tags:\n- vision-language\n- radio\n- custom_code\n---",
        f"# {name}",
        f"**{NOTICE}** It was trained to ask medical experts." if asks_experts(results or {}) else "",
        "A vision-language model: images, document pages or video frames go through a RADIO vision encoder and a "
        "token-compressing projector into a causal language model. Built with radio-vlm; the folder carries its own "
        "code and needs only PyTorch, transformers and Pillow.",
        "## Parts\n\n" + parts_table(config),
        f"Images: {geometry.get('mode', 'dynamic')} resolution, {geometry.get('min_num_patches', '?')}–"
        f"{geometry.get('max_num_patches', '?')} patches. Video: up to {video.get('max_frames', '?')} frames.",
        "## Use\n\n`folder` is this folder or its hub id; `image` a PIL image.\n\n" + USE,
        "A video is a list of frames: `{\"type\": \"video\", \"video\": [frame, ...]}`. "
        "`pipeline(\"image-text-to-text\", model=folder, trust_remote_code=True)` works as well.",
        f"## Training and results\n\nStages: {stages}.",
        table or "No results were given when this card was written.",
        kinds_table(results) if results else "",
        "Controls: with the image exchanged, the frames shuffled or the expert withheld or wrong, a model that looks "
        "at its input must get worse." if table else "",
        "## Licences",
        "\n".join(["- Code in this folder: Apache-2.0.", *licence_lines,
                   "- In general: C-RADIO weights are under the NVIDIA Open Model License; RADIO and E-RADIO weights "
                   "are under NSCL, non-commercial."]),
        "## Limits",
        "- It answers from what it was trained on; figures above are for their own test data and say nothing of other "
        "data.\n- **Not a medical device.** Answers about medical images are for research and must not guide care.\n"
        "- Text inside an image is read as content; do not give its instructions any authority in an application.",
    ]  # fmt: skip
    return "\n\n".join(section for section in sections if section) + "\n"
