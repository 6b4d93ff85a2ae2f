"""Modality and body part as the rest of the package names them: DICOM's own codes, from a header or from a user's word.

Only words of a fixed list come out, so nothing typed into a header by hand can travel on. A header that says nothing
gives "", never a guess; whoever needs the answer asks the user for it (`require_modality`).
"""

from vlm.errors import SampleError

# DICOM PS3.3 C.7.3.1.1.1 -> words for people
MODALITIES = {
    "CT": "CT",
    "MR": "MRI",
    "DX": "X-ray",
    "CR": "X-ray",
    "RG": "X-ray",
    "PX": "panoramic X-ray",
    "MG": "mammography",
    "RF": "fluoroscopy",
    "XA": "X-ray angiography",
    "US": "ultrasound",
    "IVUS": "intravascular ultrasound",
    "NM": "nuclear medicine",
    "PT": "PET",
    "ES": "endoscopy",
    "GM": "general microscopy",
    "SM": "slide microscopy",
    "OP": "ophthalmic photography",
    "OPT": "optical coherence tomography",
    "OCT": "optical coherence tomography",
    "XC": "photograph",
    "RTIMAGE": "radiotherapy image",
    "RTDOSE": "radiotherapy dose",
}
SPOKEN = {
    "MRI": "MR",
    "MAGNETIC RESONANCE": "MR",
    "X-RAY": "DX",
    "XRAY": "DX",
    "CXR": "DX",
    "CHEST X-RAY": "DX",
    "DR": "DX",
    "PET": "PT",
    "ULTRASOUND": "US",
    "MAMMOGRAPHY": "MG",
    "NUCLEAR MEDICINE": "NM",
    "COMPUTED TOMOGRAPHY": "CT",
    "CAT": "CT",
}
# Defined terms of BodyPartExamined (PS3.16 Annex L) that images commonly carry.
BODY_PARTS = (
    "ABDOMEN", "ANKLE", "AORTA", "ARM", "BLADDER", "BRAIN", "BREAST", "CHEST", "CLAVICLE", "COLON", "CSPINE", "ELBOW",
    "EXTREMITY", "EYE", "FEMUR", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "HUMERUS",
    "JAW", "KIDNEY", "KNEE", "LEG", "LIVER", "LSPINE", "LUNG", "NECK", "PANCREAS", "PELVIS", "PROSTATE", "RIB",
    "SHOULDER", "SKULL", "SPINE", "STERNUM", "THIGH", "TOE", "TSPINE", "UTERUS", "WHOLEBODY", "WRIST",
)  # fmt: skip
BODY_PART_WORDS = {
    "THORAX": "CHEST",
    "CHEST AP": "CHEST",
    "CHEST PA": "CHEST",
    "LUNGS": "LUNG",
    "ENTIRE BODY": "WHOLEBODY",
    "CERVICAL SPINE": "CSPINE",
    "THORACIC SPINE": "TSPINE",
    "LUMBAR SPINE": "LSPINE",
    "HEAD AND NECK": "HEADNECK",
    "LOWER LEG": "LEG",
    "UPPER ARM": "HUMERUS",
    "CARDIAC": "HEART",
}


def normal_modality(word) -> str:
    """A code or a word ("mri", "X-ray") -> the DICOM code, or "" for one that names no image modality known here."""
    word = " ".join(str(word or "").replace("_", " ").upper().split())
    return word if word in MODALITIES else SPOKEN.get(word, "")


def normal_body_part(word) -> str:
    """ "Whole body", "THORAX" -> the defined term ("WHOLEBODY", "CHEST"), or "" for what is not in the list."""
    word = " ".join(str(word or "").replace("_", " ").replace("-", " ").upper().split())
    if word in BODY_PART_WORDS:
        return BODY_PART_WORDS[word]
    joined = word.replace(" ", "")
    return joined if joined in BODY_PARTS else ""


def require_modality(given, stated: str, path=None) -> str:
    """The modality of an image: the header's, else the user's.

    Args:
        given: What the user says, or None.
        stated: What the header says (a code), or "".

    Raises:
        SampleError: unknown_modality (the user's word is none of the list), other_modality (user and header differ),
            no_modality (neither says).
    """
    code = normal_modality(given) if given is not None else ""
    if given is not None and not code:
        known = ", ".join([*MODALITIES, *(word.lower() for word in SPOKEN)])
        raise SampleError(
            f"modality {given!r:.40} is not known; known are {known}", path=path, reason="unknown_modality"
        )
    if code and stated and MODALITIES[code] != MODALITIES[stated]:
        raise SampleError(f"modality {code} was given, the header says {stated}", path=path, reason="other_modality")
    if not code and not stated:
        message = "the file does not say its modality: give it (CT, MR, ...); it is not guessed from name or pixels"
        raise SampleError(message, path=path, reason="no_modality")
    return stated or code
