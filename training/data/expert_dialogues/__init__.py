"""Conversations with experts, made from a user's own labelled images: what `radio-vlm make-expert-data` does.

The images and their true answers are read (`labelled_set`), experts run over them once and their results are kept
(`expert_runs`), pictures are converted (`pictures`), and conversations of every form are put together (`dialogues`)
with the functions that `chat` and the evaluation use, so that what is measured is what was trained.
"""
