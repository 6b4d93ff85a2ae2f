"""Running real training stages in tests: a very small VLM, a mixed text/image corpus, and the deepspeed launcher."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from transformers import NemotronHConfig, RadioConfig

from llm.tiny_tokenizer import build_byte_tokenizer
from tests.helpers.data_folders import record, write_image, write_records
from vlm.build import build_vlm

ROOT = Path(__file__).resolve().parents[2]
PROBE = ROOT / "tests/helpers/stage_probe.py"


def small_parts() -> tuple[RadioConfig, NemotronHConfig]:
    """Configs of the smallest encoder and hybrid language model that have every kind of layer."""
    vision = RadioConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, max_img_size=64, image_size=64,
        num_cls_tokens=1, num_registers=1, summary_idxs=[0],
    )  # fmt: skip
    text = NemotronHConfig(
        hybrid_override_pattern="M*-", vocab_size=384, hidden_size=32, intermediate_size=64, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, mamba_num_heads=2, mamba_head_dim=32, ssm_state_size=16, n_groups=1,
        chunk_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=4,
    )  # fmt: skip
    return vision, text


def small_vlm(seed: int = 0, **text_options):
    """(model, processor) of a few tens of thousands of weights."""
    torch.manual_seed(seed)
    vision, text = small_parts()
    for name, value in text_options.items():
        setattr(text, name, value)
    geometry = {"mode": "dynamic", "min_num_patches": 4, "max_num_patches": 16}
    return build_vlm(vision, text, build_byte_tokenizer(), geometry=geometry)


def save_small_vlm(folder: Path, **options) -> Path:
    model, processor = small_vlm(**options)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def mixed_corpus(folder: Path, n: int = 24, every: int = 2) -> Path:
    """One sample in `every` has an image, the others are text only; every sample has its own answer."""
    records = []
    for i in range(n):
        images = ()
        if i % every == 1:
            size = (64, 32 + i % 3 * 16)
            write_image(folder / f"images/{i}.png", color=(10 * i % 256, 255 - i, 3 * i % 256), size=size)
            images = (f"images/{i}.png",)
        records.append(record(f"s{i}", question=f"number {i}?", answer=str(10 + i), images=images))
    return write_records(folder, records)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def child_environment(**extra: str) -> dict[str, str]:
    """One thread a process, offline, and no trace of an outer launcher."""
    dropped = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    base = {key: value for key, value in os.environ.items() if key not in dropped}
    return base | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)} | extra


def launch(script: Path, words: list[str], processes: int = 2, timeout: int = 300, **environment: str):
    """`deepspeed --num_accelerators N script words`, or plain python for processes=0. Returns CompletedProcess."""
    command = [sys.executable, str(script), *words]
    if processes:
        deepspeed = str(Path(sys.executable).with_name("deepspeed"))
        command = [deepspeed, "--num_accelerators", str(processes), "--master_port", str(free_port()), *command[1:]]
    return subprocess.run(
        command, cwd=ROOT, env=child_environment(**environment), capture_output=True, text=True, timeout=timeout
    )


def losses(folder: Path) -> dict[int, float]:
    """Step -> logged loss of a finished stage."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
