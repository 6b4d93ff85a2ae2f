"""Looks at a dataset before training does: what is wrong, what is twice, what is in both training and test, how long,
which languages, how large. The command is `radio-vlm check-data`; `check` is the door for programs.

sample.py says what one record holds, media.py what one file does; run.py drives them over processes; tally.py keeps
what a million records leave behind; repeats.py compares pictures and conversations; report.py is the result.
"""

from training.data.check.problems import Problem
from training.data.check.report import Report
from training.data.check.run import Job, check

__all__ = ["Job", "Problem", "Report", "check"]
