"""Layer strings of Nemotron-H: the letters mean what transformers makes of them, anything else is told by place."""

import pytest
from transformers import NemotronHConfig

from llm import families
from llm.pattern import LETTERS, check_pattern
from llm.presets import LLM_PRESETS

MEANINGS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}


def test_letters_are_those_of_transformers():
    assert LETTERS.keys() == MEANINGS.keys()
    for letter, meaning in MEANINGS.items():
        assert NemotronHConfig(hybrid_override_pattern=letter).layers_block_type == [meaning]


@pytest.mark.parametrize("pattern", ["M", "M*-ME", "E" * 300])
def test_good_patterns_come_back(pattern: str):
    assert check_pattern(pattern) == pattern
    assert NemotronHConfig(hybrid_override_pattern=pattern).hybrid_override_pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "letter", "place"), [("M*XM", "X", 2), ("m", "m", 0), ("MM M", " ", 2), ("M|-", "|", 1)]
)
def test_the_first_unknown_letter_is_named_with_its_place(pattern: str, letter: str, place: int):
    with pytest.raises(ValueError) as error:
        check_pattern(pattern)
    message = str(error.value)
    assert f"hybrid_override_pattern {pattern!r}: unknown letter {letter!r} at place {place}" in message
    assert all(f"{letter} {meaning}" in message for letter, meaning in LETTERS.items()), "the known ones are listed"
    with pytest.raises(KeyError):  # control: what transformers says of it
        NemotronHConfig(hybrid_override_pattern=pattern)


def test_an_empty_pattern_is_an_error_that_transformers_does_not_make():
    with pytest.raises(ValueError, match="mtp_hybrid_override_pattern is empty"):
        check_pattern("", "mtp_hybrid_override_pattern")
    assert NemotronHConfig(hybrid_override_pattern="").num_hidden_layers == 0


def test_patterns_written_in_python_are_checked():
    with pytest.raises(ValueError, match="unknown letter 'X' at place 1"):
        families()["nemotron_h"].tiny("MX")
    hybrids = {name: preset.config() for name, preset in LLM_PRESETS.items()}
    hybrids = {name: config for name, config in hybrids.items() if config.model_type == "nemotron_h"}
    assert len(hybrids) >= 3
    for name, config in hybrids.items():
        assert check_pattern(config.hybrid_override_pattern), name
