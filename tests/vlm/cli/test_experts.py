"""`radio-vlm experts`: every expert with what it is and lacks; downloads only when asked, errors in one line."""

import pytest

from vlm.cli.main import main
from vlm.experts import expert_names, get_expert


def test_every_expert_is_listed_with_its_state(capsys, monkeypatch):
    monkeypatch.setattr(get_expert("VISTA3D"), "unavailable", classmethod(lambda cls: "not installed: monai"))
    assert main(["experts"]) == 0
    entries = capsys.readouterr().out.split("\n\n")
    assert len(entries) == len(expert_names())
    shown = dict(zip(expert_names(), entries))
    assert shown["LESIONS"].startswith("<LESIONS()>\n    reads CT") and "can be used here" in shown["LESIONS"]
    assert "not installed: monai" in shown["VISTA3D"] and "hepatic tumor" in shown["VISTA3D"]
    assert all(len(line) <= 120 for line in "\n".join(entries).split("\n"))


def test_a_download_happens_only_when_asked_for(capsys, monkeypatch):
    fetched = []
    monkeypatch.setattr(get_expert("VISTA3D"), "download", classmethod(lambda cls: fetched.append(cls.card.name)))
    assert main(["experts"]) == 0 and fetched == []
    assert main(["experts", "--download", "VISTA3D"]) == 0 and fetched == ["VISTA3D"]


@pytest.mark.parametrize(("name", "said"), [("NOBODY", "unknown expert NOBODY"), ("LESIONS", "nothing to download")])
def test_what_cannot_be_downloaded_is_said(capsys, name, said):
    assert main(["experts", "--download", name]) == 2
    assert said in capsys.readouterr().err


def test_weights_of_a_folder_count(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = ["experts", "--expert-weights", str(tmp_path)]
    assert main(words) == 0 and "no weights" in capsys.readouterr().out.split("<FINDINGS")[1].split("\n\n")[0]
    folder = tmp_path / get_expert("FINDINGS").weights_name
    folder.mkdir()
    for name in ("model.safetensors", "card.json"):
        (folder / name).touch()
    assert main(words) == 0 and "can be used here" in capsys.readouterr().out.split("<FINDINGS")[1].split("\n\n")[0]
    assert main(["experts", "--expert-weights", str(tmp_path / "none")]) == 2
    assert "--expert-weights: no folder" in capsys.readouterr().err
