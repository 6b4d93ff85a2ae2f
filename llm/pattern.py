"""The layer string of Nemotron-H (`hybrid_override_pattern`): one letter a block. transformers meets an unknown letter
with a bare KeyError and builds a model of no blocks from an empty string.
"""

LETTERS = {"M": "Mamba-2", "*": "attention", "-": "MLP", "E": "mixture of experts"}


def check_pattern(pattern: str, name: str = "hybrid_override_pattern") -> str:
    """Returns the pattern; raises ValueError naming the first unknown letter, its place and the known ones.

    Args:
        name: what to call the pattern in the message.
    """
    known = ", ".join(f"{letter} {meaning}" for letter, meaning in LETTERS.items())
    if not pattern:
        raise ValueError(f"{name} is empty; known letters: {known}")
    for place, letter in enumerate(pattern):
        if letter not in LETTERS:
            raise ValueError(f"{name} {pattern!r}: unknown letter {letter!r} at place {place}; known: {known}")
    return pattern
