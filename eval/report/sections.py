"""The parts of the page about what the model can do, each a function from the run to HTML.

An empty string where the run holds nothing to show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from eval.report.charts import SHAPES, Band, Dumbbell, Ring, dumbbells, loss_bands
from eval.report.parts import (
    control_marks,
    in_words,
    legend,
    millions,
    minutes,
    plot,
    score,
    section,
    stage_head,
    table,
)
from eval.report.run_files import Run
from eval.table import control_names, control_note, kind_label, label, lines_of

AS_ASKED = {"documents": "as asked", "videos": "direction of motion", "medical": "with the expert on call"}


def header(run: Run) -> str:
    """What this is, in one breath, and the headline scores."""
    wall = run.results.get("wall_seconds")
    title = f"Built, trained and examined in {minutes(wall)}" if wall else "Built, trained and examined"
    return (
        f'<header><p class="overline">radio-vlm, run {escape(run.folder.name)}</p><h1>{title}</h1>'
        f'<p class="lede">{escape(_sentence(run))}</p>{_heads(run)}</header>'
    )


def _sentence(run: Run) -> str:
    """The model, its size, its training and its examination in words."""
    model = run.provenance.get("model", {})
    vision, text, projector = (model.get(part) or {} for part in ("vision", "text", "projector"))
    parts = [f"a RADIO encoder ({_shape(vision)})"] if vision else []
    parts += [f"a {str(projector.get('type', '')).replace('_', '-')} projector"] if projector else []
    parts += [f"a {_family(text)} language model ({_shape(text)})"] if text else []
    words = [", ".join(parts[:-1]) + " and " + parts[-1]] if len(parts) > 1 else parts
    sentence = "".join(words)
    size = f": {millions(model['parameters'])} parameters" if model.get("parameters") else ""
    sentence = f"{sentence[:1].upper()}{sentence[1:]}{size}. " if sentence else ""
    if run.stages:
        sentence += f"Trained in {in_words(len(run.stages))} stage{'s' * (len(run.stages) > 1)}. "
    tasks = [task for e in run.evaluations for task in e.get("provenance", {}).get("tasks", {}).values()]
    asked = len([row for row in run.rows if row["control"] is None]) if tasks else 0
    if asked:
        sentence += f"Asked {asked} questions it had not seen, and asked again with the evidence taken away."
    return sentence


def _family(text: dict[str, Any]) -> str:
    kind = str(text.get("model_type", ""))
    return "hybrid Mamba-Transformer" if kind.startswith("nemotron_h") else kind


def _shape(config: dict[str, Any]) -> str:
    return f"{config.get('num_hidden_layers', '?')} layers × {config.get('hidden_size', '?')}"


def _newest(run: Run) -> dict[str, Any]:
    return run.results.get("stages", {}).get(run.newest or "", {})


def _heads(run: Run) -> str:
    """One panel a task: the headline score large, and bars that set it against its controls."""
    panels = []
    for task, figures in _newest(run).items():
        name, value = next(((n, v) for n, role, v in lines_of(figures) if role == "figure"), ("", None))
        bars = [_bar(AS_ASKED.get(task, "as asked"), value, "")]
        for control in control_names(figures):
            words = ", ".join(filter(None, (label(control), control_note(figures, control))))
            bars.append(_bar(words, figures.get("controls", {}).get(control), "control-bar"))
        panels.append(
            f'<div class="head"><div class="name">{escape(label(task))}</div>'
            f'<div class="big">{score(value, 2)}</div>'
            f'<div class="of">{escape(name)}, {figures.get("n", "?")} questions</div>{"".join(bars)}</div>'
        )
    return f'<div class="heads">{"".join(panels)}</div>' if panels else ""


def _bar(name: str, value: float | None, kind: str) -> str:
    width = 100 * min(max(value or 0.0, 0.0), 1.0)
    return (
        f'<div class="bar {kind}"><span class="label">{escape(name)}</span>'
        f'<span class="track"><i style="width:{width:.1f}%"></i></span><b>{score(value, 2)}</b></div>'
    )


def looking(run: Run) -> str:
    """Kind by kind: the score, and what is left of it without the evidence."""
    rows, used = [], {}
    for task, figures in _newest(run).items():
        kinds = figures.get("kinds", {})
        for kind, of_kind in kinds.items():
            names = [name for name in of_kind if name != "n"]
            if names:
                controls = [
                    Ring(f"{label(name)} {score(of_kind[name])}", of_kind[name], SHAPES.get(name, ""))
                    for name in names[1:]
                ]
                used |= dict.fromkeys(names[1:])
                rows.append(Dumbbell(kind_label(kind, kinds), label(task), of_kind[names[0]], controls))
    lede = (
        "A model that looks falls to chance when the picture is another one, the frames are out of order or the expert "
        "reports on another patient. One that guesses keeps its score. The distance between the marks is what looking "
        "is worth; where no expert is wanted, the marks should meet."
    )
    marks = legend(("", "as asked"), *control_marks(used))
    return section("Does it look?", lede, plot(dumbbells(rows)) + marks if rows else "")


def stage_table(run: Run) -> str:
    """The stage × task table: kinds on one line with their controls, so that the whole stays on a screen."""
    stages = run.results.get("stages", {})
    tasks = {task: figures for of_stage in stages.values() for task, figures in of_stage.items()}
    titles = {stage.name: stage.title for stage in run.stages}
    head = ["", *(stage_head(name.removeprefix("stage"), titles.get(name, "")) for name in stages)]
    rows: list[list[str]] = []
    kinds: list[str] = []
    for task, newest in tasks.items():
        columns = [dict(_cells(of_stage.get(task, {}))) for of_stage in stages.values()]
        rows.append([f"{escape(label(task))}<small>{newest.get('n', '?')} questions</small>"])
        kinds.append("task")
        for (role, name), _ in _cells(newest):
            rows.append([escape(name), *(column.get((role, name), "–") for column in columns)])
            kinds.append({"figure": "figure", "control": "control-row", "kind": "kind"}[role])
    lede = (
        "Every task after every stage. Ochre figures are controls: the same questions with the evidence taken away. "
        "Behind a kind of question they stand in the order of the rows above."
    )
    return section("Stage by stage", lede, table(head, rows, kinds) if tasks else "")


def _cells(figures: dict[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """((role, row label), cell) of one task after one stage; the controls of a kind join its cell."""
    for name, role, value in lines_of(figures):
        if role in ("figure", "control"):
            yield (role, name), score(value)
    controls = list(figures.get("controls", {}))
    kinds = figures.get("kinds", {})
    for kind, of_kind in kinds.items():
        first = next((name for name in of_kind if name != "n" and name not in controls), None)
        beside = "".join(f"<s>{score(of_kind.get(name), 2)}</s>" for name in controls)
        yield ("kind", kind_label(kind, kinds)), f"{score(of_kind.get(first)) if first else '–'}{beside}"


def losses(run: Run) -> str:
    """Loss curves, stage beside stage."""
    bands = [
        Band(
            title=f"{stage.number} {stage.title}",
            losses=stage.losses,
            seconds=stage.throughput.get("seconds"),
            before=(stage.heldout.get("before") or {}).get("loss"),
            after=(stage.heldout.get("after") or {}).get("loss"),
        )
        for stage in run.stages
        if stage.losses
    ]
    marks = legend(
        ("", "training loss, smoothed"),
        ("faded", "every log entry"),
        ("hollow", "held-out loss before and after the stage"),
    )
    lede = "Each stage has its own data: a step between two curves is a change of task, not of the model."
    return section("How it learned", lede, plot(loss_bands(bands)) + marks if bands else "")


def answers(cards: Sequence[str], run: Run) -> str:
    """The sample predictions."""
    after = (run.newest or "the last stage").replace("stage", "stage ")
    lede = (
        f"Test questions after {escape(after)}, drawn by rule: kinds take turns, and a third of the places is kept for "
        "wrong answers where there are any. In ochre, what the model said to the same question under a control."
    )
    return section("What it answered", lede, f'<div class="cards">{"".join(cards)}</div>' if cards else "")


def features(items: Sequence[tuple[str, list[str], float]], checkpoints: Sequence[str]) -> str:
    """Inputs beside their feature maps. Each item: caption, data URIs (input first), width / height."""
    figures = "".join(
        f'<figure class="map" style="--shape:{shape:.4f}"><div class="row">'
        + "".join(f'<img class="crisp" alt="" src="{uri}">' for uri in uris)
        + f"</div><figcaption>{escape(caption)}</figcaption></figure>"
        for caption, uris, shape in items
    )
    lede = (
        f"The encoder's patch features as colours; from the left: the input, {escape(', '.join(checkpoints))}. All "
        "maps share one basis of three principal components, so equal colours mean equal features, across pictures and "
        "across training."
    )
    return section("What RADIO sees", lede, f'<div class="maps">{figures}</div>' if items else "")
