"""Real receipts, charts, tables, radiology and sign-language clips through the evaluation, where the data is there.

    python tests/check/real_eval.py SHARED/data runs/check/real_eval runs/demo

A model of two million parameters, trained on synthetic pages, cannot read them: its scores are low and only reported.
What is promised is that every question is answered, that the report is whole, and that the text-only baselines (the
same model blind; the language model it was built from) go through the same commands.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

PYTHON = sys.executable
METRICS = {"relaxed": "relaxed_accuracy", "exact": "exact_match", "ned": "anls"}  # names in the labels -> ours
RADIOLOGY = {"OPEN": "token_recall", "CLOSED": "exact_match_closed"}
SETS = ("sroie_receipts", "charts", "pubtabnet", "vqarad_mini", "nih_cxr", "videos")


def question(row: dict) -> dict:
    """A row of labels.jsonl as a user's own question, under the metric that its labels name."""
    kept = {key: row[key] for key in ("id", "image", "video", "question", "options", "answer", "answers") if key in row}
    answer_type = row.get("answer_type", "").strip()
    metric = RADIOLOGY.get(answer_type) or METRICS.get(row.get("metric", ""), row.get("metric"))
    kind = row.get("field") or answer_type or row.get("metric") or "clip"
    group = row.get("image") or row.get("video")
    return {**kept, **({"metric": metric} if metric else {}), "kind": kind.lower(), "group": group}


def write_set(source: Path, out: Path) -> int:
    """OUT/records.jsonl and the media it names; the number of questions."""
    rows = [json.loads(line) for line in (source / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [question(row) for row in rows if "question" in row]
    for name in {row.get("image") or row.get("video") for row in rows}:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, out / name)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (out / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "dataset.json").write_text(json.dumps({"name": source.name, "split": "all", "n": len(rows)}))
    return len(rows)


def real_eval(shared_data: Path, out: Path, demo: Path) -> list[Number]:
    """Rows for numbers.json; leaves OUT/{demo,blind,language-model}.json, report.html, report.md and compare.html."""
    shutil.rmtree(out, ignore_errors=True)
    counts = {name: write_set(shared_data / name, out / "data" / name) for name in SETS}
    data = ",".join(str(out / "data" / name) for name in SETS)
    runs = {
        "demo": (demo / "export",),
        "blind": (demo / "export", "--blind"),
        "language-model": (demo / "bases" / "llm", "--blind"),
    }
    numbers, files = [], []
    for name, (model, *options) in runs.items():
        result = out / f"{name}.json"
        files.append(result)
        words = ["eval/run.py", "--model", model, "--data", data, "--out", result, "--no-progress", *options]
        typed, started = [str(word) for word in words], time.monotonic()
        subprocess.run([PYTHON, *typed], cwd=ROOT, check=True)
        command = " ".join(typed)
        tasks = json.loads(result.read_text())["tasks"]
        asked = sum(counts.values())
        lost = asked - sum(figures["n"] - figures["failed"] for figures in tasks.values())
        rows = [("seconds", "", round(time.monotonic() - started, 1)), (f"questions of {asked} lost", "<= 0", lost)]
        for task, figures in tasks.items():
            headline = next(iter(figures))
            rows.append((f"{task} {headline} ({figures['n']} questions)", "", figures[headline]))
        numbers += [Number(f"real data, {name}: {what}", target, value, command) for what, target, value in rows]
    page = [PYTHON, "eval/report/results_page.py", *map(str, files), "--out", str(out / "report.html")]
    subprocess.run([*page, "--markdown", str(out / "report.md")], cwd=ROOT, check=True)
    compare = [PYTHON, "eval/compare.py", str(files[1]), str(files[0]), "--out", str(out / "compare.html")]
    subprocess.run(compare, cwd=ROOT, check=True)
    return numbers


if __name__ == "__main__":
    found = real_eval(*(Path(word) for word in sys.argv[1:4]))
    print(table(found))
    sys.exit(any(number.ok is False for number in found))
