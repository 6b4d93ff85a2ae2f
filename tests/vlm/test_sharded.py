"""ZeRO-3 on two CPU ranks that never hold the same kind of batch: nobody waits, losses are those of one process."""

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


KINDS = [
    ("nemotron_h", "tied", "plain"),
    ("llama", "untied", "everything"),
    pytest.param("llama", "untied", "plain", marks=pytest.mark.slow),
    pytest.param("llama", "untied", "early", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "tie", "tower"), KINDS)
def test_ranks_with_and_without_pictures_do_not_wait(family, tie, tower):
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("optional package absent: deepspeed")
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.zero3_rank", str(rank), port, family, tie, tower],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = []
    try:
        for rank in ranks:
            outputs.append(rank.communicate(timeout=150)[0])
    finally:
        for rank in ranks:
            rank.kill()
    for output in outputs:
        found = [line for line in output.splitlines() if line.startswith("RESULT ")]
        assert found, output[-3000:]
        result = json.loads(found[0].removeprefix("RESULT "))
        assert result["sharded"] and result["after"] == pytest.approx(result["before"], abs=1e-5)
