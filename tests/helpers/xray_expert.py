"""A stand-in for an expert on chest X-rays: it names the findings of a picture from a table of file contents."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.mini_benchmarks import picture_of
from vlm.experts import Expert, ExpertCard, ExpertResult


class XrayExpert(Expert):
    """Knows the findings by the number of the mini copy's picture."""

    card = ExpertCard(name="XRAY", modality="DX", body_part="chest", returns="findings")

    def __init__(self, findings: dict[int, str] | None = None) -> None:
        self.findings = findings or {}

    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        return ExpertResult(f"findings: {self.findings.get(picture_of(str(path)), 'none')}")
