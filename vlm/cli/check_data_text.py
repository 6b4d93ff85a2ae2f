"""The report of `radio-vlm check-data` in the terminal. Not a command itself."""

from vlm.cli.tables import text_table

BARS = " ▁▂▃▄▅▆▇█"
GREY, PLAIN = "\x1b[90m", "\x1b[0m"
LANGUAGES = 4


def problem_lines(report, show: int | None, json_file=None) -> list[str]:
    """The problems grouped by kind, at most `show` of each."""
    lines = []
    for reason, examples in report.problems.examples.items():
        shown, count = examples[:show], report.problems.counts[reason]
        lines += [problem_line(problem) for problem in shown]
        if count > len(shown):
            where = f", all in {json_file}" if json_file else ", --show N prints more, --json FILE keeps all"
            lines.append(f"… and {count - len(shown)} more of {reason}{where}")
    return [*lines, ""] if lines else []


def problem_line(problem) -> str:
    """One problem as a line: place, sample, reason, words, file."""
    sample = f" sample {problem.id!r}" if problem.id else ""
    file = f" ({problem.file})" if problem.file and problem.file not in problem.where else ""
    return f"{problem.where}:{sample} [{problem.reason}] {problem.message}{file}"


def summary(report, share_limit: float) -> str:
    """The table of sources, lengths and languages, what repeats, the problems by reason, and the verdict."""
    lines = [source_table(report), "", *_languages(report), *_repeats(report)]
    if report.interrupted:
        lines += ["interrupted: this is what was found until then", ""]
    if report.ok:
        return "\n".join([*lines, "everything is in order"])
    reasons = list(report.reasons().items())
    if reasons:
        lines += [text_table(("problem", "count"), reasons, right=(1,)), ""]
    bad, samples = sum(one.bad for one in report.sources), sum(one.samples for one in report.sources)
    effect = "stop" if report.bad_share("train") > share_limit else "skip them and go on"
    verdict = f"{bad} of {samples} samples are bad"
    lines.append(f"{verdict}; with data.bad_share_limit={share_limit:g} training would {effect}")
    return "\n".join(lines)


def source_table(report) -> str:
    """One row a source."""
    head = ("dataset", "format", "samples", "bad", "images", "videos", "documents", "text only",
            "tokens min", "median", "95 %", "max", "learned", "lengths")  # fmt: skip
    rows = []
    for one, tally in zip(report.sources, report.tallies):
        lengths = one.tokens or {}
        learned = f"{one.trained_tokens / max(1, lengths['total']):.0%}" if lengths else ""
        bars = sparkline(tally.known("tokens"), one.max_length) if lengths else ""
        name = f"{one.stage}: {one.path}" if one.stage else one.path
        name += " (held out)" if one.role == "eval" else ""
        rows.append((name, one.format or "unreadable", one.samples, one.bad, one.images, one.videos, one.documents,
                     one.text_only, *(lengths.get(key, "") for key in ("min", "median", "p95", "max")), learned,
                     bars))  # fmt: skip
    width = len(head) if any(one.tokens for one in report.sources) else 8
    return text_table(head[:width], [row[:width] for row in rows], right=range(2, min(width, 13)))


def sparkline(values, limit: int | None = None, bins: int = 12) -> str:
    """A histogram of one line, from 0 to `limit` (or the largest value)."""
    import numpy as np

    top = max(limit or 0, int(values.max()))
    counts, _ = np.histogram(values, bins=bins, range=(0, top))
    heights = np.ceil(counts / max(1, counts.max()) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights) + f" 0…{top}"


def _languages(report) -> list[str]:
    lines = []
    for one in report.sources:
        total = sum(one.languages.values())
        if total:
            parts = [f"{name} {count / total:.0%}" for name, count in list(one.languages.items())[:LANGUAGES]]
            lines.append(f"languages of {one.path} (a guess): {', '.join(parts)}")
    return [*lines, ""] if lines else []


def _repeats(report) -> list[str]:
    repeats, lines = report.repeats, []
    if report.compared_looks:
        lines.append(
            f"{repeats.pictures} pictures compared ({repeats.blank} blank): {repeats.grouped} training pictures in "
            f"{repeats.groups} groups look the same within {repeats.distance} of 256 bits"
        )
        lines += [f"  {_pair(report.pair(pair))}" for pair in repeats.pairs[:3]]
    if repeats.conversations:
        lines.append(f"{repeats.conversations} training samples repeat an earlier one: the same words and media")
        lines += [f"  {_pair(report.pair(pair))}" for pair in repeats.conversation_pairs[:3]]
    if any(one.role == "eval" for one in report.sources):
        lines.append(f"{len(repeats.overlap)} held-out samples share a picture or their words with training")
    return [*lines, ""] if lines else []


def _pair(pair: dict) -> str:
    files = f" ({pair['first_file']}, {pair['other_file']})" if "first_file" in pair and "other_file" in pair else ""
    return f"{pair['other']} = {pair['first']}{files}" + (f", {pair['bits']} bits" if pair["bits"] else "")


def preview_text(shown, color: bool) -> str:
    """Samples as the model sees them: what is not learned is grey (without colour: only what is learned is in «»)."""
    lines = []
    for one in shown:
        lines.append(f"── {one.where}, sample {one.id!r}: {one.tokens} tokens, {one.trained} learned")
        text = ""
        for segment in one.segments:
            if color:
                text += segment.text if segment.learned else f"{GREY}{segment.text}{PLAIN}"
            else:
                text += f"«{segment.text}»" if segment.learned else segment.text
        lines += [text, ""]
    return "\n".join(lines)
