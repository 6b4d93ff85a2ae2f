"""`python -m vlm` is the `radio-vlm` command."""

import sys

from vlm.cli.main import main

sys.exit(main())
