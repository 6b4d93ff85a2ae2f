"""The one warning that is hidden, in a process of its own as users start it, and those that are not."""

import subprocess
import sys

from tests.helpers.data_folders import record, write_records
from tests.helpers.stage_runs import child_environment, save_small_vlm

SAID = "falling back to its reference PyTorch implementation"


def test_the_runner_does_not_warn_of_kernels_that_it_does_not_use(tmp_path):
    save_small_vlm(tmp_path / "model")
    write_records(tmp_path / "data", [record("s", answer="1")])
    words = ["--model", "model", "--data", "data", "--out", "r.json", "--max-new-tokens", "2", "--no-progress"]
    done = subprocess.run(
        [sys.executable, "-m", "eval", *words, "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, env=child_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SAID not in done.stdout + done.stderr


def test_only_these_words_are_hidden():
    """Before and after, since the warning is said once a process."""
    code = f"""
from eval.backends.quiet import SOURCE, hide_kernel_warnings
from transformers.utils import logging
logger = logging.get_logger(SOURCE)
logger.warning("first `f` is {SAID} because")
hide_kernel_warnings()
logger.warning("second `f` is {SAID} because")
logger.warning("third")
logging.get_logger("transformers.models").warning("fourth {SAID}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env=child_environment())  # fmt: skip
    told = [word for word in ("first", "second", "third", "fourth") if word in done.stderr]
    assert told == ["first", "third", "fourth"], done.stderr
