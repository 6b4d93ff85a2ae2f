"""MMLongBench-Doc's F1 as it is stated, over whole rows: the slow twin of the aggregate `AnswerableF1`."""

from collections.abc import Iterable


def generalised_f1(rows: Iterable[tuple[float, bool, bool]]) -> float:
    """The benchmark's F1 over (score, gold answerable, prediction answerable).

    Recall is the mean score where the gold is answerable, precision where the prediction claims to be; a group
    without rows counts as 0.0.
    """
    rows = list(rows)
    groups = [[row[0] for row in rows if row[side]] for side in (1, 2)]
    recall, precision = (sum(group) / len(group) if group else 0.0 for group in groups)
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0
