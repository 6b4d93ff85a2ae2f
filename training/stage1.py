"""Stage 1, alignment: only the projector learns, encoder and language model stay as they are.

    deepspeed --num_accelerators 2 training/stage1.py --config training/recipes/tiny/stage1.yaml [key=value ...]
"""

import sys
from pathlib import Path

# Running a script puts its own folder first on the path; the packages lie one level up.
ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from training.run import run_stage  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_stage(sys.argv[1:], default_config=str(ROOT / "training/recipes/tiny/stage1.yaml")))
