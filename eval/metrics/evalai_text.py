"""How VQA answers are normalised before they are compared: the EvalAI answer processor of the VQA challenge.

Two public readings differ. lmms-eval 0.7.3 (after MMF/Pythia) lower-cases first, drops "," and "?", splits "'s" off
and removes every period that no digit follows. VLMEvalKit does none of the first three and keeps a period that a
digit precedes. So "5." is "5" in one and "5." in the other, and "what's" is two words or one.
"""

from __future__ import annotations

import re

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten".split()
NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))

# Contractions whose known misspelling is the word without its apostrophes ...
_CONTRACTIONS = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd
they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've
who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
# ... and those with two, where one of the apostrophes is missing. Capital ones (I'm) are left out: never reached.
_DOUBLE_CONTRACTIONS = {
    "couldn't've": "couldn'tve couldnt've",
    "hadn't've": "hadnt've hadn'tve",
    "he'd've": "hed've he'dve",
    "it'd've": "itd've it'dve",
    "mightn't've": "mightnt've mightn'tve",
    "'ow's'at": "ow's'at 'ows'at 'ow'sat",
    "she'd've": "shed've she'dve",
    "shouldn't've": "shouldnt've shouldn'tve",
    "somebodyd": "somebody'd",  # the wrong way round in the published table
    "somebody'd've": "somebodyd've somebody'dve",
    "someone'd've": "someoned've someone'dve",
    "something'd've": "somethingd've something'dve",
    "there'd've": "thered've there'dve",
    "they'd've": "theyd've they'dve",
    "we'd've": "wed've we'dve",
    "who'd've": "whod've who'dve",
    "wouldn't've": "wouldnt've wouldn'tve",
    "y'all'd've": "yall'd've y'alld've y'all'dve",
    "y'all'll": "yall'll y'allll",
    "you'd've": "youd've you'dve",
}
CONTRACTIONS = {right.replace("'", ""): right for right in _CONTRACTIONS.split()}
CONTRACTIONS |= {wrong: right for right, forms in _DOUBLE_CONTRACTIONS.items() for wrong in forms.split()}

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = {
    "lmms_eval": re.compile(r"\.(?!\d)"),  # its look-behind is misspelt and never refuses
    "vlmevalkit": re.compile(r"(?<!\d)\.(?!\d)"),
}
# Both pass a flag where `re.sub` takes a count: only the first 32 periods go.
_PERIODS_REMOVED = int(re.UNICODE)


def _strip_punctuation(text: str, rule: str) -> str:
    """A mark that touches a blank anywhere in `text` disappears, any other becomes a blank.

    All marks disappear when a comma stands between two digits.
    """
    drop_all = _DIGIT_COMMA_DIGIT.search(text) is not None
    table = {ord(mark): "" if drop_all or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION}
    return _PERIOD[rule].sub("", text.translate(table), count=_PERIODS_REMOVED)


def normalise_vqa_answer(text: str, rule: str = "lmms_eval") -> str:
    """ "The Nokia, two." → "nokia 2". `rule` is "lmms_eval" or "vlmevalkit" (see the top of the file)."""
    if rule == "lmms_eval":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip(), rule)
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
