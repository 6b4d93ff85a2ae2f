"""lmms-eval and our own runner on the same questions and checkpoint: the same answers, the same scores.

    python tests/check/lmms_numbers.py runs/check/lmms runs/demo/export [PYTHON_OF_AN_ENVIRONMENT_WITH_LMMS_EVAL]

The real lmms-eval runs in an environment of its own (`lmms_environment.py`, built in the output folder if none is
named) and finds our model through its entry point. Pictures reach it opened, our runner by their path; batches differ
on purpose. Without a way to build the environment one row says so.
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.lmms_environment import LMMS_EVAL, build  # noqa: E402
from tests.check.targets import Number, table  # noqa: E402

TITLE = f"lmms-eval {LMMS_EVAL} beside eval/run.py: "
RECEIPTS, PAGES, CLIPS = 50, 20, 8  # questions
NEW_TOKENS = 32
TASK = "radio_vlm_check"
TASK_YAML = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visuals
doc_to_text: question
doc_to_target: answers
generation_kwargs: {{max_new_tokens: {tokens}, temperature: 0, do_sample: false}}
metric_list:
  - {{metric: anls, aggregation: mean, higher_is_better: true}}
"""
UTILS = """\
from pathlib import Path

from PIL import Image

FOLDER = Path({folder!r})


def visuals(doc):
    if doc.get("video"):
        return [str(FOLDER / doc["video"])]
    return [Image.open(FOLDER / doc["image"]).convert("RGB")]
"""


def run(*words: object, **environment: str) -> tuple[str, str]:
    """Runs a command of either harness under the same conditions; returns it as typed, and what it printed."""
    from tests.helpers.stage_runs import child_environment

    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(**environment), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return " ".join(command), done.stdout + done.stderr


def made(folder: Path, task: str, n: int) -> list[dict]:
    """Synthetic questions, as `{id, image or video, question, answers}` with paths below `folder`'s parent."""
    words = ("--task", task, "--split", "test", "--seed", 77, "--n", n, "--out", folder)
    run(sys.executable, "-m", "vlm", "make-data", *words)
    rows = []
    for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()[:n]:
        record = json.loads(line)
        medium, text = record["messages"][0]["content"]
        path = f"{folder.name}/{medium[medium['type']]}"
        answers = record["meta"]["answers"]
        rows.append({"id": record["id"], medium["type"]: path, "question": text["text"], "answers": answers})
    return rows


def real(folder: Path, labels: Path, n: int) -> list[dict]:
    """Questions about real receipts; their pictures are copied, since no record may point out of its folder."""
    rows = [json.loads(line) for line in labels.read_text(encoding="utf-8").splitlines()]
    rows = random.Random(0).sample(rows, n)
    for row in rows:
        target = folder / "receipts" / row["image"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(labels.parent / row["image"], target)
    keep = ("id", "question", "answers")
    return [{**{key: row[key] for key in keep}, "image": f"receipts/{row['image']}"} for row in rows]


def questions(folder: Path, shared: Path) -> Path:
    """The file that both harnesses read."""
    labels = shared / "data/sroie_receipts/labels.jsonl"
    rows = real(folder, labels, RECEIPTS) if labels.is_file() else []
    rows += made(folder / "documents", "documents", PAGES if rows else PAGES + RECEIPTS)
    rows += made(folder / "videos", "videos", CLIPS)
    random.Random(0).shuffle(rows)
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def ask_lmms_eval(python: Path, model: Path, file: Path, out: Path) -> tuple[list[dict], str]:
    """(logged samples in the order of the file, the command)."""
    tasks = out / "tasks"
    tasks.mkdir()
    text = TASK_YAML.format(task=TASK, file=file.resolve(), tokens=NEW_TOKENS)
    (tasks / f"{TASK}.yaml").write_text(text, encoding="utf-8")
    (tasks / "utils.py").write_text(UTILS.format(folder=str(file.parent.resolve())), encoding="utf-8")
    typed, printed = run(
        *(python, "-m", "lmms_eval", "--model", "radio_vlm", "--model_args", f"pretrained={model}", "--tasks", TASK),
        *("--include_path", tasks, "--batch_size", 16, "--log_samples", "--output_path", out / "lmms"),
        HF_HOME=str((out / "hf").resolve()), HF_DATASETS_OFFLINE="1",
    )  # fmt: skip
    samples = next((out / "lmms").rglob(f"*_samples_{TASK}.jsonl"), None)
    if samples is None:  # its exit status is 0 all the same
        raise RuntimeError(f"lmms-eval wrote no samples:\n{printed[-4000:]}")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: row["doc_id"]), typed


