"""What the demo takes away before it starts: an earlier demo, never anything else."""

import argparse

import pytest

from vlm.cli import demo


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run()` -> exit code of a demo into tmp_path/out whose steps do nothing."""

    class NoSteps(Exception):
        pass

    def no_runner(*_):
        raise NoSteps

    def run() -> int:
        parser = argparse.ArgumentParser()
        demo.add_arguments(parser)
        try:
            return demo.run(parser.parse_args(["--out", str(tmp_path / "out"), "--processes", "1"]))
        except NoSteps:
            return 0

    monkeypatch.setattr(demo, "Runner", no_runner)
    return run


def test_a_folder_of_other_things_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "out/data").mkdir(parents=True)
    (tmp_path / "out/data/thesis.txt").write_text("years of work")
    assert run() == 2
    assert (tmp_path / "out/data/thesis.txt").is_file()
    assert "holds data, and not of an earlier demo" in capsys.readouterr().err


def test_an_earlier_demo_is_replaced_and_what_stands_beside_it_kept(run, tmp_path):
    out = tmp_path / "out"
    for name in (demo.MARK, "data/old.txt", "notes.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    assert run() == 0
    assert (out / "notes.txt").is_file() and not (out / "data").exists() and (out / "data.yaml").is_file()


def test_an_empty_folder_is_fine(run, tmp_path):
    (tmp_path / "out").mkdir()
    assert run() == 0
