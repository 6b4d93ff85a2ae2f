"""What was made, as a table and some lines: forms by expert, failures, contradictions, time, and what is lopsided."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data.expert_dialogues.expert_runs import Found

LISTED = 10
FEW, LOPSIDED = 20, 0.8  # so many answers to a kind of question tell something; one of them this often is too often


@dataclass
class Summary:
    """`problems`: (file:line, why) of images that could not be read; `disagree`: topics on which a result was wrong;
    `unused`: labels that answer none of the experts' `topics`, by name; `ran`: results by expert."""

    images: int = 0
    counts: Counter = field(default_factory=Counter)
    answers: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    problems: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    disagree: Counter = field(default_factory=Counter)
    judged: Counter = field(default_factory=Counter)
    topics: list[str] = field(default_factory=list)
    unused: Counter = field(default_factory=Counter)
    ran: Counter = field(default_factory=Counter)
    calls: int = 0
    kept: int = 0
    expert_seconds: float = 0.0
    seconds: float = 0.0

    def add_results(self, where: str, founds: Sequence[Found]) -> None:
        """Results of one image."""
        for found in founds:
            self.calls += 1
            self.ran[found.expert] += found.ok
            self.kept += found.kept
            self.expert_seconds += 0.0 if found.kept else found.seconds
            if not found.ok:
                self.failures.append((where, found.trigger, found.text))

    def add_record(self, record: dict[str, Any]) -> None:
        """One conversation."""
        meta = record["meta"]
        self.counts[meta["form"], str(meta["expert"] or "-").strip("<>").partition("(")[0]] += 1
        if meta["form"] in ("expert", "vqa", "no_expert"):
            self.answers[meta["kind"]][meta["answers"][0]] += 1

    def lines(self) -> list[str]:
        """The table, then the rest."""
        experts = sorted({expert for _, expert in self.counts}, key=lambda name: (name == "-", name))
        forms = list(dict.fromkeys(form for form, _ in self.counts))
        head = ["form", *("no expert" if name == "-" else name for name in experts), "all"]
        rows = [
            [form, *(self.counts[form, name] for name in experts), sum(self.counts[form, name] for name in experts)]
            for form in forms
        ]
        widths = [max(len(str(row[at])) for row in (head, *rows)) for at in range(len(head))]
        table = [
            "  ".join(
                str(cell).ljust(w) if at == 0 else str(cell).rjust(w) for at, (cell, w) in enumerate(zip(row, widths))
            )
            for row in (head, *rows)
        ]
        share = f", {self.kept / self.calls:.0%} kept from before" if self.calls else ""
        return [
            *table, "",
            f"{self.images} images, {sum(self.counts.values())} conversations, {self.calls} expert calls{share}, "
            f"{self.expert_seconds:.1f} s in experts, {self.seconds:.1f} s in all",
            *self._disagreements(), *self._failed(), *self._unread(),
            *self._unused(), *self._unasked(), *self.warnings(),
        ]  # fmt: skip

    def warnings(self) -> list[str]:
        """Kinds of questions with one answer nearly always: a model learns to say it without looking."""
        found = []
        for kind, answers in sorted(self.answers.items()):
            total = sum(answers.values())
            answer, most = answers.most_common(1)[0]
            if total >= FEW and most > LOPSIDED * total:
                found.append(f"warning: {kind}: {most} of {total} answers are {answer!r:.40}; add images with others")
        return found

    def _disagreements(self) -> list[str]:
        return [
            f"{expert}, {topic}: the result disagrees with the label in {number} of {self.judged[expert, topic]} images"
            for (expert, topic), number in sorted(self.disagree.items())
        ]

    def _failed(self) -> list[str]:
        lines = [f"{len(self.failures)} expert calls failed:"] if self.failures else []
        return lines + listed(f"  {where}: {trigger}: {text}" for where, trigger, text in self.failures)

    def _unread(self) -> list[str]:
        lines = [f"{len(self.problems)} images could not be read and are left out:"] if self.problems else []
        return lines + listed(f"  {where}: {why}" for where, why in self.problems)

    def _unasked(self) -> list[str]:
        """In val and test only what has a label is asked: without, an expert stays out of the questions."""
        asked = {expert for form, expert in self.counts if form == "expert"}
        return [
            f"warning: no question wants {name}: no image that it read has a label for what it tells"
            for name, results in sorted(self.ran.items())
            if results and name not in asked
        ]

    def _unused(self) -> list[str]:
        """A label with a slip in its name is no label: the expert's result would silently stand for the truth."""
        known = ", ".join(self.topics) or "none"
        return listed(
            f"warning: the label {name!r:.40} ({number} images) is asked about by no expert here; their topics: {known}"
            for name, number in sorted(self.unused.items())
        )


def listed(lines: Iterable[str]) -> list[str]:
    """The first lines, and how many more there are."""
    lines = list(lines)
    return lines[:LISTED] + ([f"  and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])