def ask_ours(model: Path, file: Path, out: Path, *words: str) -> tuple[dict, list[dict], str]:
    """(figures, samples in the order of the file, the command)."""
    typed, _ = run(
        *(sys.executable, "eval/run.py", "--model", model, "--task-file", file, "--metric", "anls", "--no-controls"),
        *("--max-new-tokens", NEW_TOKENS, "--batch-size", 7, "--no-progress", "--out", out, *words),
    )
    results = json.loads(out.read_text(encoding="utf-8"))
    (figures,) = results["tasks"].values()
    return figures, results["samples"], typed


def compare(theirs: list[dict], ours: list[dict], blind: list[dict], typed: str) -> list[Number]:
    """Rows of two harnesses, question by question; `blind`: our runner without pictures, which must differ."""
    from eval.metrics import get_metric

    assert len(theirs) == len(ours) and not any(row["error"] for row in ours)
    answers = [row["filtered_resps"].strip() for row in theirs]
    differ = [row["id"] for row, answer in zip(ours, answers) if row["output"] != answer]
    for name in differ:
        print(f"{TITLE}{name} differs")
    anls, refs = get_metric("anls"), [row["answers"] for row in ours]
    metric = max(abs(anls(answer, ref) - row["anls"]) for answer, ref, row in zip(answers, refs, theirs))
    scores = [sum(scores) / len(ours) for scores in ([r["anls"] for r in theirs], [r["score"] for r in ours])]
    seen = sum(row["output"] != other["output"] for row, other in zip(ours, blind))
    return [
        Number(f"{TITLE}questions", "", len(ours), typed),
        Number(f"{TITLE}answers that differ", "<= 0", len(differ), typed),
        Number(f"{TITLE}different answers among all", ">= 10", len(set(answers)), typed),
        Number(f"{TITLE}control, answers that change without pictures", ">= 10", seen, "--blind"),
        Number(f"{TITLE}anls of lmms-eval", "", round(scores[0], 6), typed),
        Number(f"{TITLE}anls of ours", "", round(scores[1], 6), typed),
        Number(f"{TITLE}difference of anls", "<= 1e-12", abs(scores[0] - scores[1]), typed),
        Number(f"{TITLE}largest difference of the two anls metrics on one answer", "<= 1e-12", metric, typed),
    ]


def lmms_numbers(out: Path, model: Path, shared: Path, python: Path | None = None) -> list[Number]:
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if python is None:
        try:
            python = build(out / "environment")
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"lmms-eval beside eval/run.py NOT MEASURED: its environment cannot be built ({error})")
            return [Number(f"{TITLE}not measured, no environment", "", 0, "tests/check/lmms_environment.py")]
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    model = model.resolve()
    file = questions(work, shared)
    theirs, typed = ask_lmms_eval(python, model, file, work)
    figures, ours, _ = ask_ours(model, file, work / "ours.json")
    _, blind, _ = ask_ours(model, file, work / "blind.json", "--blind")
    rows = compare(theirs, ours, blind, typed)
    summary = json.loads(next((work / "lmms").rglob("*_results.json")).read_text(encoding="utf-8"))
    printed = summary["results"][TASK]["anls,none"]
    rows.append(
        Number(f"{TITLE}difference of the printed figures", "<= 5e-5", abs(printed - figures["anls"]), typed)
    )  # ours is rounded to four places
    return rows


if __name__ == "__main__":
    words = [Path(word).absolute() for word in sys.argv[1:]]
    found = lmms_numbers(words[0], words[1], ROOT.parent / "shared", *words[2:])
    print(table(found))
    sys.exit(1 if any(number.ok is False for number in found) else 0)
