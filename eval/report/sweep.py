"""The projector sweep as a page and as Markdown: tokens x accuracy x prefill time, from its results.json.

    python eval/report/sweep.py --run runs/sweep

writes sweep.md and report.html again from results.json. The page needs no other file and makes no request.
"""

from __future__ import annotations

import argparse
import json
import sys
from html import escape
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a script, Python puts eval/report/ itself there

Row = dict[str, Any]
SCORE = "exact_match"


def trained(results: dict[str, Any]) -> list[Row]:
    """Variants with scores, most tokens first, among equals the better first."""
    rows = [row for row in results["variants"] if not row.get("error")]
    return sorted(rows, key=lambda row: (-row["tokens_per_page"], -row[SCORE], row["name"]))


def failed(results: dict[str, Any]) -> list[Row]:
    return [row for row in results["variants"] if row.get("error")]


def text_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the table for a terminal and for Markdown; failed variants last."""
    head = ["projector", "tokens a page", "exact match", "ANLS", "images exchanged", "held-out loss"]
    good = trained(results)
    head += ["prefill ms", f"{_pages(results)} pages ms"]
    rows = [
        [
            row["label"],
            f"{row['tokens_per_page']:g}",
            _figure(row.get(SCORE)),
            _figure(row.get("anls")),
            _figure(row.get("images_exchanged")),
            _figure(row.get("heldout_loss")),
            f"{row['prefill_ms']:.1f}",
            f"{row['document_prefill_ms']:.1f}",
        ]
        for row in good
    ]
    return head, rows + [[row["label"], "failed", *["–"] * 6] for row in failed(results)]


def markdown(results: dict[str, Any]) -> str:
    """The same with a heading, what was done, and the reasons of failures."""
    head, rows = text_rows(results)
    lines = ["# Projectors: tokens, accuracy, prefill time", "", _words(results), ""]
    lines.append("| " + " | ".join(head) + " |")
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    if failed(results):
        lines += ["", *(f"- {row['label']} failed: {row['error']}" for row in failed(results))]
    return "\n".join(lines) + "\n"


def page(results: dict[str, Any]) -> str:
    """The HTML page."""
    from eval.report import parts

    body = [
        "<header><p class=overline>radio-vlm sweep</p><h1>What fewer tokens cost</h1>"
        f'<p class="lede">{escape(_words(results))}</p></header>',
        parts.section("Tokens and accuracy", _READING, _plot(results, "tokens_per_page")),
        parts.section("Prefill time and accuracy", _PREFILL, _plot(results, "document_prefill_ms")),
        parts.section("All figures", _PADDED, _table(results)),
        parts.section("By kind of page", "Exact match.", _kinds(results)),
        parts.section("Failed", "", _failures(results)),
        parts.section("How it was measured", "", parts.facts(_facts(results)) + _commands(results)),
    ]
    return parts.document("radio-vlm, projectors compared", "".join(body))


def write(results: dict[str, Any], out: Path) -> list[Path]:
    """results.json, sweep.md and report.html in `out`."""
    from eval.results import write_json

    paths = [out / "results.json", out / "sweep.md", out / "report.html"]
    write_json(results, paths[0])
    paths[1].write_text(markdown(results), encoding="utf-8")
    paths[2].write_text(page(results), encoding="utf-8")
    return paths


_READING = (
    "Each point is one small model. Filled points, joined: no other model reads better with as many tokens or fewer. "
    "Whiskers: 95 % intervals from the number of questions; another seed would move the points too."
)
_PREFILL = (
    "Opening the pages of one prompt, encoding them and one forward pass, on one thread; medians, the models taking "
    "turns. The encoder sees every patch whatever the projector does: fewer tokens spare the language model only."
)

_PADDED = (
    "Where a projector folds more patches than a side has left, the last ones are repeated. Control: the same question "
    "with another page shown; what is right then was guessed."
)


def _words(results: dict[str, Any]) -> str:
    steps, good = results["steps"], trained(results)
    n = good[0]["n"] if good else 0
    return (
        f"{len(results['variants'])} projectors between the same RADIO encoder and language model, each trained for "
        f"{steps['stage1']} + {steps['stage2']} steps of {results['batch_size']} pages (alignment, then every part) "
        f"and asked {n} questions on pages it has not seen. Tiny models: the order may differ at full size, and one "
        "that still scores like its control has not begun to read in so few steps, which says little of its projector."
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _plot(results: dict[str, Any], cost: str) -> str:
    from eval.report.parts import plot
    from eval.report.sweep_charts import Mark, interval, scatter

    marks = [
        Mark(
            row["label"], row[cost], row[SCORE], *interval(row[SCORE], row["n"]),
            note=f"{row['tokens_per_page']:g} tokens a page, {row[SCORE]:.3f}, {row[cost]:.1f}",
        )
        for row in trained(results)
    ]  # fmt: skip
    if not marks:
        return ""
    score_axis = f"exact match (share of {trained(results)[0]['n']} answers)"
    if cost == "tokens_per_page":
        return plot(scatter(marks, "tokens a page for the language model (each line twice the last)", score_axis, True))
    return plot(scatter(marks, f"prefill of a prompt of {_pages(results)} pages (milliseconds)", score_axis, False))


def _table(results: dict[str, Any]) -> str:
    from eval.report.parts import table

    rows, kinds = [], []
    for row in trained(results):
        rows.append(
            [
                f"{escape(row['label'])}<small>{escape(_settings(row))}</small>",
                f"{row['tokens_per_page']:g}<small>of {row['patches_per_page']:g} patches</small>",
                f"<b>{_figure(row[SCORE])}</b><small>ANLS {_figure(row.get('anls'))}</small>",
                _figure(row.get("images_exchanged")),
                _figure(row.get("heldout_loss")),
                _prefill(row, ""),
                _prefill(row, "document_"),
            ]
        )
        kinds.append("")
    for row in failed(results):
        rows.append([escape(row["label"]), '<span class="wrong">failed</span>', *["–"] * 5])
        kinds.append("kind")
    head = [
        "projector", "tokens<small>a page</small>", "exact match",
        "control<small>other page shown</small>", "held-out loss<small>per token</small>",
        "prefill<small>encode + forward</small>", f"{_pages(results)} pages<small>encode + forward</small>",
    ]  # fmt: skip
    return table(head, rows, kinds)


def _prefill(row: Row, which: str) -> str:
    encode, forward = row[f"{which}encode_ms"], row[f"{which}forward_ms"]
    return f"{row[f'{which}prefill_ms']:.1f} ms<small>{encode:.1f} + {forward:.1f}</small>"


def _pages(results: dict[str, Any]) -> int | str:
    """Pages of the long prompts."""
    return next((row["document_pages"] for row in trained(results)), "many")


def _settings(row: Row) -> str:
    """Its settings and size; that grids are padded is said in the heading."""
    from eval.report.parts import count

    words = [f"{key} = {value}" for key, value in row["settings"].items() if key != "odd_grids"]
    return ", ".join([*words, f"{count(row.get('projector_parameters') or 0)} weights"])


def _kinds(results: dict[str, Any]) -> str:
    from eval.report.parts import table
    from eval.table import label

    rows = trained(results)
    kinds = sorted({kind for row in rows for kind in row.get("kinds", {})})
    if not kinds:
        return ""
    cells = [
        [escape(row["label"]), *(_figure(row["kinds"].get(kind, {}).get(SCORE)) for kind in kinds)] for row in rows
    ]
    asked = {kind: next((row["kinds"][kind].get("n") for row in rows if kind in row["kinds"]), None) for kind in kinds}
    head = [f"{escape(label(kind))}<small>{asked[kind]} questions</small>" for kind in kinds]
    return table(["projector", *head], cells)


def _failures(results: dict[str, Any]) -> str:
    from eval.report.parts import facts

    return facts({row["label"]: row["error"] for row in failed(results)}) if failed(results) else ""


def _facts(results: dict[str, Any]) -> dict[str, str]:
    from eval.report.parts import minutes

    rows, machine = trained(results), results.get("machine") or {}
    found = {"pages": results.get("data", ""), "bases": results.get("bases", ""), "seed": str(results.get("seed"))}
    if rows:
        one = rows[0]
        found["prefill"] = (
            f"{one['prefill_prompts']} prompts of one page, fewer of many, {one['prefill_rounds']} rounds behind one "
            "that warms up; batch 1, one thread"
        )
        rates = [row["samples_per_second"] for row in rows if row.get("samples_per_second")]
        if rates:
            found["training"] = f"{min(rates):.0f} to {max(rates):.0f} pages a second and process"
    found["processor"] = f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('memory_gib')} GiB"
    found["versions"] = ", ".join(f"{name} {version}" for name, version in (results.get("versions") or {}).items())
    found["whole sweep"] = minutes(results.get("wall_seconds", 0.0))
    return found


def _commands(results: dict[str, Any]) -> str:
    """What was typed for every variant, closed at first."""
    import shlex

    from eval.report.parts import FAINT_GAP, fold

    folds = []
    for row in results["variants"]:
        typed = "\n".join(shlex.join(command) for command in (row.get("commands") or {}).values())
        if typed:
            folds.append(fold(f"commands, {row['label']}", f"<pre>{escape(typed)}</pre>"))
    return FAINT_GAP + "".join(folds)


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 when there is no such sweep."""
    p = argparse.ArgumentParser("eval/report/sweep.py", description=__doc__)
    p.add_argument("--run", type=Path, default=Path("runs/sweep"), help="folder of a sweep (default: %(default)s)")
    args = p.parse_args(argv)
    try:
        results = json.loads((args.run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"eval/report/sweep.py: {error}\n")
        return 2
    for path in write(results, args.run):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
