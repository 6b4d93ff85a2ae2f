"""Modality and body part: the standard's words or nothing, the user asked where the header is silent."""

import pytest

from vlm.errors import SampleError
from vlm.media.modality import normal_body_part, normal_modality, require_modality


def test_words():
    assert [normal_modality(word) for word in ("ct", "MRI", " x-ray ", "CXR", "PET", "SR", "Doe^John", None)] == [
        "CT", "MR", "DX", "DX", "PT", "", "", "",
    ]  # fmt: skip
    assert [normal_body_part(word) for word in ("Whole Body", "THORAX", "cervical spine", "PANCREAS", "John Doe")] == [
        "WHOLEBODY", "CHEST", "CSPINE", "PANCREAS", "",
    ]  # fmt: skip


def test_who_says():
    assert require_modality("mri", "") == "MR" and require_modality(None, "CT") == "CT"
    assert require_modality("x-ray", "CR") == "CR", "the header's word where both mean X-ray"
    for given, stated, reason in (
        (None, "", "no_modality"),
        ("CT", "MR", "other_modality"),
        ("nose", "", "unknown_modality"),
    ):
        with pytest.raises(SampleError) as caught:
            require_modality(given, stated)
        assert caught.value.reason == reason
