"""What pruning a video's tokens is worth: time to first token on 64 frames, and what accuracy it costs.

Time: a random model whose language model takes about five times as long as its encoder (as a 12B hybrid to RADIO-H), 64
frames of 512 x 512 pixels with a label each, from the processor's output to the first token, encoding included. The
rivals take turns within one process; medians. Accuracy: a trained checkpoint on the synthetic videos, with and without.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

RATE, FRAMES, SIDE, ROUNDS, THREADS = 0.75, 64, 512, 3, 2
RATES = (0.25, 0.5, 0.75)
SHARED = Path(os.environ.get("RADIO_VLM_SHARED", ROOT.parent / "shared"))
# sizes chosen for the ratio of the two parts, not for what they could learn
VISION = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "max_img_size": SIDE}
TEXT = {
    "hidden_size": 512, "intermediate_size": 2048, "hybrid_override_pattern": "M-M-M*-M-M-M-", "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "mamba_num_heads": 16, "mamba_head_dim": 64, "n_groups": 1,
    "ssm_state_size": 64, "chunk_size": 128, "max_position_embeddings": 32768,
}  # fmt: skip


def tokenizer():
    """A real one of 50k words where it is; else bytes, whose frame labels take several times the tokens."""
    from transformers import PreTrainedTokenizerFast

    from llm.tiny_tokenizer import build_byte_tokenizer

    path = SHARED / "data/tokenizers/gpt_neox_20b_tokenizer.json"
    if not path.is_file():
        return build_byte_tokenizer()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token=end, eos_token=end, pad_token=end)


def random_model():
    """`(model, processor)` of random weights, the language model prepared as training prepares it."""
    import torch
    from transformers import NemotronHConfig

    from encoders.radio_config import RadioEncoderConfig
    from llm.prepare import prepare_language_model
    from vlm.build import build_vlm

    torch.manual_seed(0)
    words = tokenizer()
    text = NemotronHConfig(
        **TEXT, vocab_size=len(words), pad_token_id=0, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id
    )
    model, processor = build_vlm(
        RadioEncoderConfig(**VISION),
        text,
        words,
        geometry={"mode": "fixed", "size": [SIDE, SIDE]},
        video={"max_frames": FRAMES, "temporal_patch_size": 1},
    )
    prepare_language_model(model.language_model)
    return model.eval(), processor


def prompt(processor, rate: float) -> dict:
    """Batch of one question about 64 frames, a share `rate` of whose tokens is pruned."""
    import torch

    drawn = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (FRAMES, 3, SIDE, SIDE), dtype=torch.uint8, generator=drawn)
    processor.video = {**processor.video, "pruning_rate": rate}
    return processor(text="<video>\nWhat happens?", videos=[frames], video_timestamps=[[i / 2 for i in range(FRAMES)]])


class Clock:
    """Seconds inside of modules, added up over their calls."""

    def __init__(self, **parts) -> None:
        self.spent = dict.fromkeys(parts, 0.0)
        for name, modules in parts.items():
            for module in modules:
                module.register_forward_pre_hook(lambda *_, name=name: self._add(name, -1))
                module.register_forward_hook(lambda *_, name=name: self._add(name, 1))

    def _add(self, name: str, sign: int) -> None:
        self.spent[name] += sign * time.perf_counter()

    def read(self) -> dict[str, float]:
        """What was spent since the last call."""
        spent, self.spent = self.spent, dict.fromkeys(self.spent, 0.0)
        return spent


def time_to_first_token() -> dict:
    """Medians of seconds and tokens of the prompt, by pruning rate."""
    import torch

    torch.set_num_threads(THREADS)
    model, processor = random_model()
    batches = {rate: prompt(processor, rate) for rate in (0.0, RATE)}
    clock = Clock(encoder=[model.vision_model, model.multi_modal_projector], prefill=[model.language_model])
    runs = {rate: [] for rate in batches}
    for turn in range(ROUNDS + 1):
        for rate, batch in batches.items():  # in turns: a noisy machine disturbs both alike
            start = time.perf_counter()
            made = model.generate(**batch, max_new_tokens=1, do_sample=False)
            seconds = {"first token": time.perf_counter() - start, **clock.read()}
            assert made.shape[1] == batch["input_ids"].shape[1] + 1
            if turn:  # the first round only warms up
                runs[rate].append(seconds)
    found = {}
    for rate, rounds in runs.items():
        medians = {name: statistics.median(run[name] for run in rounds) for name in rounds[0]}
        found[str(rate)] = {**medians, "tokens": batches[rate]["input_ids"].shape[1]}
    return found


def timing(out: Path) -> list[Number]:
    """Rows of the time to first token, measured in a process of its own."""
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    subprocess.run([sys.executable, __file__, "--time", out / "time.json"], cwd=ROOT, check=True, env=environment)
    found = json.loads((out / "time.json").read_text())
    whole, pruned = found["0.0"], found[str(RATE)]
    command = f"model.generate(max_new_tokens=1), {FRAMES} frames of {SIDE} x {SIDE}, CPU, {THREADS} threads"
    rows = [
        ("EVS: prompt tokens, all", "", whole["tokens"]),
        (f"EVS: prompt tokens, q = {RATE}", "", pruned["tokens"]),
        ("EVS: encoder and projector, seconds", "", whole["encoder"]),
        ("EVS: language model's prefill, seconds, all", "", whole["prefill"]),
        (f"EVS: language model's prefill, seconds, q = {RATE}", "", pruned["prefill"]),
        ("EVS: prefill / encoder, all", "", whole["prefill"] / whole["encoder"]),
        ("EVS: time to first token, seconds, all", "", whole["first token"]),
        (f"EVS: time to first token, seconds, q = {RATE}", "", pruned["first token"]),
        (f"EVS: time to first token, all / q = {RATE}", ">= 2.5", whole["first token"] / pruned["first token"]),
    ]
    return [Number(name, target, round(value, 4), command) for name, target, value in rows]


# ---- accuracy -------------------------------------------------------------------------------------------------------


def accuracy(model: Path, data: Path, rate: float, out: Path) -> dict:
    """Figures of the videos of one data set, asked of a copy of the checkpoint that prunes by `rate`."""
    from eval.backends.opening import load
    from eval.backends.radio import RadioBackend
    from eval.evaluate import evaluate
    from eval.jobs import job_for_data
    from eval.tasks.base import Options

    copy = out / "checkpoint"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)
    for name in ("config.json", "processor_config.json"):
        values = json.loads((copy / name).read_text())
        values["video"]["pruning_rate"] = rate
        (copy / name).write_text(json.dumps(values))
    opened, processor = load(str(copy), "cpu", "auto", trust_remote_code=False)
    assert processor.video["pruning_rate"] == opened.config.video["pruning_rate"] == rate
    backend, options = RadioBackend(opened, processor), Options(1, not rate, None)
    tasks = evaluate(backend, [job_for_data(data)], options, progress=False)["tasks"]
    shutil.rmtree(copy)
    (figures,) = tasks.values()
    assert figures["failed"] == 0, figures
    return figures


def accuracies(out: Path, model: Path) -> list[Number]:
    """Direction of motion on videos of 2 s (two tubelets of two frames, so little is left to prune) and of 4 s."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for seconds in (2, 4):
        data = out / f"videos-{seconds}s"
        shutil.rmtree(data, ignore_errors=True)
        words = ("--task", "videos", "--split", "test", "--seed", 1, "--n", 400, "--out", data)
        typed = [sys.executable, "-m", "vlm", "make-data", *words, "--option", f"frames={4 * seconds}"]
        subprocess.run([str(word) for word in typed], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        whole = accuracy(model, data, 0.0, out)
        name = f"EVS: direction of motion, {seconds} s"
        typed = f"eval/run.py --model {model} --data {data}, video.pruning_rate"
        rows.append(Number(f"{name}, all", "", whole["accuracy"], typed))
        shuffled = whole["controls"]["frames_shuffled"]
        rows.append(Number(f"{name}, all, frames shuffled", "", shuffled, typed))
        for rate in RATES:
            pruned = accuracy(model, data, rate, out)
            lost = whole["accuracy"] - pruned["accuracy"]
            rows.append(Number(f"{name}, lost at q = {rate}", "<= 0.05", round(lost, 4), f"{typed} {rate}"))
            lost, title = all_kinds(whole) - all_kinds(pruned), f"EVS: all questions, {seconds} s"
            rows.append(Number(f"{title}, lost at q = {rate}", "<= 0.05", round(lost, 4), f"{typed} {rate}"))
    return rows


def all_kinds(figures: dict) -> float:
    """Share of right answers to questions of every kind; the headline counts the direction of motion alone."""
    kinds = figures["kinds"].values()
    return sum(kind["n"] * kind["accuracy"] for kind in kinds) / sum(kind["n"] for kind in kinds)


def evs_numbers(out: Path, model: Path = ROOT / "runs/demo/stage4") -> list[Number]:
    """Time to first token, and what pruning costs a trained checkpoint; without one that is said in a missed row."""
    rows = timing(out)
    if not (model / "config.json").is_file():
        missing = f"no checkpoint in {model}: radio-vlm demo"
        return [*rows, Number("EVS: accuracy lost, checkpoints found", ">= 1", 0, missing)]
    return [*rows, *accuracies(out / "accuracy", model)]


if __name__ == "__main__":
    if sys.argv[1] == "--time":
        Path(sys.argv[2]).write_text(json.dumps(time_to_first_token()))
    else:
        print(table(evs_numbers(Path(sys.argv[1]), *map(Path, sys.argv[2:]))))
