"""`python -m eval` does the same as `python eval/run.py`."""

import sys

from eval.run import main, set_up_logging

set_up_logging()
sys.exit(main())
