"""Launches `tests.helpers.zero3_llm_rank` twice and reads what both ranks found."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from llm import families
from tests.helpers.tiny_llm import native_model

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run_ranks(cases: list[str], folder: Path, timeout: float = 120) -> dict[str, list[dict]]:
    """case -> what each of the two ranks found; see `tests.helpers.zero3_llm_rank` for cases and results."""
    for case in cases:
        name, *options = case.split(":")
        config = families()[name].tiny()
        if options and options[0] in ("tied", "untied"):
            config.tie_word_embeddings = options[0] == "tied"
        native_model(config).save_pretrained(folder / case)
    words = [free_port(), str(folder), *cases]
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(folder / "extensions"), "HF_HUB_OFFLINE": "1"}
    logs = [open(folder / f"rank{rank}.log", "w") for rank in range(2)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.zero3_llm_rank", str(rank), *words],
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment,
        )
        for rank, log in enumerate(logs)
    ]  # fmt: skip
    try:
        for rank in ranks:
            rank.wait(timeout)
    except subprocess.TimeoutExpired:
        pass  # what the logs hold by then tells where it hangs
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
        for log in logs:
            log.close()
    texts = [(folder / f"rank{rank}.log").read_text() for rank in range(2)]
    results = {case: [] for case in cases}
    for text in texts:
        for line in text.splitlines():
            if line.startswith("RESULT "):
                result = json.loads(line.removeprefix("RESULT "))
                results[result["case"]].append(result)
    missing = [case for case, found in results.items() if len(found) != 2]
    tails = "\n".join(f"rank {rank}: ...{text[-3000:]}" for rank, text in enumerate(texts))
    assert not missing, f"failed or hung in {missing[0]}:\n{tails}"
    return results
