"""The numbers the evaluation promises: metrics equal to the public ones, a kill that loses nothing, a runner that costs
little over bare `generate`, and what sorting by length is worth.

    python tests/check/eval_numbers.py runs/check/eval runs/demo/export

Rivals take turns, batch by batch or round by round, so that a busy machine disturbs all alike.
"""

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

PYTHON = sys.executable
KILLED, KILL_AFTER = 500, 200
ROUNDS, BATCH = 5, 32


def fixture_numbers() -> list[Number]:
    """Cases of tests/fixtures/metrics (made by the public implementations) that our metrics do not reproduce."""
    from eval.metrics import get_metric

    rows = []
    for path in sorted((ROOT / "tests/fixtures/metrics").glob("*.json")):
        metric, cases = get_metric(path.stem), json.loads(path.read_text(encoding="utf-8"))
        wrong = 0
        for case in cases:
            expected = "" if case["expected"] == "<RANDOM>" else case["expected"]
            found = metric(case["prediction"], case["references"], **case["kwargs"])
            wrong += found != expected if isinstance(expected, str) else abs(found - expected) > 1e-8
        command = f"tests/fixtures/metrics/{path.name}, {len(cases)} cases"
        rows.append(Number(f"metric {path.stem}: cases unlike the public implementation", "<= 0", wrong, command))
    return rows


def kill_numbers(out: Path, model: Path) -> list[Number]:
    """kill -9 in the middle of 500 questions, then --resume, against a run that nobody disturbed."""
    data = out / "documents"
    make = [PYTHON, "-m", "vlm", "make-data", "--task", "documents", "--split", "test", "--seed", "5"]
    subprocess.run([*make, "--n", str(KILLED), "--out", str(data)], cwd=ROOT, check=True)
    words = ["eval/run.py", "--model", str(model), "--data", str(data), "--batch-size", "8", "--no-controls"]
    words += ["--no-progress", "--out"]
    whole, killed = out / "whole.json", out / "killed.json"
    subprocess.run([PYTHON, *words, str(whole)], cwd=ROOT, check=True)
    process = subprocess.Popen([PYTHON, *words, str(killed)], cwd=ROOT)
    journal = Path(f"{killed}.partial/rank0.jsonl")
    while process.poll() is None and _lines(journal) < KILL_AFTER:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = _lines(journal)
    subprocess.run([PYTHON, *words, str(killed), "--resume"], cwd=ROOT, check=True)
    one, two = (json.loads(path.read_text()) for path in (whole, killed))
    answers = [{row["id"]: (row["output"], row["scores"]) for row in results["samples"]} for results in (one, two)]
    asked_again = two["provenance"]["tasks"]["documents"]["requests"] - (KILLED - kept)
    command = f"eval/run.py --data documents ({KILLED}), killed after {kept} answers, then --resume"
    return [
        Number("killed evaluation: answers kept at the kill", ">= 1", kept, command),
        Number("killed evaluation: questions without a unique answer after --resume", "<= 0", _lost(two), command),
        Number("killed evaluation: questions asked twice", "<= 0", asked_again, command),
        Number(
            "killed evaluation: answers or scores that differ from the undisturbed run", "<= 0",
            sum(answers[0][name] != answers[1].get(name) for name in answers[0]), command,
        ),
        Number("killed evaluation: exact match, undisturbed", "", one["tasks"]["documents"]["exact_match"], command),
    ]  # fmt: skip


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _lost(results: dict) -> int:
    return KILLED - len({row["id"] for row in results["samples"] if row["input_hash"]})


