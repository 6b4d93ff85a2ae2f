"""Which images lie in the region that an expert was made for: a chest X-ray's expert has nothing true to say of a foot.

A card names a region in a word (`chest`), a header a body part in a term of DICOM (`LUNG`). The table below says which
terms lie in which region. Only what is stated counts: a silent header, a term that `vlm.media.modality` does not know
(`CHESTABDPELVIS`), a card for `any` part or with a word that is not in the table: all of these fit.
"""

from collections.abc import Iterable

from vlm.experts.protocol import ExpertCard

# Terms of `vlm.media.modality.BODY_PARTS`. A neighbour that shows the region only at its edge (NECK for the chest,
# PELVIS for the abdomen, the spine's parts) is left out: an expert that sees half an organ calls the rest healthy.
_BRAIN = ("BRAIN", "HEAD", "SKULL", "HEADNECK", "WHOLEBODY")
REGIONS = {
    "chest": ("CHEST", "LUNG", "HEART", "RIB", "STERNUM", "AORTA", "WHOLEBODY"),
    "brain": _BRAIN,
    "head": (*_BRAIN, "EYE", "JAW"),
    "abdomen": ("ABDOMEN", "LIVER", "KIDNEY", "PANCREAS", "COLON", "AORTA", "WHOLEBODY"),
    "pelvis": ("PELVIS", "BLADDER", "PROSTATE", "UTERUS", "HIP", "WHOLEBODY"),
}


def part_fits(card: ExpertCard, body_part: str | None) -> bool:
    """Whether an image of this body part (a term of DICOM; None: not stated) may lie in the card's region."""
    region = REGIONS.get(card.body_part.lower())
    return region is None or body_part is None or body_part in region


def card_fits(card: ExpertCard, modality: str | None, body_part: str | None) -> bool:
    """Whether the expert reads images of this modality and this body part."""
    return modality in card.modalities and part_fits(card, body_part)


def part_refused(card: ExpertCard, images: Iterable[tuple[str | None, str | None]]) -> str | None:
    """Why no image (modality, body part) of the card's modality fits, in words; None where the modality is the reason.

    E.g. `it reads DX/CR of the chest, the image shows EXTREMITY`.
    """
    parts = dict.fromkeys(part for modality, part in images if modality in card.modalities and part)
    return f"it reads {card.modality} of the {card.body_part}, the image shows {', '.join(parts)}" if parts else None
