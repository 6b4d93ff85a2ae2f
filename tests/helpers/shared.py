"""Where the licence-bound test data lies: beside the checkout or at RADIO_VLM_SHARED. Without it tests skip."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared_path(relative: str) -> Path:
    """The path of `relative` below the shared folder; skips the calling test when it is not there."""
    base = Path(os.environ.get("RADIO_VLM_SHARED", ROOT.parent / "shared"))
    path = base / relative
    if not path.exists():
        pytest.skip(f"shared data absent: {relative}")
    return path
