"""The released RADIO versions: patch size, resolutions, and whether and how each was trained with ViTDet windows.

Figures are those of NVlabs/RADIO's resource map; a file or folder is recognised by its `version` or its name.
"""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Release:
    """One released version.

    Attributes:
        patch_size: pixels a side. max_resolution, preferred_resolution: pixels a side; advice, never enforced. None:
            not published where we looked.
        hub_id: repository that holds it; None where we know of none with this version alone.
        file: name of its torch.hub file there.
        vitdet: whether it was trained with windows.
        vitdet_num_global, vitdet_num_windowed: its schedule, see `encoders.vitdet.window_schedule`.
        unsupported: why it cannot be opened, if it cannot.
    """

    patch_size: int | None = 16
    max_resolution: int | None = 2048
    preferred_resolution: int | None = 512
    hub_id: str | None = None
    file: str | None = None
    vitdet: bool = True
    vitdet_num_global: int | None = None
    vitdet_num_windowed: int | None = None
    unsupported: str | None = None


E_RADIO = "E-RADIO is a convolution and multi-resolution attention hybrid without class tokens, not a ViT"
RADIO_1D = "RADIO1D compresses patches to a sequence of another length and decodes them again"

RELEASES: dict[str, Release] = {
    "radio_v1": Release(patch_size=14, max_resolution=1050, preferred_resolution=378, vitdet_num_global=4),
    "radio_v2": Release(preferred_resolution=432, vitdet_num_windowed=5),
    "radio_v2.1": Release(preferred_resolution=432, vitdet_num_windowed=5),
    "radio_v2.5-b": Release(preferred_resolution=768, vitdet_num_global=4),
    "radio_v2.5-l": Release(preferred_resolution=768, vitdet_num_global=4),
    "radio_v2.5-h": Release(preferred_resolution=768, vitdet_num_global=4),
    "radio_v2.5-h-norm": Release(preferred_resolution=768, vitdet_num_global=4),
    "radio_v2.5-g": Release(patch_size=14, max_resolution=1792, preferred_resolution=896, vitdet_num_global=8),
    "e-radio_v2": Release(vitdet=False, unsupported=E_RADIO),
    "c-radio_v2-g": Release(preferred_resolution=768, vitdet_num_global=8),
    "c-radio_v2-vlm-h": Release(preferred_resolution=768, vitdet_num_global=8, hub_id="nvidia/C-RADIOv2-VLM-H"),
    "c-radio_v3-b": Release(vitdet=False, hub_id="nvidia/C-RADIOv3-B", file="c-radio_v3-b_half.pth.tar"),
    "c-radio_v3-l": Release(vitdet=False, hub_id="nvidia/C-RADIOv3-L"),
    "c-radio_v3-h": Release(vitdet=False, hub_id="nvidia/C-RADIOv3-H"),
    "c-radio_v3-g": Release(vitdet=False, hub_id="nvidia/C-RADIOv3-g"),
    "c-radio_v4-so400m": Release(
        vitdet_num_global=4, hub_id="nvidia/C-RADIOv4-SO400M", file="c-radio_v4-so400m_half.pth.tar"
    ),
    "c-radio_v4-h": Release(vitdet_num_global=4, hub_id="nvidia/C-RADIOv4-H", file="c-radio_v4-h_half.pth.tar"),
    "c-radio_v4-1d-h": Release(
        patch_size=None,
        max_resolution=None,
        preferred_resolution=None,
        vitdet=False,
        hub_id="nvidia/C-RADIOv4-1D-H",
        unsupported=RADIO_1D,
    ),
}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "", name.lower())


def find_release(*names: str | None) -> str | None:
    """Name of the release that the first telling one of `names` means: a version, a hub id, or a file's or folder's
    name such as `c-radio_v4-h_half.pth.tar`; None if none tells."""
    for name in names:
        if not name:
            continue
        last = _plain(Path(name).name)
        fitting = [
            key
            for key, release in RELEASES.items()
            if re.match(re.escape(_plain(key)) + r"(?![.]?[0-9])", last)
            or (release.hub_id and last == _plain(Path(release.hub_id).name))
        ]
        if fitting:
            return max(fitting, key=len)
    return None


def table_rows() -> list[str]:
    """The releases as rows of a Markdown table: name, patch, resolutions, windows."""
    rows = []
    for name, release in RELEASES.items():
        schedule = f"{release.vitdet_num_global} global blocks"
        if release.vitdet_num_windowed:
            schedule = f"{release.vitdet_num_windowed} windowed blocks between global ones"
        windows = schedule if release.vitdet else "not trained with them"
        windows = windows if release.unsupported is None else "not supported yet"
        sizes = f"{release.max_resolution}, {release.preferred_resolution}" if release.max_resolution else "–"
        rows.append(f"| {name} | {release.patch_size or '–'} | {sizes} | {windows} |")
    return rows
