"""`radio-vlm plan` against measured memory: two real steps of three small models on the CPU, the bytes of every tensor
counted as a GPU's allocator would count them, beside what the plan said before.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

CASES = {
    "everything trains": (),
    "gradient checkpointing": ("gradient_checkpointing=true",),
    "frozen vision": ("modules.vision.freeze=true",),
    "LoRA": ("adapter.rank=8", "modules.vision.freeze=true"),
    "projector only": ("modules.vision.freeze=true", "modules.text.freeze=true"),
}


def plan_numbers(out: Path) -> list[Number]:
    """Rows: |plan / measured - 1| of every size and case."""
    from tests.helpers.step_memory import SIZES, measured_and_planned

    rows = []
    for name, size in SIZES.items():
        for case, words in CASES.items():
            with tempfile.TemporaryDirectory() as folder:
                measured, planned = measured_and_planned(size, Path(folder), *words)
            command = f"{name}: measured {measured / 2**20:.1f} MiB, planned {planned / 2**20:.1f} MiB"
            rows.append(Number(f"plan / measured - 1: {name}, {case}", "<= 0.15", abs(planned / measured - 1), command))
    return rows


if __name__ == "__main__":
    print(table(plan_numbers(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/check"))))
