"""Where extraction rules register, by the name of the code they follow.

A rule takes the response, the option letters and the option texts in the letters' order (either may be longer), and
returns what it read: a letter, or "" if nothing. Public rules that pick a random option when they fail return "".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval.registry import Registry

Extractor = Callable[[str, Sequence[str], Sequence[str]], str]

extractors: Registry[Extractor] = Registry("extractor")
register_extractor = extractors.register
