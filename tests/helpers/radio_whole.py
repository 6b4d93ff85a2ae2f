"""One small checkpoint with everything at once, put together from the parity fixtures: backbone, heads, PHI-S.

The fixtures of heads and normalizers keep only those weights; here they stand on the plain backbone, which is as wide.
"""

import copy
import json

from safetensors.torch import load_file

from tests.helpers.radio_fixtures import FIXTURES, Case


def whole_case(phi_s: bool = True, heads: bool = True) -> Case:
    """The plain case with the teachers' heads of `c_adaptors` and the feature normalizer of `f_feature_normalizer`."""
    case = Case(FIXTURES / "a_plain")
    case.facts = copy.deepcopy(case.facts)
    if phi_s:
        stored = load_file(FIXTURES / "f_feature_normalizer/weights.safetensors")
        case.weights |= {name: value for name, value in stored.items() if "feature_normalizer" in name}
        case.facts["feature_normalizer"] = True
    if heads:
        case.weights |= load_file(FIXTURES / "c_adaptors/weights.safetensors")
        other = json.loads((FIXTURES / "c_adaptors/config.json").read_text())
        case.facts |= {key: other[key] for key in ("adaptor_names", "adaptor_configs")}
        case.facts["teachers"] = case.facts["hf_args"]["teachers"] = other["hf_args"]["teachers"]
    return case
