"""No page tells whose images it is about: names, numbers and dates are planted wherever they could come from."""

import base64
import io
import json
import re

import pytest
from PIL import Image, PngImagePlugin

from eval.compare import main as compare
from eval.report.build import build
from eval.report.pictures import data_uri
from eval.report.private import Patients, read_headers, without_patients
from eval.report.results_page import main
from eval.results import write_json
from eval.results_file import read_results
from tests.helpers.expert_results import PATIENT, call, talk, write_slice
from tests.helpers.small_results import results, row

pytest.importorskip("pydicom", reason="optional package absent")
pytest.importorskip("scipy", reason="optional package absent")

OTHER = {"PatientName": "Featherstonehaugh^Basil", "PatientID": "HX-90125", "PatientBirthDate": "19270203"}
PLANTED = re.compile(
    r"zebrowski|annabel|featherstonehaugh|basil|quackenbush|saint.nowhere|acc90210"
    r"|mrn\W*4711|4711\W*88|hx\W*90125|1953\W?06\W?17|1927\W?02\W?03",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Results whose files, folders, ids, answers, results of experts, errors and settings name two patients."""
    folder = tmp_path_factory.mktemp("plant") / "zebrowski-annabel" / "mrn_4711_88"
    mine = write_slice(folder / "Zebrowski_19530617.dcm", 2, 3, **PATIENT)
    other = write_slice(folder / "featherstonehaugh" / "HX90125.dcm", 3, 4, **OTHER)
    below = str(other.relative_to(folder))  # as results name what an expert read
    leak = f"2 lesions of Annabel Zebrowski (MRN-4711-88), born 19530617, in {mine}"
    rows = [
        talk("MRN-4711-88", "side", "right", leak, "LESIONS", mine, [call(mine, leak)]),
        talk("MRN-4711-88", "side", "right", "Basil", "LESIONS", mine, [call(below, "of Featherstonehaugh^Basil")],
             "expert_wrong", donor="HX-90125", expert_file=below),
        talk("mrn471188-b", "side", "right", "left", "LESIONS", mine, [call(mine, f"no {mine}", ok=False)]),
        talk("HX-90125", "side", "left", "left", "LESIONS", other),
        talk("plain", "side", "left", "", None, mine, error=f"OSError: cannot read {mine} of ZEBROWSKI^ANNABEL Q"),
        row("doc", 1.0, task="documents", output="as it is: /srv/pages/1.png"),
    ]  # fmt: skip
    for one in rows[:-1]:
        one["prompt"] = f"<|user|>{one['question']} {leak}"
    about = {"data": {"path": str(folder), "file": "records.jsonl", "sha256": "d", "name": "Zebrowski, Annabel"}}
    model = f"{folder.parent.name}/stage4"
    data = results(rows, model, about, command=["eval/run.py", "--data", f"{folder.parent.name}/{folder.name}"])
    file = folder / "Annabel.json"
    write_json(data, file)
    return file


def clean(text):
    """No identifier in the words, nor in any chunk of the pictures."""
    words = re.sub(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", "", text)
    assert not PLANTED.search(words), PLANTED.search(words)
    found = re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", text)
    for picture in found:
        content = base64.b64decode(picture)
        assert not PLANTED.search(content.decode("latin-1"))
        opened = Image.open(io.BytesIO(content))
        assert not set(opened.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"} and not opened.getexif()
    return len(found)


def test_the_planted_file_names_them(planted):
    """The control: what the page is made of is full of names."""
    text = planted.read_text()
    assert len(PLANTED.findall(text)) > 40
    headers = read_headers(json.loads(text)["samples"][0]["media"])
    assert any("Zebrowski" in name for names in headers.values() for name in names)


def test_no_page_names_a_patient(planted, tmp_path):
    page, words = tmp_path / "page.html", tmp_path / "page.md"
    assert main([str(planted), "--out", str(page), "--markdown", str(words)]) == 0
    assert clean(page.read_text()) >= 5, "slices, regions, the other patient's slice"
    clean(words.read_text())
    assert "2 lesions of [removed]" in page.read_text() and "[removed] 1" in page.read_text()


def test_nor_does_the_page_of_a_run_or_a_comparison(planted, tmp_path, capsys):
    run = tmp_path / "Zebrowski" / "run"
    (run / "eval").mkdir(parents=True)
    (run / "eval" / "stage4-ct.json").write_text(planted.read_text())
    recipe = {"data": "../Zebrowski/MRN_4711_88/mixture.yaml"}
    for name, content in {"trainer_state": {"log_history": []}, "recipe": recipe}.items():
        write_json(content, run / "stage4" / f"{name}.json")
    out = build(run, tmp_path / "run.html")
    assert clean(out.read_text()) >= 4
    page = tmp_path / "compare.html"
    second = json.loads(planted.read_text())
    second["samples"][0]["score"] = second["samples"][0]["scores"]["accuracy"] = 1.0
    write_json(second, tmp_path / "zebrowski.json")
    assert compare([str(planted), str(tmp_path / "zebrowski.json"), "--out", str(page)]) == 0
    assert clean(page.read_text()) >= 1
    clean(capsys.readouterr().out.replace(str(page), ""))


def test_the_log_names_nobody(planted, tmp_path, caplog):
    data = json.loads(planted.read_text())
    for one in data["samples"][:-1]:
        one["media"] = [one["media"][0] + ".gone"]
        one["calls"] = []
    write_json(data, tmp_path / "r.json")
    with caplog.at_level("WARNING"):
        main([str(tmp_path / "r.json"), "--out", str(tmp_path / "p.html")])
    assert caplog.records
    for record in caplog.records:
        assert str(planted.parent) not in record.getMessage()


def test_only_pixels_go_into_a_picture(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Description", "Zebrowski")
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    noise.save(tmp_path / "a.png", pnginfo=chunks)
    noise.save(tmp_path / "a.jpg", comment=b"Zebrowski", quality=95)
    exif = Image.Exif()
    exif[0x010E] = "Zebrowski"
    noise.save(tmp_path / "b.jpg", exif=exif, quality=95)
    for name in ("a.png", "a.jpg", "b.jpg"):
        opened = Image.open(tmp_path / name)
        assert b"Zebrowski" in (tmp_path / name).read_bytes()
        assert b"Zebrowski" not in base64.b64decode(data_uri(opened).partition(",")[2])
        assert opened.info or name == "b.jpg", "the caller's picture keeps what it had"


def test_what_is_taken_out_and_what_is_not():
    patients = Patients(["Zebrowski^Annabel^Q", "MRN-4711-88", "19530617", "Lee^Bo"])
    for path in (
        "data/zebrowski/x.dcm",
        "MRN_4711_88",
        "mrn471188.png",
        "x-1953-06-17.dcm",
        "AnnabelZebrowski.nii",
        "a/lee/b",
    ):
        assert "[removed]" in patients.path(path), path
    for path in ("data/medical-test", "sleeve/1.dcm", "ct-000012"):
        assert patients.path(path) == path
    assert patients.words("run.py --data a/zebrowski --tasks ct") == "run.py --data a/[removed] --tasks ct"
    assert patients.words("python /opt/x.py on 19530617") == "python /opt/x.py on [removed]"
    assert patients.everywhere({"a": ["of Annabel", 3, None], "b": True}) == {"a": ["of [removed]", 3, None], "b": True}
    assert Patients([]).words("/a/b of Annabel") == "/a/b of Annabel"


def test_other_tasks_stay_as_they_are(planted, tmp_path):
    [cleaned] = without_patients([read_results(planted)])
    [document] = [one for one in cleaned.data["samples"] if one["task"] == "documents"]
    assert document["output"] == "as it is: /srv/pages/1.png"
    assert [one["media"] for one in cleaned.data["samples"]] == [
        one["media"] for one in json.loads(planted.read_text())["samples"]
    ]
    write_json(results([row("a", 1.0)]), tmp_path / "r.json")
    plain = read_results(tmp_path / "r.json")
    assert without_patients([plain]) == [plain] and without_patients([plain])[0] is plain


def test_ids_stay_apart_and_equal_ids_equal(planted):
    ids = [one["id"] for one in without_patients([read_results(planted)])[0].data["samples"]]
    assert ids[0] == ids[1] and len(set(ids)) == 5 and ids[-1] == "doc" and ids[4] == "plain"
