"""The report of `radio-vlm check-data` in the terminal. Not a command itself."""

import re

from vlm.cli.tables import text_table

BARS = " ▁▂▃▄▅▆▇█"
GREY, PLAIN = "\x1b[90m", "\x1b[0m"
LANGUAGES = 4
MASKED, KEPT = 3000, 1000  # characters of a masked stretch that are too many to read, and those shown of its two ends
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would move the cursor or change colours


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
    file = f" ({problem.file})" if problem.file and problem.file not in f"{problem.where} {problem.message}" else ""
    return harmless(f"{problem.where}:{sample} [{problem.reason}] {problem.message}{file}")


def harmless(text: str) -> str:
    """Data come from strangers: what a terminal would obey is written out."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


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
    unread = report.problems.counts["unreadable_source"]
    if unread:
        all_of_them = unread == len(report.sources)
        which = "no source" if all_of_them else f"{unread} of {len(report.sources)} sources"
        hint = ": are their paths right? data.root=FOLDER says where those of a recipe start" if all_of_them else ""
        lines.append(f"{which} could be read{hint}" if all_of_them else f"{which} could not be read")
    if samples:
        stops = report.bad_share("train") > share_limit
        effect = "stop" if stops else "skip them and go on" if not unread else "not begin"
        verdict = f"{bad} of {samples} samples are bad"
        training = [one for one in report.sources if one.role == "train"]
        if len(training) < len(report.sources):
            verdict += f" ({sum(one.bad for one in training)} of {sum(one.samples for one in training)} in training)"
        lines.append(f"{verdict}; with data.bad_share_limit={share_limit:g} training would {effect}")
    return "\n".join(lines)


def source_table(report) -> str:
    """One row a source."""
    head = ("dataset", "format", "samples", "bad", "images", "videos", "documents", "volumes", "text only",
            "tokens min", "median", "95 %", "max", "learned", "lengths")  # fmt: skip
    rows = []
    for one, tally in zip(report.sources, report.tallies):
        lengths = one.tokens or {}
        learned = f"{one.trained_tokens / max(1, lengths['total']):.0%}" if lengths else ""
        bars = sparkline(tally.known("tokens"), one.max_length) if lengths else ""
        name = f"{one.stage}: {one.path}" if one.stage else one.path
        name += " (held out)" if one.role == "eval" else ""
        rows.append((name, one.format or "unreadable", one.samples, one.bad, one.images, one.videos, one.documents,
                     one.volumes, one.text_only, *(lengths.get(key, "") for key in ("min", "median", "p95", "max")),
                     learned, bars))  # fmt: skip
    told = [place for place, title in enumerate(head) if place < 4 or any(row[place] not in (0, "") for row in rows)]
    right = [number for number, place in enumerate(told) if 2 <= place < len(head) - 1]
    return text_table([head[place] for place in told], [[row[place] for place in told] for row in rows], right)


def sparkline(values, limit: int | None = None, bins: int = 12) -> str:
    """A histogram of one line, from 0 to `limit` (or the largest value); what is longer is in the last bar, as "+"."""
    import numpy as np

    top = limit or int(values.max())
    counts, _ = np.histogram(np.minimum(values, top), bins=bins, range=(0, max(1, top)))
    heights = np.ceil(counts / max(1, counts.max()) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights) + f" 0…{top}{'+' if values.max() > top else ''}"


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
        tokens = "" if one.tokens is None else f": {one.tokens} tokens, {one.trained} learned"
        lines.append(harmless(f"── {one.where}, sample {one.id!r}{tokens}"))
        text, shown_segments = "", list(one.segments)
        while shown_segments and not shown_segments[-1].text.strip():
            shown_segments.pop()
        for segment in shown_segments:
            words = harmless(segment.text if segment.learned else shortened(segment.text))
            if color:
                text += words if segment.learned else f"{GREY}{words}{PLAIN}"
            else:
                text += f"«{words}»" if segment.learned else words
        lines += [text, ""]
    return "\n".join(lines)


def shortened(text: str) -> str:
    """A long stretch by its two ends."""
    if len(text) <= MASKED:
        return text
    return f"{text[:KEPT]} … [{len(text) - 2 * KEPT:,} characters not shown] … {text[-KEPT:]}"
