"""`radio-vlm llms`: the table is the registry's, in the terminal and in the README."""

import re
from pathlib import Path

import pytest

import llm.family
from llm.family import LLMFamily, families
from vlm.cli.llms import COLUMNS, cells, joined_targets, markdown_table, records
from vlm.cli.main import main

README = Path(__file__).resolve().parents[3] / "README.md"


def shown(capsys, *words: str) -> str:
    assert main(["llms", *words]) == 0
    return capsys.readouterr().out.rstrip("\n")


def test_the_terminal_shows_every_record_in_full(capsys):
    text = shown(capsys)
    assert all(len(line) <= 120 for line in text.splitlines())
    words = re.split(r"[\s;,]+", text)
    for family in families().values():
        for name in (family.model_type, *family.block_classes, *family.kernels):
            assert name in words, f"{name} is missing or broken over two lines"
        assert family.title in " ".join(text.split())
        for module, reason in family.lora_refused.items():
            assert f"No LoRA on {module}" in text and reason in " ".join(text.split())


@pytest.mark.parametrize("family", records(), ids=lambda family: family.model_type or "other")
def test_joined_lora_targets_are_the_declared_ones(family):
    spelled = []
    for group in joined_targets(family.lora_targets):
        *stems, last = group.split("/")
        stem, _, ending = last.rpartition("_")
        spelled += [f"{name}_{ending}" for name in (*stems, stem)]
    assert sorted(spelled) == sorted(family.lora_targets)


def test_markdown_has_one_row_a_record(capsys):
    lines = markdown_table().splitlines()
    assert shown(capsys, "--markdown") == markdown_table()
    assert len(lines) == len(records()) + 2
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}
    for line, family in zip(lines[2:], records()):
        row = dict(zip(COLUMNS, [cell.strip() for cell in line.strip("|").split("|")]))
        assert row["family"] == (f"`{family.model_type}` {family.title}" if family.model_type else "any other")
        assert row["packs"] == family.packing
        assert row["kernels"] == ("; ".join(f"`{name}`" for name in family.kernels) or "–")
        assert row["loss extras"] == (family.loss_extras or "–")


def test_a_new_family_is_in_the_table(monkeypatch):
    new = LLMFamily(model_type="zzz_new", title="New", kind="RNN", block_classes=("NewBlock",))
    monkeypatch.setitem(llm.family._REGISTRY, "zzz_new", new)
    row = markdown_table().splitlines()[-2]
    assert row.startswith("| `zzz_new` New | RNN | never |") and "`NewBlock`" in row
    assert cells(new)["LoRA targets"] == ["every linear layer but the head"]


def test_the_readme_holds_the_table():
    between = re.search(r"<!-- llms:begin -->\n+(.*?)\n+<!-- llms:end -->", README.read_text(), re.S)
    assert between, "README.md has no table between <!-- llms:begin --> and <!-- llms:end -->"
    assert between[1] == markdown_table(), "put the output of `radio-vlm llms --markdown` into README.md"
