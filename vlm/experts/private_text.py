"""Takes out of a text what must reach neither prompt nor log: paths of files, and identifiers of a header.

Experts are foreign code: an exception's message, or even a result, may hold the file's path or the patient's name.
"""

import re
from collections.abc import Iterable
from pathlib import Path

REMOVED = "[removed]"
# /a/b and C:\a\b: absolute paths anywhere in a text. A date 1/2/3, `and/or` or `</b>` is none.
PATHS = re.compile(r"(?<![\w/\\<])(?:~|[A-Za-z]:|\\)?[/\\](?:[\w.@+%~-]+[/\\])+[\w.@+%~-]*")
DATE = re.compile(r"((?:18|19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")  # as DICOM writes it
SHORTEST_PART, SHORTEST = 3, 4


def without_identifiers(text: str, path: str | Path | None = None, identifiers: Iterable[str] = ()) -> str:
    """`text` with absolute paths, the file's own name and the identifiers replaced by `[removed]`.

    identifiers: as a header has them, the parts of persons' names with `^` between.

    A person's name is found in any order and case as a whole; its parts as they stand in the header and capitalised,
    but not in lower case, so that a patient called LUNG costs no `lung` in a result. Dates are found in the usual forms
    of digits (1953-06-17, 17.06.1953, 6/17/1953). Parts of under three and other
    identifiers of under four characters are left alone: they would hit numbers of the result itself.
    """
    if path is not None:
        absolute = Path(path).absolute()
        own = {str(path), str(absolute), str(absolute.parent)} | ({absolute.name} if absolute.suffix else set())
        for form in sorted(own, key=len, reverse=True):
            if len(form) >= SHORTEST:
                text = text.replace(form, REMOVED)
    text = PATHS.sub(REMOVED, text)
    any_case, as_written = set(), set()
    for identifier in identifiers:
        identifier = identifier.strip("^= \t\r\n")
        parts = [part for part in re.split(r"[\^=]+", identifier) if part]
        if len(identifier) >= SHORTEST:
            any_case.add(re.escape(identifier))
        if date := DATE.fullmatch(identifier):
            year, month, day = date[1], f"0?{int(date[2])}", f"0?{int(date[3])}"
            any_case |= {r"[-./]".join(order) for order in ((year, month, day), (day, month, year), (month, day, year))}
        if len(parts) > 1:
            any_case |= {r"[\s,^_=-]+".join(map(re.escape, order)) for order in (parts, parts[::-1])}
            for part in parts:
                if len(part) >= SHORTEST_PART:
                    as_written |= {re.escape(part), re.escape(part.title())}
    # longest first: the whole name before its parts
    for forms, flags in ((any_case, re.IGNORECASE), (as_written, 0)):
        if forms:
            either = "|".join(sorted(forms, key=len, reverse=True))
            text = re.sub(rf"(?<![A-Za-z0-9])(?:{either})(?![A-Za-z0-9])", REMOVED, text, flags=flags)
    return text
