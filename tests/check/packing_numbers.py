"""The numbers packing promises: every family packed against separate, and what packing gains over padding in training.

The benchmark runs in a process of its own with two threads; rivals take turns on every optimizer step, so a busy
machine disturbs all alike.
"""

import copy
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

SAMPLES, LONGEST = 9, 4096  # samples of an optimizer step; longest sample, and length of a pack
STEPS, ROUNDS, THREADS = 6, 3, 2


def family_numbers() -> list[Number]:
    """Largest errors over rows of one and two samples' lists, random lengths 1 ... 300, float32."""
    import torch

    from llm import families
    from tests.helpers import tiny_llm as tiny

    rows = []
    for name in families():
        native = tiny.native_model(name)
        model = tiny.prepared_copy(native)
        logits, grads, controls = [], [], []
        for batch in (1, 2):
            for seed in range(2):
                lengths = tiny.random_rows(batch, seed=seed)
                ids, seq_idx = tiny.random_ids(lengths, seed), tiny.seq_idx_of(lengths)
                wanted, found = tiny.separate_logits(native, ids, lengths), model(ids, seq_idx=seq_idx).logits
                weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed))
                logits.append(tiny.difference(found, wanted))
                wanted_gradients = tiny.gradients(native, (wanted * weights).sum())
                grads.append(tiny.gradient_error(tiny.gradients(model, (found * weights).sum()), wanted_gradients))
                with torch.no_grad():
                    controls.append(tiny.difference(model(ids).logits, wanted))
        command = f"tiny {name}, 4 batches, packed row against transformers on each sample alone"
        rows += [
            Number(f"{name}: packed minus separate, logits", "<= 2e-5", max(logits), command),
            Number(f"{name}: packed minus separate, gradients, relative", "<= 1e-4", max(grads), command),
            Number(f"{name}: the same row without seq_idx minus separate", ">= 1e-2", min(controls), command),
        ]
    return rows


def draw_lengths(count: int) -> list[int]:
    """Log-normal, median 300, sigma 0.9, cut at `LONGEST`."""
    import torch

    normal = torch.randn(count, generator=torch.Generator().manual_seed(0))
    return [max(2, min(LONGEST, round(length))) for length in (300 * (0.9 * normal).exp()).tolist()]


def first_fit(lengths: list[int]) -> list[list[int]]:
    """Indices of the samples of each pack: a sample goes whole into the first pack that has room."""
    packs: list[list[int]] = []
    for index, length in enumerate(lengths):
        for pack in packs:
            if sum(lengths[i] for i in pack) + length <= LONGEST:
                pack.append(index)
                break
        else:
            packs.append([index])
    return packs


def packed_batches(samples: list) -> list[dict]:
    """One row a pack, as long as its samples."""
    import torch

    batches = []
    for pack in first_fit([len(sample) for sample in samples]):
        rows = [samples[i] for i in pack]
        numbers = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(row) for row in rows]))
        ids = torch.cat(rows)[None]
        batches.append({"input_ids": ids, "labels": ids, "seq_idx": numbers[None]})
    return batches


def padded_batches(samples: list) -> list[dict]:
    """One row a sample, padded to the longest of the step."""
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence(samples, batch_first=True)
    mask = pad_sequence([sample.new_ones(len(sample)) for sample in samples], batch_first=True)
    return [{"input_ids": ids, "labels": ids.masked_fill(mask == 0, -100), "attention_mask": mask}]


def unmasked_batches(samples: list) -> list[dict]:
    """As padded, without the mask, which causal attention and scan do not need when padding comes last."""
    found = padded_batches(samples)
    return [{name: value for name, value in batch.items() if name != "attention_mask"} for batch in found]


