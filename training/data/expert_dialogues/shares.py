"""How many conversations of each form an image gives on average: `expert=2` two, `fails=0.1` one in ten images.

An image gives fewer where it has less to tell: three questions make three conversations at most.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm.errors import RadioVLMError

DEFAULT_SHARES = {
    "expert": 2.0,
    "follow_up": 1.0,
    "no_expert": 1.0,
    "wrong_modality": 0.5,
    "fails": 0.1,
    "unavailable": 0.1,
    "contradiction": 0.3,
    "vqa": 2.0,
    "report": 1.0,
}


def read_shares(said: Sequence[str]) -> dict[str, float]:
    """The defaults, changed by `FORM=NUMBER` words or by one YAML file of such. Raises `RadioVLMError`."""
    changed: dict[str, Any] = {}
    for word in said:
        name, equals, number = word.partition("=")
        if equals:
            changed[name] = number
        else:
            changed |= _file(word)
    shares = dict(DEFAULT_SHARES)
    for name, number in changed.items():
        if name not in shares:
            raise RadioVLMError(f"--shares: unknown form {name!r}; known: {', '.join(shares)}")
        try:
            shares[name] = float(number)
        except (TypeError, ValueError):
            shares[name] = -1.0
        if not 0 <= shares[name] <= 100:
            raise RadioVLMError(f"--shares: {name} must be a number of conversations an image, not {number!r}")
    return shares


def count_of(rng: random.Random, share: float) -> int:
    """A whole number whose mean is `share`."""
    whole = int(share)
    return whole + (rng.random() < share - whole)


def _file(name: str) -> dict[str, Any]:
    import yaml

    try:
        said = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RadioVLMError(f"--shares: {name} is neither FORM=NUMBER nor a file that can be read: {error}") from None
    if not isinstance(said, dict):
        raise RadioVLMError(f"--shares {name}: expected lines such as `expert: 2`")
    return said
