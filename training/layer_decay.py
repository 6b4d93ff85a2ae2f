"""Which block of its module a parameter belongs to, for learning rates that fall towards the input.

With decay d the last block trains at the module's full rate, block i of n at `rate * d ** (n - 1 - i)`; what stands
before the first block (embeddings, position tables) at `rate * d ** n`, what stands behind the last (final norm, head)
at the full rate. BEiT (arXiv 2106.08254) names the idea; ViT recipes use 0.75 to 0.95.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from training.recipe import RecipeError

# encoder.layer.3. (RADIO), model.layers.3. (language models), h.3., blocks.3.
BLOCK = re.compile(r"\.(?:layers?|blocks?|h)\.(\d+)\.")


@dataclass(frozen=True)
class Place:
    """Where a parameter stands: its part (for the group's name) and how many blocks lie behind that part."""

    part: str
    behind: int


def places(names: Iterable[str], module: str) -> dict[str, Place]:
    """Place of every parameter of a module; `names` in the order in which the model registers them.

    Raises:
        RecipeError: the module has no numbered blocks.
    """
    names = list(names)
    found = {name: BLOCK.search(name) for name in names}
    blocks = sorted({int(match[1]) for match in found.values() if match})
    if not blocks:
        raise RecipeError(f"modules.{module}.layer_decay is set, but the {module} has no numbered blocks: leave it out")
    count, width = blocks[-1] + 1, max(2, len(str(blocks[-1])))
    result, seen = {}, False
    for name in names:
        if match := found[name]:
            seen, index = True, int(match[1])
            result[name] = Place(f"block{index:0{width}d}", count - 1 - index)
        else:
            result[name] = Place("head", 0) if seen else Place("embeddings", count)
    return result
