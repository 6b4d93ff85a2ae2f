"""The 95 % interval of a share of independent questions, such as a sensitivity.

Wilson's score interval (J. Am. Stat. Assoc. 22:209, 1927): closed, inside 0 to 1, sensible for 0 of n and n of n.
Figures over questions that share a patient take the clustered interval of `eval.bootstrap` instead.
"""

from __future__ import annotations

import math

Z = 1.959963984540054  # two-sided 95 %


def wilson(hits: int, n: int) -> tuple[float, float] | None:
    """Ends of the interval of `hits` of `n`; None for n = 0. Raises ValueError unless 0 <= hits <= n."""
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no share")
    if n == 0:
        return None
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return 0.0 if hits == 0 else middle - half, 1.0 if hits == n else middle + half
