"""Evaluation: tasks, metrics and controls over a checkpoint folder and dataset folders, and the report made from them.

Knows nothing of training; both sides meet only in files on disk. Entry script: `python eval/run.py --help`.
"""
