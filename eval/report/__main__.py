"""`python -m eval.report` does the same as `python eval/report/build.py`."""

import sys

from eval.report.build import main

sys.exit(main())
