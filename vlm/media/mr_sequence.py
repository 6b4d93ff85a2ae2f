"""Which MRI sequence a series is, from the words of its header: t1, t1ce, t2, flair, dwi, adc, pd, swi.

The free text is read here and does not leave: out comes a name of the list, or "" where the words are silent or name
two. Nothing is concluded from file names, echo times or pixels.
"""

import re

from vlm.media.deidentify import text

SEQUENCES = ("t1", "t1ce", "t2", "flair", "dwi", "adc", "pd", "swi")
ALIASES = {"t1c": "t1ce", "t1gd": "t1ce", "t1 ce": "t1ce", "t1w": "t1", "t2w": "t2", "t2flair": "flair", "fl": "flair"}
_T1 = re.compile(r"(?<![a-z0-9])t1(?![0-9])|mprage|bravo|spgr|t1w", re.I)
_T2 = re.compile(r"(?<![a-z0-9])t2(?![0-9])|t2w", re.I)
_FLAIR = re.compile(r"flair|dark[ _-]?fluid", re.I)
_WITHOUT = re.compile(
    r"\b(without|w/o|no|non|pre)[ _-]*(contrast|gd|gad\w*|km|ce)?(?![a-z])|(?<![a-z])pre(?![a-z])", re.I
)
_WITH = re.compile(
    r"(?<![a-z])(gd|gado\w*|post|km|ce|contrast|kontrast\w*|c\+)(?![a-z])|\+ ?(c|gd|km)(?![a-z])|t1(c|ce|gd)(?![a-z])",
    re.I,
)
_OTHERS = {
    "adc": r"(?<![a-z])adc",
    "dwi": r"(?<![a-z])(dwi|diff\w*|trace)",
    "swi": r"(?<![a-z])swi",
    "pd": r"(?<![a-z])pd",
}


def sequence_of(data) -> str:
    """The sequence of an MR header, or ""."""
    if text(data, "Modality").upper() != "MR":
        return ""
    for key in ("SeriesDescription", "ProtocolName"):
        words = text(data, key).replace("_", " ").replace("-", " ").replace("*", " star")
        if found := sequence_in(words, bool(text(data, "ContrastBolusAgent"))):
            return found
    return ""


def sequence_in(words: str, has_agent: bool = False) -> str:
    """The sequence that a description names; `has_agent`: the header names a contrast agent."""
    others = [name for name, pattern in _OTHERS.items() if re.search(pattern, words, re.I)]
    t1, t2, flair = _T1.search(words), _T2.search(words), _FLAIR.search(words)
    if others:
        return others[0] if len(others) == 1 and not (t1 or t2 or flair) else ""
    if t1 and t2:
        return ""
    if t1:  # "T1 FLAIR" is a T1
        without = _WITHOUT.search(words)
        if _WITH.search(words) and not without:
            return "t1ce"
        return "t1ce" if has_agent and not without else "t1"
    if flair:
        return "flair"
    return "t2" if t2 and "t2 star" not in words.lower() else ""


def channel_name(word) -> str:
    """A channel as a user writes it ("T1c", "FLAIR") -> its name here; other words are lower-cased and kept."""
    plain = " ".join(str(word).lower().replace("_", " ").replace("-", " ").split())
    return ALIASES.get(plain, plain)
