"""`python -m eval` does the same as `python eval/run.py`."""

import sys

from eval.run import main

sys.exit(main())
