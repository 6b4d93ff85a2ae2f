"""lmms-eval's rules for option letters (0.7.3): Video-MME and MLVU, LongVideoBench, AI2D.

EgoSchema's is with MMMU's, which it varies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.metrics.mcq.registry import register_extractor
from eval.metrics.mcq.vlmevalkit import first_capital

# What announces a letter. The FIRST occurrence of each phrase counts, so longer ones that contain "answer is" differ.
_PHRASES = (
    *("the answer is", "answer is", "the choice is", "choice is"),
    *(
        f"{the}{word} {noun} is"
        for the in ("the ", "")
        for word in ("correct", "best")
        for noun in ("answer", "option")
    ),
    *("the correct choice is", "correct choice is", "my answer is", "my choice is"),
    *("i choose", "i select", "i pick"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
# Form of a mention → how much it is believed. A leading letter (10) and a closing one (9) stand above all.
_FORMS = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}
_START, _END, _PHRASE, _ANYWHERE = 10, 9, 7, 0


@register_extractor("lmms_eval.extract_mcq_answer")
def extract_mcq_answer(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """The mention with the most believed form, of these the last: Video-MME and MLVU (`mcq_extract.py`).

    Form, strongest first: at the start, at the end, behind a phrase such as "the answer is", "(X)", "X.", "X:",
    "X)", "X ", anywhere. Capital letters only; the option texts are not looked at. Known quirks: any later capital
    counts as "behind a phrase", so "The correct answer is **B**. Here's why: A is wrong." gives A and "Cannot
    determine the answer" gives C.
    """
    text = response.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text = f" {text} "
    inner, lower = text.strip(), text.lower()

    mentions = [  # (belief, position, letter)
        (belief, text.rfind(form.format(letter)), letter)
        for form, belief in _FORMS.items()
        for letter in letters
        if form.format(letter) in text
    ]
    for phrase in _PHRASES:
        start = lower.find(phrase)
        if start >= 0:
            behind = ((text.find(letter, start + len(phrase)), letter) for letter in letters)
            mentions += [(_PHRASE, position, letter) for position, letter in behind if position >= 0]
    for letter in letters:
        if inner.startswith(letter) and not inner[1:2].isalpha():
            mentions.append((_START, 0, letter))
        if inner.endswith(letter) and not inner[-2:-1].isalpha():
            mentions.append((_END, len(text) - 1, letter))
    if not mentions:
        mentions = [(_ANYWHERE, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(mentions, key=lambda mention: mention[:2], default=(0, 0, ""))[2]


@register_extractor("lmms_eval.longvideobench")
def longvideobench(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """The first of A-E anywhere once known phrases are deleted, whatever the options; else random, here "".

    LongVideoBench (`tasks/longvideobench/utils.py`). Known quirk: "Based on the video, C." gives B.
    """
    phrases = ("The best answer is", "The correct answer is", "The answer is", "The answer")
    phrases += ("The best option is", "The correct option is", "Best answer:", "Best option:")
    return first_capital(response, phrases, "ABCDE")


@register_extractor("lmms_eval.ai2d_filter")
def ai2d_filter(response: str, letters: Sequence[str], options: Sequence[str]) -> str:
    """A capital and a period at the start, else the response UNCHANGED: AI2D (`tasks/ai2d/utils.py`).

    The harness then compares with the gold letter ignoring case and punctuation, so "(C)" is right and "The answer
    is B" wrong.
    """
    match = re.match(r"\s*([A-Z])\.", response)
    return match[1] if match else response
