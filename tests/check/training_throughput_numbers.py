"""What the training engine gains over a straightforward `transformers.Trainer` script, images included.

Same weights, kernels, samples a step and order of steps, optimizer and logging; the script pads to the longest of the
step. Both trainers run in one process of two threads and take turns step by step, each with its own clock, so a busy
machine disturbs both alike; reading, decoding and measuring data are on the clock, in that process. The losses of every
step must agree, or it would not be the same training.
"""

import copy
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

STEPS, THREADS, LONGEST, BUFFER = 24, 2, 4096, 128
DOCUMENTS, TEXTS = 150, 350


def write_corpus(folder: Path) -> Path:
    """Scanned documents with questions, as in the demo, and text of log-normal length (median 300, sigma 0.9)."""
    from tests.helpers.data_folders import record, write_records
    from training.data.synthetic import documents

    documents.write(folder / "documents", "train", 0, DOCUMENTS)
    rng, records = random.Random(0), []
    for number in range(TEXTS):
        length = round(min(300 * 2.718281828 ** (0.9 * rng.gauss(0, 1)), LONGEST - 100))
        words = "".join(rng.choice("abcdefghijklmnop     ") for _ in range(length + 2))
        question, answer = words[: len(words) // 3] + "?", words[len(words) // 3 :] + "."
        records.append(record(f"t{number}", question=question, answer=answer))
    write_records(folder / "text", records)
    return folder


def write_model(folder: Path) -> Path:
    """The model of `radio-vlm new --preset tiny`."""
    from tests.helpers.tiny_vlm import build_tiny
    from vlm.cli.parts import MODEL_PRESETS

    preset = MODEL_PRESETS["tiny"]
    model, processor = build_tiny(geometry=preset["geometry"], video=preset["video"])
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class Turns:
    """Hands the machine from one trainer to the other after every step, and keeps a clock for each."""

    def __init__(self, count: int) -> None:
        self.gates = [threading.Semaphore(int(number == 0)) for number in range(count)]
        self.seconds: list[list[float]] = [[] for _ in range(count)]
        self.alive = [True] * count

    def callback(self, number: int):
        from transformers import TrainerCallback

        class Turn(TrainerCallback):
            def on_train_begin(callback, args, state, control, **kwargs):
                self._wait(number)

            def on_step_end(callback, args, state, control, **kwargs):
                self.seconds[number].append(time.perf_counter() - self.started)
                self._pass_on(number)
                self._wait(number)

            def on_train_end(callback, args, state, control, **kwargs):
                self.alive[number] = False
                self._pass_on(number)

        return Turn()

    def _wait(self, number: int) -> None:
        self.gates[number].acquire()
        self.started = time.perf_counter()

    def _pass_on(self, number: int) -> None:
        others = [(number + step) % len(self.gates) for step in range(1, len(self.gates) + 1)]
        following = next((other for other in others if self.alive[other]), None)
        if following is not None:
            self.gates[following].release()


def plain_trainer(model, processor, samples, steps: list[list[int]], args, callback):
    """The straightforward script: read, encode and pad the samples of a step, let the library do the rest."""
    import torch
    from transformers import Trainer

    class Steps(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(steps)

        def __getitem__(self, number: int):
            return [processor.encode(samples[index].resolved_messages()) for index in steps[number]]

    class PlainTrainer(Trainer):
        def _get_train_sampler(self, dataset=None):
            return torch.utils.data.SequentialSampler(dataset or self.train_dataset)

    return PlainTrainer(
        model=model, args=args, train_dataset=Steps(), data_collator=lambda rows: dict(processor.collate(rows[0])),
        callbacks=[callback],
    )  # fmt: skip


def measure() -> dict:
    """Seconds of both trainers over the same steps."""
    import torch

    torch.set_num_threads(THREADS)
    from transformers import TrainingArguments

    from training.arguments import training_arguments
    from training.data_loading import build_data
    from training.environment import Machine, quiet_libraries
    from training.loading import load_model
    from training.recipe.loading import load_recipe
    from training.trainable import make_trainable
    from training.trainer import StageTrainer
    from training.watch.throughput import COUNTS

    quiet_libraries()
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    corpus, weights = write_corpus(folder / "data"), write_model(folder / "model")
    machine = Machine(rank=0, local_rank=0, world_size=1, device="cpu", launched=False)
    settings = {"learning_rate": 3e-4, "max_grad_norm": 1.0, "max_steps": STEPS}
    words = [
        f"model={weights}", f"output_dir={folder / 'ours'}",
        f"data.sources=[{{path: {corpus / 'documents'}}}, {{path: {corpus / 'text'}}}]",
        f"max_length={LONGEST}", "packing=true", f"packing_buffer={BUFFER}", "per_device_batch_size=1",
        "zero=none", "schedule=constant", "warmup_ratio=0", "log_steps=1", "watch.report_to=[]",
        *(f"{key}={value}" for key, value in settings.items()),
    ]  # fmt: skip
    recipe = load_recipe(None, words)
    args = training_arguments(recipe, machine)
    model, processor = load_model(recipe, args)
    groups, _ = make_trainable(model, processor, recipe)
    twin = copy.deepcopy(model)
    dataset, loader, _ = build_data(recipe, processor, machine, model)

    planner = build_data(recipe, processor, machine, model)[1]  # another one, asked for the samples of each step alone
    planned = (rows for rows, _ in planner.plan.batches())
    steps = [[ticket.index for row in next(planned) for ticket in row] for _ in range(STEPS)]

    turns = Turns(2)
    ours = StageTrainer(recipe=recipe, groups=groups, loader=loader, model=model, args=args, train_dataset=dataset,
                        processing_class=processor, callbacks=[turns.callback(0)])  # fmt: skip
    plain_args = TrainingArguments(
        output_dir=str(folder / "plain"), per_device_train_batch_size=1, lr_scheduler_type="constant", logging_steps=1,
        report_to=[], remove_unused_columns=False, label_names=["labels"], disable_tqdm=True, save_strategy="no",
        use_cpu=True, weight_decay=0.0, dataloader_pin_memory=False, **settings,
    )  # fmt: skip
    theirs = plain_trainer(twin, processor, dataset.samples, steps, plain_args, turns.callback(1))
    failed: list[BaseException] = []

    def run(trainer, number: int) -> None:
        try:
            trainer.train()
        except BaseException as error:  # noqa: BLE001 - the other trainer must not wait for ever
            failed.append(error)
            turns.alive[number] = False
            turns._pass_on(number)

    threads = [threading.Thread(target=run, args=(trainer, number)) for number, trainer in enumerate((ours, theirs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]

    losses = [[row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (ours, theirs)]
    lengths = [[dataset.measure(_ticket(index)).tokens for index in step] for step in steps]
    return {
        "seconds": turns.seconds,
        "losses": losses,
        "tokens": [sum(step) for step in lengths],
        "padded_places": [max(step) * len(step) for step in lengths],
        "waited": float(ours.throughput.counts[COUNTS.index("waited")]) / sum(turns.seconds[0]),
        "random_places": random_places([tokens for step in lengths for tokens in step], [len(step) for step in steps]),
        "packing": loader.report()["packing"],
        "images": sum(dataset.samples[index].id[:1] != "t" for step in steps for index in step),
    }


def random_places(lengths: list[int], sizes: list[int]) -> float:
    """Places that padding to the longest takes when the same samples come in random order in steps of these sizes; the
    packer spreads long samples over the steps, which random order does not. Mean of 100 orders."""
    rng, total = random.Random(0), 0
    for _ in range(100):
        order = iter(rng.sample(lengths, len(lengths)))
        total += sum(max(next(order) for _ in range(size)) * size for size in sizes)
    return total / 100


def _ticket(index: int):
    from training.data.feed import Ticket

    return Ticket(-1, 0, index)


def training_throughput_numbers(out: Path) -> list[Number]:
    """The rows of `make check`; measured in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--measure"], cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "training_throughput.json").write_text(json.dumps(found, indent=1))
    warm = slice(1, None)  # the first step warms up memory and threads
    ours, theirs = (sum(seconds[warm]) for seconds in found["seconds"])
    tokens = sum(found["tokens"][warm])
    places = sum(found["padded_places"])
    at_random = found["random_places"] / sum(found["tokens"])
    worst = max(abs(a - b) / b for a, b in zip(*found["losses"]))
    command = (
        f"preset tiny, {STEPS} steps, {DOCUMENTS} documents and {TEXTS} texts (log-normal, median 300, sigma 0.9), "
        f"packs of {LONGEST}, {THREADS} threads, one process, taking turns"
    )
    return [
        Number("training engine: real tokens a second", "", tokens / ours, command),
        Number("training engine / transformers.Trainer padding to the longest", ">= 1.8", theirs / ours, command),
        Number("training engine: waiting for data, share of the time", "<= 0.05", found["waited"], command),
        Number("training engine minus transformers.Trainer: loss of a step, relative", "<= 1e-3", worst, command),
        Number("training engine: fill of the packs", ">= 0.97", found["packing"]["fill"], command),
        Number("transformers.Trainer: places per real token", "", places / sum(found["tokens"]), command),
        Number("the same samples in random order: places per real token", "", at_random, command),
    ]


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        print(json.dumps(measure()))
    else:
        print(table(training_throughput_numbers(Path(sys.argv[1]))))
