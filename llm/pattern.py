"""The layer string of Nemotron-H (`hybrid_override_pattern`): one letter a block."""

LETTERS = {"M": "Mamba-2", "*": "attention", "-": "MLP", "E": "mixture of experts"}


def check_pattern(pattern: str) -> str:
    """Returns the pattern; raises ValueError naming the first unknown letter, its place and the known ones."""
    known = ", ".join(f"{letter} {meaning}" for letter, meaning in LETTERS.items())
    if not pattern:
        raise ValueError(f"hybrid_override_pattern is empty; known letters: {known}")
    for place, letter in enumerate(pattern):
        if letter not in LETTERS:
            raise ValueError(
                f"hybrid_override_pattern {pattern!r}: unknown letter {letter!r} at place {place}; known: {known}"
            )
    return pattern
