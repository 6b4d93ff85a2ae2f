"""The pages about tasks with experts: the notice, the tables, the calibration, and conversations with their slices."""

import re

import pytest

from eval.report import expert_card, expert_sections, expert_tables
from eval.report.calibration_chart import LARGEST, reliability
from eval.report.expert_pictures import marked_file
from eval.report.notice import is_medical, medical_tasks
from eval.report.results_page import main
from eval.report.row_files import files_of
from eval.results import write_json
from eval.results_file import read_results
from tests.helpers.balanced_html import Balanced
from tests.helpers.expert_results import BINS, call, expert_results, talk, write_slice
from tests.helpers.small_results import results, row, write
from vlm.notice import NOTICE

pytest.importorskip("pydicom", reason="optional package absent")
pytest.importorskip("scipy", reason="optional package absent")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    write_json(expert_results(folder), folder / "r.json")
    return folder


@pytest.fixture(scope="module")
def pages(folder):
    out, words = folder / "page.html", folder / "page.md"
    assert main([str(folder / "r.json"), "--out", str(out), "--markdown", str(words)]) == 0
    return out.read_text(), words.read_text()


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_parts_of_the_page(pages):
    html, words = pages
    parser = Balanced()
    parser.feed(html)
    assert parser.open == [] and all(source.startswith("data:") for source in parser.sources)
    assert parser.headings == [
        "Figures", "All figures", "By kind of question", "With and without the expert", "What was confused with what",
        "Calibration", "What went wrong", "Speed", "Conversations with experts", "Small print",
    ]  # fmt: skip
    assert html.index(NOTICE) < html.index("<h1>") and words.index(NOTICE) < words.index("##")
    for part in ("## With and without the expert", "## Calls: ct", "## Answers to side: ct", "## Yes or no: ct",
                 "## Calibration"):  # fmt: skip
        assert part in words
    assert "| LESIONS | 5 (62 %) | 1 (12 %) | 2 (25 %) |" in words
    assert "| none: card of another modality | 1 (50 %) | 0 (0 %) | 1 (50 %) |" in words
    assert "| cardiomegaly | 1 | 1 | 0 | 1 | 1 | 1 | 0.500 \\[0.09–0.91\\] | 0.333 \\[0.06–0.79\\] |" in words


def test_matrices_are_shaded_by_the_share_of_their_row(pages):
    html, _ = pages
    assert '<td class="hit" style="--share:0.62">5<small>62 %</small></td>' in html
    assert '<td class="miss" style="--share:0.50">1<small>50 %</small></td>' in html, "called for another modality"
    assert '<td class="miss zero">0</td>' in html


def test_with_and_without(folder, pages):
    result = read_results(folder / "r.json")
    [wants] = expert_tables.worth([result])
    assert [(share.control, share.value, share.n) for share in wants.shares] == [
        (None, 0.625, 8), ("expert_withheld", 0.5, 4), ("expert_wrong", 0.5, 4)
    ]  # fmt: skip
    html, words = pages
    assert "ct, 8 questions that want an expert" in html and "wrong expert (4 of them)" in html
    assert "ct: with the wrong expert 0.250 of the answers say that image and expert disagree." in html
    assert "- ct: with the wrong expert 0.250 of the answers" in words
    assert "| ct, questions that want an expert | 8 | 0.625 \\[0.250–0.875\\] | 0.500 \\[" in words


def test_a_conversation_says_who_said_what(folder):
    file = folder / "2.dcm"
    one = talk("s", "side", "right", "left", "LESIONS", file, [call(file, "2 lesions; largest: right, 9 mm")])
    control = talk("s", "side", "right", "left", "LESIONS", file, control="expert_withheld")
    wrong = [call(folder / "3.dcm", "3 lesions; largest: left, 11 mm", seconds=2.5)]
    other = talk("s", "side", "right", "left", "LESIONS", file, wrong, "expert_wrong")
    html = expert_card.expert_card(one, [control, other])
    for words in (
        "user Side? experts on offer: &lt;LESIONS()&gt; CT: lesions model &lt;LESIONS()&gt; "
        "LESIONS 2 lesions; largest: right, 9 mm 12 ms model ✗ left instead of right",
        "Control: no expert was offered model ✗ left",
        "Control: the expert read another patient’s image LESIONS 3 lesions; largest: left, 11 mm 2.5 s model ✗ left",
        "what the model saw what LESIONS marked lesion 1 lesion 2 “2 lesions; largest: right, 9 mm”",
    ):
        assert words in text_of(html)
    assert html.count("<img") == 3, "the slice, its regions, and what the wrong expert saw"
    assert '<i style="background:red"></i>lesion 1' in html and '<i style="background:deepskyblue"></i>lesion 2' in html


