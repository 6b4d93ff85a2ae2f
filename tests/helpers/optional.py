"""Skipping, visibly, what needs a package that only an extra brings."""

import pytest


def needs(*packages: str) -> None:
    """Skips the calling test or module unless every package can be imported."""
    for package in packages:
        pytest.importorskip(package, reason=f"optional package absent: {package}")
