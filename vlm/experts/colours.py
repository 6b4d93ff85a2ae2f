"""One fixed colour for each label of a mask, whatever else is on the slice, so that red is the liver everywhere.

Colours that follow the order of the labels on one slice (as in VILA-M3's demo) change from slice to slice; here they
depend on the label's name alone. Colours are CSS names, which Pillow knows and a language model can read in a legend.
"""

import re
import zlib

# Labels that are often seen together have colours of their own, far apart from each other.
FIXED = {
    "liver": "red", "spleen": "blue", "pancreas": "yellow", "kidney": "magenta", "left kidney": "magenta",
    "right kidney": "orchid", "gallbladder": "green", "stomach": "orange", "bladder": "gold", "aorta": "crimson",
    "heart": "tomato", "bone": "ivory", "brain": "pink", "muscle": "brown", "colon": "sienna", "duodenum": "khaki",
    "lung": "cyan", "left lung": "cyan", "right lung": "turquoise", "airway": "lightskyblue", "trachea": "lightskyblue",
    "body": "silver", "lesion": "lime", "tumor": "lime", "nodule": "lime", "hepatic tumor": "lime",
    "pancreatic tumor": "chartreuse", "lung tumor": "greenyellow", "bone lesion": "springgreen",
    "tumor core": "red", "necrotic core": "red", "edema": "deepskyblue", "enhancing tumor": "yellow",
    "whole tumor": "orange",
}  # fmt: skip
# For numbered labels (lesion 1, lesion 2): neighbours in number differ clearly.
NUMBERED = (
    "red", "deepskyblue", "yellow", "magenta", "lime", "orange", "cyan", "pink",
    "blue", "sienna", "green", "violet", "tomato", "turquoise", "khaki", "orchid",
)  # fmt: skip
# For every other name: chosen by the name's checksum. Two names may share one; a legend then lists both behind it.
OTHERS = (
    "aquamarine", "cadetblue", "chocolate", "coral", "cornflowerblue", "darkcyan", "darkgoldenrod", "darkkhaki",
    "darkorange", "darkorchid", "darksalmon", "darkseagreen", "darkturquoise", "darkviolet", "deeppink", "dodgerblue",
    "firebrick", "forestgreen", "fuchsia", "goldenrod", "hotpink", "indianred", "indigo", "lawngreen", "lightcoral",
    "lightgreen", "lightpink", "lightsalmon", "lightseagreen", "limegreen", "maroon", "mediumaquamarine", "mediumblue",
    "mediumorchid", "mediumpurple", "mediumseagreen", "mediumslateblue", "mediumvioletred", "navy", "olive",
    "olivedrab", "orangered", "palegreen", "palevioletred", "peru", "plum", "purple", "rosybrown", "royalblue",
    "saddlebrown", "salmon", "sandybrown", "seagreen", "skyblue", "slateblue", "steelblue", "tan", "teal", "thistle",
    "yellowgreen",
)  # fmt: skip


def colour_name(label: str) -> str:
    """The CSS colour of a label such as `liver` or `lesion 2`; capitals, `_` and `-` do not count."""
    plain = " ".join(re.split(r"[\s_-]+", label.lower())).strip()
    if plain in FIXED:
        return FIXED[plain]
    numbered = re.fullmatch(r"(.*\D)?(\d{1,9})", plain)
    if numbered:
        return NUMBERED[(int(numbered[2]) - 1) % len(NUMBERED)]
    return OTHERS[zlib.crc32(plain.encode()) % len(OTHERS)]


def colour_rgb(label: str) -> tuple[int, int, int]:
    """The same as 8-bit red, green, blue."""
    from PIL import ImageColor

    return ImageColor.getrgb(colour_name(label))[:3]