def test_errors_are_marked_and_cost_no_picture(folder):
    slow = call(folder / "1.dcm", "LESIONS did not answer within 120 s", ok=False, seconds=120.0)
    html = expert_card.expert_card(talk("s", "side", "left", "left", "LESIONS", folder / "1.dcm", [slow]))
    assert '<p class="failed"><span>LESIONS</span><span>error: LESIONS did not answer' in html and "120.0 s" in html
    assert html.count("<img") == 1 and "marked" not in text_of(html) and "no regions: no call succeeded" in html
    odd = talk("s", "sequence", "T1", "T1", None, folder / "1.dcm", offer=["LESIONS"])
    html = text_of(expert_card.expert_card(odd))
    assert "experts on offer: &lt;LESIONS()&gt; CT: lesions ; made for another modality: LESIONS" in html
    gone = call(folder / "gone.dcm", "1 lesion")
    html = expert_card.expert_card(talk("s", "side", "left", "left", "LESIONS", folder / "gone.dcm", [gone]))
    assert "picture not available" in html


def test_the_colours_on_the_slice_are_those_of_the_legend(folder):
    found = marked_file(str(folder / "2.dcm"), call("x", "2 lesions"))
    assert found.legend == [("red", "lesion 1"), ("deepskyblue", "lesion 2")] and found.plain.size == found.marked.size
    pixels = set(found.marked.getdata())
    assert {(255, 0, 0), (0, 191, 255)} <= pixels and not {(255, 0, 0), (0, 191, 255)} & set(found.plain.getdata())
    assert max(found.plain.size) >= 384


def test_no_network_is_run_for_a_page(folder, monkeypatch):
    from vlm.experts import get_expert

    def never(*args, **options):
        raise AssertionError("a network was built for a report")

    for name in ("FINDINGS", "VISTA3D"):
        monkeypatch.setattr(get_expert(name), "__init__", never)
        found = marked_file(str(folder / "1.dcm"), call("x", "yes", f"<{name}()>"))
        assert found.marked is None and f"{name} is a network and is not run again" in found.note
    assert "not installed here" in marked_file(str(folder / "1.dcm"), call("x", "yes", "<ELSEWHERE()>")).note


def test_volumes_show_the_slice_with_most_of_the_mask(folder, monkeypatch):
    import numpy as np

    from tests.helpers.ct_series import write_series
    from vlm.experts import Expert, ExpertCard, ExpertResult, protocol

    class Slab(Expert):
        card = ExpertCard("SLAB", "CT", "any", "a slab")

        def run(self, path, arguments):
            mask = np.zeros((4, 96, 96), np.uint8)
            mask[1, 40:44, 40:44], mask[2, 40:60, 40:60], mask[3, :2, :2] = 1, 2, 3
            return ExpertResult("a slab", mask, {"labels": {1: "liver", 2: "spleen", 3: "aorta"}})

    monkeypatch.setitem(protocol._EXPERTS, "SLAB", Slab)
    write_series(folder / "series", [0, 5, 10, 15])
    one = call(folder / "series", "a slab", "<SLAB()>")
    html = text_of(expert_card.expert_card(talk("v", "side", "left", "left", "SLAB", folder / "series", [one])))
    assert "what the model saw, slice 3 of 4" in html and "what SLAB marked spleen “a slab” 2 more on other" in html
    plain = talk("v", "side", "left", "left", "SLAB", folder / "series")
    assert "slice 3 of 4" in text_of(expert_card.expert_card(plain)), "the middle, where nothing is marked"


def test_files_are_found_as_rows_name_them(folder, tmp_path):
    """Below the folder of the data, as results name them; a digest leads to no file."""
    (tmp_path / "dicom").mkdir()
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / "dicom" / name).write_bytes((folder / name).read_bytes())
    own, other = tmp_path / "dicom" / "1.dcm", tmp_path / "dicom" / "2.dcm"
    one = talk("s", "side", "left", "left", "LESIONS", own, [call("dicom/1.dcm", "1 lesion")])
    wrong = talk("s", "side", "left", "left", "LESIONS", own, [call("dicom/2.dcm", "2 lesions")], "expert_wrong")
    lost = talk("s", "side", "left", "left", "LESIONS", own, [call("0123456789abcdef", "x")], "expert_wrong")
    assert files_of(one) == [str(own)] and files_of(wrong) == [str(own), str(other)] and files_of(lost) == [str(own)]
    assert expert_card.expert_card(one, [wrong]).count("<img") == 3, "its own, the regions, the other patient's"
    assert expert_card.expert_card(one, [lost]).count("<img") == 2


