"""Every output tensor of the public reference, from every form of checkpoint, within 5e-5."""

import pytest

from encoders import RadioEncoder
from tests.helpers.radio_fixtures import FIXTURES, Case, cases
from tests.helpers.radio_parity import compare, options, sources
from tests.helpers.shared import shared_path

WHOLE = [name for name in cases() if (FIXTURES / name / "inputs.safetensors").is_file() and name != "i_cpe_train"]


@pytest.mark.parametrize("name", WHOLE)
def test_fixtures(name, tmp_path):
    case = Case(FIXTURES / name)
    for form, source in sources(case, tmp_path).items():
        if form == "ours":
            encoder = RadioEncoder.from_pretrained(source)  # as it was saved: heads and windows included
        else:
            encoder = RadioEncoder.from_pretrained(source, **options(case))
        compare(encoder, case)


def test_all_recorded_cases(tmp_path):
    root = shared_path("fixtures/radio")
    names = [name for name in cases(root) if name != "i_cpe_train"]
    assert len(names) >= 12
    for name in names:
        case = Case(root / name)
        for source in sources(case, tmp_path / name).values() if (tmp_path / name).mkdir() is None else ():
            compare(RadioEncoder.from_pretrained(source, **options(case)), case)
