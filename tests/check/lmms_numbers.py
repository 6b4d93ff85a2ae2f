"""lmms-eval and our own runner on the same questions and checkpoint: the same answers, the same scores.

    python tests/check/lmms_numbers.py runs/check/lmms runs/demo/export [PYTHON_OF_AN_ENVIRONMENT_WITH_LMMS_EVAL]

The real lmms-eval runs in an environment of its own (`lmms_environment.py`, built in the output folder if none is
named). It asks twice: our model, found through the entry point, and its own client of OpenAI-like servers, with
`radio-vlm serve` at the other end (questions with pictures only: what it makes of videos is its own). Batches differ on
purpose. Without a way to build the environment one row says so.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


def ask_lmms_eval(python: Path, model: str, options: str, file: Path, out: Path) -> tuple[list[dict], float, str]:
    """(logged samples in the order of `file`, the figure that lmms-eval printed, the command)."""
    task = f"{TASK}_{model}"
    tasks = out / "tasks" / model
    tasks.mkdir(parents=True)
    text = TASK_YAML.format(task=task, file=file.resolve(), tokens=NEW_TOKENS)
    (tasks / f"{task}.yaml").write_text(text, encoding="utf-8")
    (tasks / "utils.py").write_text(UTILS.format(folder=str(file.parent.resolve())), encoding="utf-8")
    typed, printed = run(
        *(python, "-m", "lmms_eval", "--model", model, "--model_args", options, "--tasks", task),
        *("--include_path", tasks, "--batch_size", 16, "--log_samples", "--output_path", out / model),
        HF_HOME=str((out / "hf").resolve()), HF_DATASETS_OFFLINE="1",
    )  # fmt: skip
    samples = next((out / model).rglob(f"*_samples_{task}.jsonl"), None)
    if samples is None:  # its exit status is 0 all the same
        raise RuntimeError(f"lmms-eval wrote no samples:\n{printed[-4000:]}")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    summary = json.loads(next((out / model).rglob("*_results.json")).read_text(encoding="utf-8"))
    return sorted(rows, key=lambda row: row["doc_id"]), summary["results"][task]["anls,none"], typed


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """`radio-vlm serve` on a free port, its log in `log`; gives what lmms-eval's `openai` model wants to know of it."""
    from tests.helpers.stage_runs import child_environment

    command = [sys.executable, "-m", "vlm", "serve", "--model", str(model), "--port", "0", "--name", "checkpoint"]
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        line = server.stdout.readline()  # "serving checkpoint at http://127.0.0.1:PORT/v1 (...)"
        if " at http" not in line:
            raise RuntimeError(f"radio-vlm serve did not start:\n{log.read_text()}")
        yield f"model=checkpoint,base_url={line.split(' at ')[1].split()[0]},api_key=none"
    finally:
        server.terminate()
        server.wait()


def ask_ours(model: Path, file: Path, out: Path, *words: str) -> tuple[list[dict], str]:
    """(samples in the order of the file, the command)."""
    typed, _ = run(
        *(sys.executable, "eval/run.py", "--model", model, "--task-file", file, "--metric", "anls", "--no-controls"),
        *("--max-new-tokens", NEW_TOKENS, "--batch-size", 7, "--no-progress", "--out", out, *words),
    )
    return json.loads(out.read_text(encoding="utf-8"))["samples"], typed


def compare(theirs: list[dict], printed: float, ours: list[dict], title: str, typed: str) -> list[Number]:
    """Rows of two harnesses, question by question."""
    from eval.metrics import get_metric

    assert len(theirs) == len(ours) and not any(row["error"] for row in ours)
    answers = [row["filtered_resps"].strip() for row in theirs]
    differ = [row["id"] for row, answer in zip(ours, answers) if row["output"] != answer]
    for name in differ:
        print(f"{title}{name} differs")
    anls, refs = get_metric("anls"), [row["answers"] for row in ours]
    metric = max(abs(anls(answer, ref) - row["anls"]) for answer, ref, row in zip(answers, refs, theirs))
    mean = sum(row["score"] for row in ours) / len(ours)
    return [
        Number(f"{title}questions", "", len(ours), typed),
        Number(f"{title}answers that differ", "<= 0", len(differ), typed),
        Number(f"{title}anls that lmms-eval printed", "", round(printed, 6), typed),
        Number(f"{title}difference of anls", "<= 1e-12", abs(printed - mean), typed),
        Number(f"{title}largest difference of the two anls metrics on one answer", "<= 1e-12", metric, typed),
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
    ours, _ = ask_ours(model, file, work / "ours.json")
    blind, typed = ask_ours(model, file, work / "blind.json", "--blind")
    seen = sum(row["output"] != other["output"] for row, other in zip(ours, blind))
    rows = [
        Number(f"{TITLE}different answers among all", ">= 10", len({row["output"] for row in ours}), typed),
        Number(f"{TITLE}control, answers that change without pictures", ">= 10", seen, typed),
    ]
    theirs, printed, typed = ask_lmms_eval(python, "radio_vlm", f"pretrained={model}", file, work)
    rows += compare(theirs, printed, ours, TITLE, typed)

    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    still = [place for place, line in enumerate(lines) if "image" in json.loads(line)]
    pictures = work / "pictures.jsonl"
    pictures.write_text("".join(lines[place] for place in still), encoding="utf-8")
    with served(model, work / "serve.log") as options:
        theirs, printed, typed = ask_lmms_eval(python, "openai", options, pictures, work)
    return rows + compare(theirs, printed, [ours[place] for place in still], f"{TITLE}radio-vlm serve, ", typed)


if __name__ == "__main__":
    words = [Path(word).absolute() for word in sys.argv[1:]]
    found = lmms_numbers(words[0], words[1], ROOT.parent / "shared", *words[2:])
    print(table(found))
    sys.exit(1 if any(number.ok is False for number in found) else 0)