class Rival:
    """A way to train: its own copy of the model, its optimizer, its layout of a step."""

    def __init__(self, model, layout, steps: list[list], options: dict) -> None:
        import torch

        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.steps = [(layout(samples), sum(len(sample) - 1 for sample in samples)) for samples in steps]
        self.options = options
        self.seconds = [[] for _ in steps]
        self.losses: list[float] = []

    def step(self, index: int) -> None:
        """One optimizer step: every batch forward and backward, then the update."""
        batches, targets = self.steps[index]
        start = time.perf_counter()
        loss = 0.0
        for batch in batches:
            part = self.model(**batch, **self.options, num_items_in_batch=targets).loss
            part.backward()
            loss += part.item()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.seconds[index].append(time.perf_counter() - start)
        self.losses.append(loss)

    def warm_up(self) -> None:
        """The shortest step, without an update."""
        batches, targets = min(self.steps, key=lambda step: sum(batch["labels"].numel() for batch in step[0]))
        for batch in batches:
            self.model(**batch, **self.options, num_items_in_batch=targets).loss.backward()
        self.optimizer.zero_grad(set_to_none=True)

    def total(self) -> float:
        """Seconds for all steps, the median of each."""
        return sum(statistics.median(found) for found in self.seconds)


def throughput() -> dict:
    """Seconds for the same samples, each way."""
    import torch

    from llm.presets import LLM_PRESETS
    from tests.helpers.tiny_llm import native_model, prepared_copy

    torch.set_num_threads(THREADS)
    native = native_model(LLM_PRESETS["tiny"].config())
    vocabulary = native.config.vocab_size
    prepared = prepared_copy(native)
    lengths = draw_lengths(STEPS * SAMPLES)
    data = [torch.randint(5, vocabulary, (length,)) for length in lengths]
    steps = [data[i : i + SAMPLES] for i in range(0, len(data), SAMPLES)]
    by_length = sorted(data, key=len)  # as group_by_length does within a megabatch
    grouped = [by_length[i : i + SAMPLES] for i in range(0, len(data), SAMPLES)]
    ours, theirs = {"skip_logits": True}, {}
    rivals = {
        "packed": Rival(prepared, packed_batches, steps, ours),
        "padded": Rival(copy.deepcopy(prepared), padded_batches, steps, ours),
        "unmasked": Rival(copy.deepcopy(prepared), unmasked_batches, steps, ours),
        "grouped": Rival(copy.deepcopy(prepared), padded_batches, grouped, ours),
        "native": Rival(copy.deepcopy(native), padded_batches, steps, theirs),
    }
    for rival in rivals.values():  # memory pools and thread pools
        rival.warm_up()
    for turn in range(ROUNDS):
        for index in range(STEPS):
            for name, rival in rivals.items():
                if turn == 0 or name != "native":  # the slow one once
                    rival.step(index)
    for name in ("padded", "unmasked", "native"):  # the same training, step by step
        worst = max(abs(a - b) for a, b in zip(rivals["packed"].losses, rivals[name].losses))
        assert worst <= 2e-3, f"losses differ by {worst}"
    tokens = sum(lengths)
    cells = {name: sum(b["input_ids"].numel() for batches, _ in r.steps for b in batches) for name, r in rivals.items()}
    return {
        "tokens": tokens,
        "seconds": {name: rival.total() for name, rival in rivals.items()},
        "positions": {name: count / tokens for name, count in cells.items()},
    }


def throughput_numbers(out: Path) -> list[Number]:
    """Real tokens a second of packed training against its rivals."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "throughput.json").write_text(json.dumps(found, indent=1))
    seconds = found["seconds"]
    command = f"preset tiny (M*-M*-), {STEPS} steps of {SAMPLES} samples, {THREADS} threads, one run"
    gain = lambda name: seconds[name] / seconds["packed"]  # noqa: E731
    return [
        Number("packed training: real tokens a second", "", found["tokens"] / seconds["packed"], command),
        Number("packed / padded to the longest: real tokens a second", ">= 2.2", gain("padded"), command),
        Number("packed / padded without attention_mask: real tokens a second", "", gain("unmasked"), command),
        Number("padded to the longest: positions per real token", "", found["positions"]["padded"], command),
        Number("packed / padded, group_by_length: real tokens a second", "", gain("grouped"), command),
        Number("packed / padded, transformers' own scan: real tokens a second", "", gain("native"), command),
    ]


def packing_numbers(out: Path) -> list[Number]:
    """All rows."""
    return [*family_numbers(), *throughput_numbers(out)]


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        print(json.dumps(throughput()))
    else:
        print(table(packing_numbers(Path(sys.argv[1]))))