def test_pictures_beside_their_volume(folder):
    """The model saw pictures, the expert read the volume that they were taken from."""
    pictures = [str(folder / f"{n}.dcm") for n in (1, 2, 3)]
    plain = talk("v", "side", "left", "left", "LESIONS", folder / "3.dcm") | {"media": pictures}
    html = expert_card.expert_card(plain)
    assert html.count("<img") == 3
    called = plain | {"calls": [call(folder / "2.dcm", "2 lesions")], "media": pictures[:1] + pictures[2:]}
    words = text_of(expert_card.expert_card(called))
    assert "what the expert read what LESIONS marked" in words and "1 more picture shown" in words


def test_the_reliability_diagram(pages):
    drawing = reliability(BINS)
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', drawing)
    assert len(dots) == 9, "the empty bin has no dot"
    (x0, y0, r0), (x1, _, r1) = [[float(v) for v in dot] for dot in dots[:2]]
    assert r0 == LARGEST and (r1 / r0) ** 2 == pytest.approx(84 / 310, abs=0.01), "areas are as the numbers of answers"
    left, side = 58.0, 320 - 58 - 14
    assert x0 == pytest.approx(left + side * 0.05, abs=0.1) and y0 == pytest.approx(14 + side * 0.98, abs=0.1)
    assert "310 answers: probability 0.050, yes in 0.020" in drawing and "stroke-dasharray" in drawing
    html, words = pages
    assert "ECE 0.031, Brier 0.064, AUROC 0.972" in html and "669 answers" in html
    assert "| ct | 0 to 0.1 | 310 | 0.050 | 0.019 \\[0.01–0.04\\] |" in words
    assert reliability([{"low": 0, "high": 1, "count": 1, "mean_p": 1.0, "share_yes": 1.0}]).count("<circle") == 1


def test_several_models_side_by_side(folder):
    second = expert_results(folder) | {"model": "models/two"}
    write_json(second, folder / "two.json")
    out = folder / "both.html"
    assert main([str(folder / "r.json"), str(folder / "two.json"), "--out", str(out)]) == 0
    html = out.read_text()
    assert html.count("Which expert was called") == 2 and "ct, two" in html and '<div class="who">two</div>' in html


def test_what_is_medical_is_said_by_the_file(tmp_path):
    def says(about=None, **changes):
        return read_results(write(tmp_path / "x.json", [row("a", 1.0, **changes)], about=about))

    assert not is_medical(says(), "mine")
    assert is_medical(says({"medical": True}), "mine") and is_medical(says({"data": {"task": "medical"}}), "mine")
    assert is_medical(says(calls=[]), "mine") and is_medical(says(media=["a/b.DCM"]), "mine")
    assert medical_tasks([says()]) == []
    page = tmp_path / "p.html"
    assert main([str(tmp_path / "x.json"), "--out", str(page)]) == 0 and NOTICE not in page.read_text()


def test_tasks_about_patients_call_themselves_medical():
    from eval.tasks import get_task, tasks
    from eval.tasks.base import Options

    medical = {name for name in tasks if get_task(name).medical}
    assert {"vqa_rad", "slake", "pathvqa", "pmc_vqa", "chest_xray", "report_generation"} <= medical
    assert {"synthetic_medical", "chest_xray_expert"} <= medical and not {"docvqa", "chartqa", "mmmu"} & medical
    assert get_task("vqa_rad")().describe(Options())["medical"] is True
    assert "medical" not in get_task("docvqa")().describe(Options())


def test_no_experts_no_parts(tmp_path):
    data = results([row("a", 1.0), row("b", 0.0)])
    write_json(data, tmp_path / "r.json")
    result = read_results(tmp_path / "r.json")
    for part in ("worth", "confusions", "calibration", "conversations"):
        assert getattr(expert_sections, part)([result]) == ""
    assert expert_tables.calibration_table([result]).rows == [] and expert_tables.worth_table([result]).rows == []


def test_a_slice_is_written_once_and_read_as_it_is(tmp_path):
    """The control of the tests above: the number of lesions is the drawn one."""
    from vlm.experts import get_expert

    for number in (1, 2, 3):
        file = write_slice(tmp_path / f"{number}.dcm", number, seed=number + 1)
        assert get_expert("LESIONS")().run(file, ()).text.startswith(f"{number} lesion")