def overhead_numbers(out: Path, model: Path) -> list[Number]:
    """Seconds of the runner over those of bare batched `generate` on the same prompts, batches and limits.

    Bare: encode all, sort by length, pad, generate, decode - no journal, hashes, clocks, rendered prompts or failures.
    """
    import torch

    from eval.backends import Decoding, open_backend
    from eval.data import read_dataset
    from eval.generation import Generator, Request
    from eval.journal import Journal

    backend = open_backend(str(model), device="cpu")
    data = out / "documents"
    samples = read_dataset(data).samples[:256]
    limit = 12

    def bare() -> list[str]:
        encoded = [backend.processor.encode(s.prompt, add_generation_prompt=True, sample_id=s.id) for s in samples]
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]["input_ids"]))
        answers = [""] * len(encoded)
        for at in range(0, len(order), BATCH):
            places = order[at : at + BATCH]
            rows = [{k: v for k, v in encoded[i].items() if k != "labels"} for i in places]
            batch = backend.processor.collate(rows, padding_side="left")
            with torch.no_grad():
                ids = backend.model.generate(
                    **batch, max_new_tokens=limit, do_sample=False, num_beams=1,
                    eos_token_id=backend.stop_ids, pad_token_id=backend.pad_id,
                )  # fmt: skip
            for place, row in zip(places, ids[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                stop = next((i for i, token in enumerate(row) if token in backend.stop_ids), len(row))
                answers[place] = backend.processor.tokenizer.decode(row[:stop], skip_special_tokens=False).strip()
        return answers

    def ours() -> list[str]:
        shutil.rmtree(out / "overhead.json.partial", ignore_errors=True)
        journal = Journal(out / "overhead.json", {"model": "m"})
        journal.start()
        generator = Generator(backend, BATCH, progress=True, journal=journal)
        requests = [Request(sample.id, sample.prompt) for sample in samples]
        replies = generator.answer(requests, Decoding(limit), "overhead")
        journal.close()
        return [reply.text for reply in replies]

    ratios, seconds = [], {"bare": [], "ours": []}
    assert bare() == ours(), "the runner answers otherwise than bare generate"
    for _ in range(ROUNDS):
        took = {}
        for name, work in (("bare", bare), ("ours", ours)):
            started = time.perf_counter()
            work()
            took[name] = time.perf_counter() - started
            seconds[name].append(took[name])
        ratios.append(took["ours"] / took["bare"])
    command = f"{len(samples)} pages, batches of {BATCH}, {ROUNDS} rounds in turn, median"
    return [
        Number("runner over bare batched generate, time", "<= 1.1", round(statistics.median(ratios), 4), command),
        Number("bare batched generate, seconds", "", round(statistics.median(seconds["bare"]), 3), command),
    ]


def sorting_numbers(model: Path) -> list[Number]:
    """Arrival order over sorted by length: prompts of mixed lengths (log-normal), with pages and without."""
    from eval.backends import Decoding, open_backend
    from eval.generation import Generator, Request

    backend = open_backend(str(model), device="cpu")
    rng = random.Random(0)
    requests = []
    for number in range(192):
        words = max(2, min(600, round(rng.lognormvariate(4.0, 1.0))))
        text = " ".join(rng.choice(("red", "total", "page", "seven", "left")) for _ in range(words))
        requests.append(Request(str(number), [{"role": "user", "content": [{"type": "text", "text": text}]}]))
    ratios, answers = [], {}
    for _ in range(3):
        took = {}
        for sort in (False, True):
            generator = Generator(backend, 16, progress=False, sort=sort)
            started = time.perf_counter()
            answers[sort] = [reply.text for reply in generator.answer(requests, Decoding(8))]
            took[sort] = time.perf_counter() - started
        ratios.append(took[False] / took[True])
    command = f"{len(requests)} questions of 2 to 600 words, median 55, batches of 16, 3 rounds in turn, median"
    differ = sum(a != b for a, b in zip(answers[False], answers[True], strict=True))
    return [
        Number("arrival order over sorted by length, time", ">= 1.3", round(statistics.median(ratios), 3), command),
        Number("answers that depend on the order", "<= 0", differ, command),
    ]


def eval_numbers(out: Path, model: Path) -> list[Number]:
    """All of them. `model`: a trained tiny checkpoint, such as the demo's export."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    numbers = fixture_numbers() + kill_numbers(out, model)
    return numbers + overhead_numbers(out, model) + sorting_numbers(model)


if __name__ == "__main__":
    found = eval_numbers(Path(sys.argv[1]), Path(sys.argv[2]))
    print(table(found))
    sys.exit(any(number.ok is False for number in found))
