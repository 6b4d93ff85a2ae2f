"""One short string that model and processor must agree on before a batch is trusted.

It covers everything that decides how many placeholders a picture gets and which token carries them. The pixel budgets
are left out on purpose: a user may raise them for one call without breaking any count.
"""

import json
import zlib

from projectors.components import count_facts

_GEOMETRY_KEYS = ("patch_size", "multiple")
_SCALE_KEYS = ("scales", "last_scale")


def geometry_fingerprint(geometry: dict, projector_config: dict, video: dict | None, token_ids: dict[str, int]) -> str:
    """Fingerprint of what model and processor share.

    Args:
        geometry: as in `RadioVLMConfig.geometry`.
        projector_config: as in `RadioVLMConfig.projector_config`.
        video: as in `RadioVLMConfig.video`.
        token_ids: `{"image": id, "video": id}`.
    """
    facts = {
        "geometry": {key: geometry.get(key) for key in _GEOMETRY_KEYS},
        "projector": count_facts(projector_config),
        "temporal_patch_size": (video or {}).get("temporal_patch_size", 1),
        "token_ids": {role: int(token_ids[role]) for role in ("image", "video")},
    }
    # only where they are used, so that fingerprints of other models stay what they were
    if geometry.get("mode") == "multi_scale":
        facts["geometry"] |= {key: geometry.get(key) for key in _SCALE_KEYS}
    if (pool := (video or {}).get("temporal_pool", 1)) > 1:
        facts["temporal_pool"] = pool
    text = json.dumps(facts, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}:{text}"
