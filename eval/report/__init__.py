"""The report: one self-contained HTML page from the files of a run. `python eval/report/build.py --run DIR`."""
