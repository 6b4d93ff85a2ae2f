"""Answers of the model in training to a few held-out samples, every N steps, beside their pictures.

A falling loss says little about what a model says. Asking takes no random number and leaves no trace in the training:
the losses are those of a run without it (a test compares them).
"""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback

from training.ranks import gather_objects, world_size
from training.watch.predictions_page import write_page
from training.watch.questions import Question
from training.watch.throughput import Throughput

FOLDER, PAGE = "predictions", "predictions.html"


class Predictions(TrainerCallback):
    """Writes `predictions/step-N.json` and the page `predictions.html` before the first step, every N and at the end.

    Args:
        model: () -> the unwrapped model. autocast: () -> the context in which the trainer calls its model.
        questions: the same on all ranks. rank: of this process.
        writer: () -> tensorboard's writer, or None.
    """

    def __init__(
        self, model: Callable[[], nn.Module], processor, questions: list[Question], every: int, folder: str | Path,
        throughput: Throughput, rank: int, title: str = "", autocast: Callable = contextlib.nullcontext,
        writer: Callable = lambda: None,
    ):  # fmt: skip
        self.model, self.processor, self.questions, self.every = model, processor, questions, every
        self.output, self.throughput, self.rank, self.title = Path(folder), throughput, rank, title
        self.autocast, self.writer = autocast, writer
        self.last: int | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            if state.is_world_process_zero:  # of an earlier run in this folder
                for old in (self.output / FOLDER).glob("step-*.json"):
                    old.unlink()
            self._predict(state)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0:
            self._predict(state)

    def on_train_end(self, args, state, control, **kwargs):
        if state.global_step != self.last:
            self._predict(state)

    def _predict(self, state) -> None:
        self.last = state.global_step
        with self.throughput.paused():
            with self.autocast():
                answers = predict(self.model(), self.processor, self.questions, self.rank)
            if state.is_world_process_zero:
                self._write(state.global_step, answers)

    def _write(self, step: int, answers: list[dict]) -> None:
        rows = [
            {"id": q.id, "source": q.source, "question": q.question, "reference": q.reference, **answer}
            for q, answer in zip(self.questions, answers, strict=True)
        ]
        path = self.output / FOLDER / f"step-{step:06d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"step": step, "samples": rows}
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_page(self.output / PAGE, self.title, self.questions, self._all_steps(step))
        self._to_tensorboard(rows, step)

    def _all_steps(self, newest: int) -> list[dict]:
        """What was written so far, in the order of steps; later steps of a run that was taken up again are left out."""
        records = [json.loads(path.read_text(encoding="utf-8")) for path in (self.output / FOLDER).glob("step-*.json")]
        return sorted((one for one in records if one["step"] <= newest), key=lambda record: record["step"])

    def _to_tensorboard(self, rows: list[dict], step: int) -> None:
        writer = self.writer()
        if writer is None:
            return
        for question, row in zip(self.questions, rows, strict=True):
            tag = f"predictions/{question.source}/{question.id}"
            text = f"{row['question']}\n\n**reference** {row['reference']}\n\n**answer** {row['answer']}"
            writer.add_text(tag, text, step)
            if question.pictures:
                writer.add_image(tag, np.asarray(side_by_side(question.pictures)), step, dataformats="HWC")
        writer.flush()


@torch.no_grad()  # not inference_mode: what the encoder keeps of its position tables must serve training too
def predict(model: nn.Module, processor, questions: list[Question], rank: int) -> list[dict]:
    """`{"answer", "tokens", "stopped"}` a question, on all ranks; called by all of them together.

    The ranks share the questions; where weights are sharded (ZeRO-3) each answers all, since they gather the weights
    together, layer by layer, and token by token. Random state and training mode are as before afterwards.
    """
    sharded = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    mine = range(len(questions)) if sharded else range(rank, len(questions), world_size())
    modes = {module: module.training for module in model.modules()}
    with _same_random_state():
        model.eval()
        try:
            answers = {index: _answer(model, processor, questions[index]) for index in mine}
        finally:
            for module, mode in modes.items():
                module.training = mode
    merged = {index: answer for own in gather_objects(answers) for index, answer in own.items()}
    return [merged[index] for index in range(len(questions))]


def _answer(model: nn.Module, processor, question: Question) -> dict:
    device = next(parameter.device for parameter in model.parameters())
    batch = processor.collate([question.row], padding_side="left")
    batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
    stop = list(dict.fromkeys([*processor.stop_token_ids, processor.tokenizer.eos_token_id]))
    stop = [token for token in stop if token is not None]
    pad = processor.tokenizer.pad_token_id
    output = model.generate(
        **batch, max_new_tokens=question.max_new_tokens, do_sample=False, num_beams=1, use_cache=True,
        eos_token_id=stop or None, pad_token_id=pad if pad is not None else (stop or [0])[0],
    )  # fmt: skip
    ids = output[0, batch["input_ids"].shape[1] :].tolist()
    end = next((place for place, token in enumerate(ids) if token in stop), None)
    text = processor.tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=False)
    return {"answer": text.strip(), "tokens": len(ids) if end is None else end, "stopped": end is not None}


@contextlib.contextmanager
def _same_random_state():
    """Whatever random numbers are drawn inside, those drawn afterwards are as if none had been."""
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def side_by_side(pictures: list):
    """Pictures in one row on a grey ground."""
    from PIL import Image

    row = Image.new("RGB", (sum(p.width + 4 for p in pictures) - 4, max(p.height for p in pictures)), (96, 96, 96))
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + 4
    return row
