"""Identifiers and paths are taken out of texts; what a result says stays."""

import pytest

from vlm.experts.private_text import REMOVED, without_identifiers

NAMES = ("Zebrowski^Annabel", "MRN-4711", "19530617", "Lung^Li", "7", "Saint Nowhere Hospital")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zebrowski^Annabel has 2 lesions", "[removed] has 2 lesions"),
        ("annabel zebrowski: 14 mm", "[removed]: 14 mm"),
        ("ZEBROWSKI, ANNABEL", "[removed]"),
        ("Ms Zebrowski", "Ms [removed]"),
        ("id mrn-4711, born 19530617", "id [removed], born [removed]"),
        ("born 1953-06-17, 17.06.1953, 6/17/1953", "born [removed], [removed], [removed]"),
        ("1953-06-18 and 17.06.19530", "1953-06-18 and 17.06.19530"),
        ("lung: 7 mm; Lung's file", "lung: 7 mm; [removed]'s file"),
        ("at saint nowhere hospital", "at [removed]"),
        ("2 lesions; largest: left, 14 mm", "2 lesions; largest: left, 14 mm"),
        ("cannot open /data/a b/x.dcm", "cannot open [removed]"),
        ("at /data/ct/1.dcm, C:\\scans\\x\\y.dcm and ~/a/b", "at [removed], [removed] and [removed]"),
        ("x.dcm is bad", "[removed] is bad"),
        ("CT/MR and 3/4, mg/dL, </b> 1/2/3", "CT/MR and 3/4, mg/dL, </b> 1/2/3"),
    ],
)
def test_what_goes_and_what_stays(text, expected):
    assert without_identifiers(text, "/data/a b/x.dcm", NAMES) == expected


def test_a_short_path_and_odd_identifiers_do_no_harm():
    assert without_identifiers("a b c (", "a", ("(", "a", "", "^^", "((((")) == "a b c ("
    assert REMOVED in without_identifiers("open ./scans/jane.dcm", "./scans/jane.dcm")
