"""The runner's own promises: memory that runs out, media opened ahead, order, stop strings, several processes."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from eval.backends.base import Backend, Batch, Decoding, Encoded, Reply
from eval.backends.radio import RadioBackend
from eval.generation import Generator, Request
from tests.helpers.fake_vlm import FakeModel, FakeProcessor
from tests.helpers.stage_runs import small_vlm

ROOT = Path(__file__).resolve().parents[2]


class Bounded(Backend):
    """Answers with the length of the question; more than `room` characters at once do not fit."""

    name = "bounded"

    def __init__(self, room, error=None):
        self.room, self.error = room, error or torch.OutOfMemoryError("CUDA out of memory")
        self.batches, self.tried = [], []

    def encode(self, messages, sample_id):
        text = messages[-1]["content"][0]["text"]
        return Encoded(data=text, length=len(text), nbytes=len(text))

    def generate(self, batch, decoding):
        self.tried.append(len(batch))
        if len(batch) * max(one.length for one in batch) > self.room:
            raise self.error
        self.batches.append([one.length for one in batch])
        return Batch([Reply(str(one.length), tokens=1, stopped=True) for one in batch], prefill_seconds=0.0)


def requests(lengths):
    return [
        Request(str(i), [{"role": "user", "content": [{"type": "text", "text": "x" * n}]}])
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
])  # fmt: skip
def test_out_of_memory_halves_the_batch_for_good(error, caplog):
    backend = Bounded(room=40, error=error)
    generator = Generator(backend, batch_size=16, progress=False)
    replies = generator.answer(requests([10] * 50), Decoding(4))
    assert [reply.text for reply in replies] == ["10"] * 50 and generator.batch_size == 4
    # tried once with 16, once with 8 (a half); from then on with 4, and never more again
    assert backend.tried[:3] == [16, 8, 4] and max(backend.tried[3:]) <= 8 and backend.tried.count(8) == 2
    assert "out of memory with 16 prompts at once; going on with batches of 8" in caplog.text


def test_what_does_not_fit_alone_is_one_failed_sample():
    backend = Bounded(room=40)
    replies = Generator(backend, batch_size=4, progress=False).answer(requests([10, 99, 5]), Decoding(4))
    assert [bool(reply.error) for reply in replies] == [False, True, False] and "memory" in replies[1].error


def test_another_failure_does_not_shrink_batches():
    backend = Bounded(room=40, error=RuntimeError("bad token"))
    generator = Generator(backend, batch_size=4, progress=False)
    replies = generator.answer(requests([5, 5, 5, 99, 5, 5, 5, 5]), Decoding(4))
    assert [bool(r.error) for r in replies] == [i == 3 for i in range(8)] and generator.batch_size == 4


def test_sorting_fills_batches_with_like_lengths_and_changes_no_answer():
    lengths = [(7 * i) % 50 + 1 for i in range(50)]
    padded, answers = {}, {}
    for sort, workers in ((True, 2), (False, 2), (None, 0)):
        backend = Bounded(room=10**6)
        generator = Generator(backend, 5, progress=False, sort=sort is not False, workers=workers)
        answers[sort] = [reply.text for reply in generator.answer(requests(lengths), Decoding(4))]
        padded[sort] = sum(len(batch) * max(batch) for batch in backend.batches)
    assert answers[True] == answers[False] == answers[None] == [str(n) for n in lengths]
    assert padded[None] == padded[True], "threads change nothing but the time"
    assert padded[True] < 0.7 * padded[False]


def test_media_are_opened_while_the_model_works():
    """Encoding of later prompts overlaps with answering: both sleep, and the whole takes less than their sum."""

    class Slow(Bounded):
        busy, overlapped = False, False

        def encode(self, messages, sample_id):
            time.sleep(0.005)
            self.overlapped |= self.busy
            return super().encode(messages, sample_id)

        def generate(self, batch, decoding):
            self.busy = True
            time.sleep(0.05)
            self.busy = False
            return super().generate(batch, decoding)

    backend = Slow(room=10**6)
    Generator(backend, 1, progress=False).answer(requests([3] * 64), Decoding(4))
    assert backend.overlapped


def test_no_more_is_opened_ahead_than_memory_allows(monkeypatch):
    """Pages of a real document take megabytes each: those that wait must stay below the window, whatever its length."""
    monkeypatch.setattr("eval.generation.WINDOW_BYTES", 1000)
    lock, held, most = threading.Lock(), [0], [0]

    class Counting(Bounded):
        def encode(self, messages, sample_id):
            encoded = super().encode(messages, sample_id)
            with lock:
                held[0] += encoded.nbytes
                most[0] = max(most[0], held[0])
            return encoded

        def generate(self, batch, decoding):
            with lock:
                held[0] -= sum(one.nbytes for one in batch)
            return super().generate(batch, decoding)

    replies = Generator(Counting(10**9), 2, progress=False).answer(requests([100] * 400), Decoding(4))
    assert len(replies) == 400 and not any(reply.error for reply in replies)
    assert most[0] <= 1000 + 1000 + 4 * 100, "one window waits, one is opened ahead, and a batch or two"


def test_stop_strings_end_and_cut_an_answer():
    backend = RadioBackend(FakeModel(lambda picture, text: "first line\n\nsecond line"), FakeProcessor())
    ask = requests([3])
    (cut,) = Generator(backend, progress=False).answer(ask, Decoding(64, stop=("\n\n",)))
    (whole,) = Generator(backend, progress=False).answer(ask, Decoding(64))
    assert (cut.text, cut.stopped) == ("first line", True) and whole.text == "first line\n\nsecond line"


def test_generation_itself_stops_at_a_stop_string():
    """... and does not run on to the limit, to be cut afterwards."""
    model, processor = small_vlm()
    backend = RadioBackend(model, processor)
    ask = [Request("a", [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}])]
    (free,) = Generator(backend, progress=False).answer(ask, Decoding(24))
    assert free.tokens >= 8, "the untrained model babbles; choose another question"
    stop = free.text[2:4]
    (cut,) = Generator(backend, progress=False).answer(ask, Decoding(24, stop=(stop,)))
    assert cut.text == free.text[: free.text.index(stop)].strip() and cut.stopped and cut.tokens < free.tokens


def test_tokens_of_an_answer_that_stops_at_a_string_are_its_own():
    """... and not the padding of a neighbour that goes on: figures must not depend on the batch."""
    model, processor = small_vlm()
    backend = RadioBackend(model, processor)
    ask = [Request(str(n), [{"role": "user", "content": [{"type": "text", "text": "why " * n}]}]) for n in (1, 2, 9)]
    free = Generator(backend, progress=False).answer(ask, Decoding(12))
    stop = free[0].text[1:3]
    assert any(stop not in reply.text[:6] for reply in free[1:]), "all stop at once; choose other questions"
    counted = {
        size: [reply.tokens for reply in Generator(backend, size, progress=False).answer(ask, Decoding(12, (stop,)))]
        for size in (1, 8)
    }
    assert counted[8] == counted[1] and counted[1][0] < free[0].tokens


def test_an_interrupt_does_not_wait_for_what_was_to_be_opened():
    """Ctrl-C in a benchmark of videos: a thousand of them may stand in line to be opened."""

    class Interrupted(Bounded):
        opened = 0

        def encode(self, messages, sample_id):
            self.opened += 1
            time.sleep(0.02)
            return super().encode(messages, sample_id)

        def generate(self, batch, decoding):
            raise KeyboardInterrupt

    backend = Interrupted(10**6)
    with pytest.raises(KeyboardInterrupt):
        Generator(backend, 1, progress=False).answer(requests([3] * 200), Decoding(4))
    assert backend.opened < 30, "16 of the first window, and few that were being opened"


def test_phases_are_timed_apart():
    model, processor = small_vlm()
    generator = Generator(RadioBackend(model, processor), 4, progress=False)
    generator.answer(requests([5, 9, 30, 2]), Decoding(12))
    spent = generator.spent
    assert 0 < spent.prefill_seconds < spent.generate_seconds and spent.encode_seconds > 0
    assert spent.requests == 4 and spent.new_tokens > 0 and spent.prompt_tokens > 46


def test_two_processes_give_the_results_of_one(tmp_path):
    pytest.importorskip("accelerate", reason="optional package absent")
    model, processor = small_vlm()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "m")
    rows = [{"id": f"q{i}", "question": "why " * (i % 5 + 1) + str(i), "answers": ["x"]} for i in range(9)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["eval/run.py", "--model", str(tmp_path / "m"), "--data", str(tmp_path / "d.jsonl"), "--device", "cpu"]
    words += ["--no-progress", "--max-new-tokens", "6", "--batch-size", "2"]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(29600 + os.getpid() % 1000)]
    found = {}
    for name, start in (("one", []), ("two", launch)):
        out = tmp_path / f"{name}.json"
        done = subprocess.run(
            [sys.executable, *start, *words, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=240,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = json.loads(out.read_text())
        assert not Path(f"{out}.partial").exists()
    assert found["two"]["provenance"]["processes"] == 2
    one, two = ([(r["id"], r["output"], r["score"]) for r in found[name]["samples"]] for name in ("one", "two"))
    assert one == two and len(one) == 9
    assert found["two"]["provenance"]["tasks"]["d"]["requests"] == 9, "counts are those of all processes"
