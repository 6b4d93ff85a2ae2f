"""From images to conversations: every form present and right, readable by training and evaluation, nobody named."""

import multiprocessing
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
import yaml

from eval.data import read_dataset
from tests.helpers.labelled_images import WORDS, plant, random_findings, records_of, write_rows, write_set
from tests.helpers.medical_files import body, write_nifti
from training.data.expert_dialogues.make import Settings, make
from training.data.expert_dialogues.shares import DEFAULT_SHARES
from training.data.mixture import Mixture
from training.data.sources import open_source
from vlm.errors import RadioVLMError
from vlm.experts import Expert, ExpertCard, ExpertError, ExpertResult, parse_trigger
from vlm.experts import protocol as experts
from vlm.experts.conversation import text_of

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
OFTEN = DEFAULT_SHARES | {"fails": 1, "unavailable": 1, "contradiction": 1, "wrong_modality": 1}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    write_set(folder / "set", ct=8, dx=8, mr=3)
    random_findings(folder / "weights")
    return folder


def settings(labelled, out, **changes):
    return Settings(labelled / "set", out, expert_weights=labelled / "weights", shares=OFTEN, **changes)


@pytest.fixture(scope="module")
def made(labelled, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    return out, make(settings(labelled, out))


def records(out):
    return [record for part in sorted(out.glob("*/records.jsonl")) for record in records_of(part.parent)]


def tree(out, *left_out):
    files = (path for path in out.rglob("*") if path.is_file() and not set(path.relative_to(out).parts) & set(left_out))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_every_form_is_there_and_in_its_part(made):
    out, summary = made
    forms = {
        part.name: {r["meta"]["form"] for r in records_of(part)}
        for part in out.iterdir()
        if (part / "dataset.json").exists()
    }
    assert forms == {
        "expert-FINDINGS": {"expert"}, "expert-LESIONS": {"expert", "follow_up"}, "vqa": {"vqa"}, "reports": {"report"},
        "negatives": {"no_expert", "wrong_modality", "fails", "unavailable", "contradiction"},
    }  # fmt: skip
    assert sum(summary.counts.values()) == len(records(out)) and summary.images == 19 and summary.kept == 0
    assert len({record["id"] for record in records(out)}) == len(records(out))


def test_conversations_are_what_their_form_says(made):
    for record in records(made[0]):
        meta, turns = record["meta"], [(message["role"], text_of(message)) for message in record["messages"]]
        assert [role for role, _ in turns] == ["user", "assistant"] * (len(turns) // 2)
        said = [text for role, text in turns if role == "assistant"]
        first, cards = parse_trigger(said[0]), re.findall(r"^<([A-Z]+)\(", turns[0][1], re.M)
        assert all(parse_trigger(text) is None for text in said[1:]), "one call at most"
        assert said[-1] == meta["answers"][0]
        if meta["expert"]:  # a call: the card is there, the result comes back with the question
            assert meta["expert"] in (str(first), first.name) and first.name in cards
            question = turns[0][1].rpartition("\n")[2]
            assert turns[2][1].endswith(f"\n{question}")
            assert ("error: " in turns[2][1]) == (meta["form"] in ("fails", "unavailable"))
        else:
            assert first is None and len(turns) == 2
            assert bool(cards) == (meta["form"] in ("no_expert", "wrong_modality"))
        if meta["form"] == "wrong_modality":
            (offered,) = meta["offer"]
            assert offered in cards and offered in said[0]
        if meta["form"] == "follow_up":
            assert len(said) >= 3
        if meta["form"] == "contradiction":
            assert "image" in said[-1]


def test_answers_are_the_true_ones(made, labelled):
    """Where labels are given they are the answer, whatever the (random) expert said."""
    import json

    rows = [json.loads(line) for line in (labelled / "set" / "images.jsonl").read_text().splitlines()]
    checked = Counter()
    for record in records(made[0]):
        meta, labels = record["meta"], rows[int(record["id"][:6]) - 1].get("labels", {})
        if meta["form"] in ("expert", "follow_up", "vqa") and meta["kind"] in labels:
            value = labels[meta["kind"]]
            assert meta["answers"] == [
                {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
            ]
            checked[meta["form"]] += 1
        if meta["form"] == "expert" and meta["kind"] in ("effusion", "nodule", "cardiomegaly"):
            result = text_of(record["messages"][2]).partition("\n")[0]
            assert result == f"{meta['kind']}: {meta['answers'][0]}" and meta["expert"] == f"<FINDINGS({meta['kind']})>"
        if meta["form"] == "contradiction" and meta["kind"] == "number":
            shown = text_of(record["messages"][2]).split()[0]
            assert shown != str(labels["number"]) and str(labels["number"]) in meta["answers"][0]
    assert all(checked[form] > 5 for form in ("expert", "follow_up", "vqa"))


def test_a_result_that_the_label_denies_becomes_a_contradiction(made):
    out, summary = made
    natural = [record for record in records(out) if record["meta"].get("natural")]
    assert natural and summary.disagree and {record["meta"]["form"] for record in natural} == {"contradiction"}
    assert sum(summary.disagree.values()) < sum(summary.judged.values())


def test_training_and_its_mixture_read_every_part(made):
    out = made[0]
    entries = yaml.safe_load((out / "mixture.yaml").read_text())
    assert {entry["path"]: entry["repeats"] for entry in entries} == {
        "expert-FINDINGS": 2, "expert-LESIONS": 8, "negatives": 4, "reports": 1, "vqa": 4,
    }  # fmt: skip
    mixture = Mixture(entries, root=out)
    for sample in mixture:
        for message in sample.resolved_messages():
            for item in message["content"]:
                assert item["type"] == "text" or (Path(item["image"]).is_file() and item["modality"])
    assert len(mixture.order(0)) == sum(entry["repeats"] * len(open_source(out / entry["path"])) for entry in entries)


def test_nobody_is_named_anywhere(made, labelled):
    planted = b"".join(tree(labelled / "set").values())
    for word in WORDS:
        assert word.encode() in planted
        for name, content in tree(made[0]).items():
            assert word.lower() not in name.lower() and word.lower().encode() not in content.lower(), (word, name)
    for name, content in tree(made[0] / "images").items():  # nothing but header, pixels and end
        chunks = set(re.findall(rb"(tEXt|iTXt|zTXt|eXIf|iCCP|tIME)", content))
        assert name.endswith(".png") and not chunks


def test_the_same_again_and_with_two_workers(made, labelled, tmp_path):
    out = made[0]
    summary = make(settings(labelled, tmp_path / "two", workers=2))
    assert tree(tmp_path / "two", ".cache") == tree(out, ".cache")
    assert summary.calls == made[1].calls
    again = make(settings(labelled, tmp_path / "two"))
    assert again.kept == again.calls > 0 and tree(tmp_path / "two", ".cache") == tree(out, ".cache")
    make(settings(labelled, tmp_path / "two", seed=1))
    assert tree(tmp_path / "two", ".cache") != tree(out, ".cache")


def test_val_and_test_hold_single_questions_on_files_that_experts_can_read(labelled, tmp_path):
    write_set(tmp_path / "set", ct=4, dx=2, mr=2, split="test")
    random_findings(tmp_path / "weights")
    out = tmp_path / "out"
    make(settings(tmp_path, out, split="test"))
    data = read_dataset(out)
    assert data.info["split"] == "test" and data.info["experts"] == ["FINDINGS", "LESIONS"]
    from vlm.experts import ExpertSession

    with ExpertSession(["FINDINGS", "LESIONS"], weights=tmp_path / "weights") as session:
        for sample in data.samples:
            assert sample.problem is None and len(sample.prompt) == 1 and "Experts:" not in sample.question
            fitting = [card.name for card in session.fitting(Path(sample.media[0]))]
            wanted, form = sample.meta["expert"], sample.meta["form"]
            assert form in ("expert", "no_expert", "wrong_modality", "report", "contradiction", "vqa")
            if wanted:
                assert re.match(r"<?([A-Z]+)", wanted)[1] in fitting
            if form == "wrong_modality":
                assert sample.meta["offer"][0] not in fitting
        lesions = next(s for s in data.samples if s.meta["expert"] == "LESIONS" and s.kind == "number")
        replies = iter(("<LESIONS()>", "done"))
        transcript = session.run(lambda _: [next(replies)], lesions.prompt)
        assert transcript.calls[0].text.startswith(lesions.answers[0])
    for word in WORDS:
        assert all(word.encode() not in content for content in tree(out).values())
    assert not (out / "mixture.yaml").exists()


class Slow(Expert):
    """Writes down every run, and kills its process at run number `deadly`."""

    card = ExpertCard("SLOW", "CT", "any", "things")
    book: Path
    deadly = 0

    def run(self, path, arguments):
        with self.book.open("a") as file:
            file.write(f"{path.name}\n")
        if len(self.book.read_text().split()) == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if path.name == "ct3.dcm":
            raise ExpertError("missing: t1, t2")
        return ExpertResult("found", None, {"probabilities": {"thing": 0.9}})


@pytest.fixture
def slow(monkeypatch, tmp_path):
    monkeypatch.setitem(experts._EXPERTS, "SLOW", Slow)
    monkeypatch.setattr(Slow, "book", tmp_path / "book", raising=False)
    return Slow


def test_a_killed_run_goes_on_and_runs_nothing_twice(slow, monkeypatch, tmp_path):
    write_set(tmp_path / "set", ct=6, dx=0, mr=0)
    chosen = Settings(tmp_path / "set", tmp_path / "out", experts=("SLOW",), seed=3)
    monkeypatch.setattr(slow, "deadly", 5)
    process = multiprocessing.get_context("fork").Process(target=make, args=(chosen,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out" / "mixture.yaml").exists() and not list((tmp_path / "out").glob("*/dataset.json"))
    summary = make(chosen)
    ran = Counter(slow.book.read_text().split())
    assert summary.kept == 4 and ran["ct4.dcm"] == 2 and sum(ran.values()) == 7  # the one that was killed, once more
    make(Settings(tmp_path / "set", tmp_path / "whole", experts=("SLOW",), seed=3))
    assert tree(tmp_path / "whole", ".cache") == tree(tmp_path / "out", ".cache")


def test_an_experts_own_refusal_is_kept_and_becomes_an_honest_answer(slow, tmp_path):
    rows = write_set(tmp_path / "set", ct=6, dx=0, mr=0)
    chosen = Settings(tmp_path / "set", tmp_path / "out", experts=("SLOW",))
    summary = make(chosen)
    assert [text for _, _, text in summary.failures] == [
        "error: missing: t1, t2"
    ] and "images.jsonl:4" in summary.failures[0][0]
    failed = [
        record
        for record in records(tmp_path / "out")
        if record["id"].startswith("000004") and record["meta"]["form"] == "fails"
    ]
    assert failed and text_of(failed[0]["messages"][2]).startswith("error: missing: t1, t2\n")
    assert "SLOW" in failed[0]["meta"]["answers"][0]
    # no declaration: the topic comes from the result, and without a label the result is the answer
    called = [record for record in records(tmp_path / "out") if record["meta"]["form"] == "expert"]
    assert called and {(r["meta"]["kind"], r["meta"]["answers"][0]) for r in called} == {("thing", "yes")}
    assert "warning" not in "\n".join(summary.lines()) or len(rows) > 5


def test_a_crash_is_named_and_tried_again_next_time(slow, monkeypatch, tmp_path):
    write_set(tmp_path / "set", ct=2, dx=0, mr=0)
    chosen = Settings(tmp_path / "set", tmp_path / "out", experts=("SLOW",))
    monkeypatch.setattr(slow, "run", lambda self, path, arguments: 1 / 0)
    assert [text for *_, text in make(chosen).failures] == ["error: SLOW failed: ZeroDivisionError"] * 2
    monkeypatch.setattr(slow, "run", lambda self, path, arguments: ExpertResult("fine"))
    assert make(chosen).failures == []


def test_images_that_cannot_be_read_are_counted_and_named(tmp_path):
    rows = write_set(tmp_path / "set", ct=3, dx=0, mr=0)
    file = tmp_path / "set" / rows[1]["image"]
    file.write_bytes(file.read_bytes()[:1500])
    summary = make(Settings(tmp_path / "set", tmp_path / "out", experts=("LESIONS",)))
    ((where, why),) = summary.problems
    assert where.endswith("images.jsonl:2") and why
    assert not any(record["id"].startswith("000002") for record in records(tmp_path / "out"))
    write_rows(tmp_path / "set", rows[1:2])
    with pytest.raises(RadioVLMError, match="no image could be read; the first: .*jsonl:1"):
        make(Settings(tmp_path / "set", tmp_path / "none", experts=("LESIONS",)))


def test_what_cannot_be_shown_is_no_test_question_either(tmp_path):
    """A copy of a file, cut off or empty, would be made without a word."""
    rows = write_set(tmp_path / "set", ct=2, dx=0, mr=0, split="test")
    file = tmp_path / "set" / rows[1]["image"]
    file.write_bytes(file.read_bytes()[:-500])
    (tmp_path / "set" / "none").mkdir()
    write_rows(tmp_path / "set", [*rows, {"volume": "none", "patient": "P", "modality": "CT", "split": "test"}])
    summary = make(Settings(tmp_path / "set", tmp_path / "out", experts=("LESIONS",), split="test"))
    assert [where.rpartition(":")[2] for where, _ in summary.problems] == ["2", "3"]


def test_one_image_that_breaks_its_reader_ends_no_run(tmp_path, monkeypatch):
    """Whatever a reader raises, its words quote files and headers: only the kind of error is told."""
    from training.data.expert_dialogues import make as module

    write_set(tmp_path / "set", ct=3, dx=0, mr=0)
    real = module.image_items

    def image_items(image, *rest):
        if image.number == 2:
            raise ValueError(f"{image.path} of Zebrowski")
        return real(image, *rest)

    monkeypatch.setattr(module, "image_items", image_items)
    ((where, why),) = make(Settings(tmp_path / "set", tmp_path / "out", experts=("LESIONS",))).problems
    assert where.endswith("images.jsonl:2") and why.startswith("cannot be read (ValueError in ")
    assert "Zebrowski" not in why and str(tmp_path) not in why


def test_the_lists_own_word_for_the_patient_leaves_in_no_text(tmp_path):
    from PIL import Image

    (tmp_path / "a set").mkdir()
    Image.new("L", (64, 64)).save(tmp_path / "a set" / "Żebrowski 1.png")
    row = {"image": "Żebrowski 1.png", "patient": "Żebrowski", "modality": "CT", "report": "Żebrowski: no lesions."}
    row["qa"] = [{"question": "Is Żebrowski well?", "answer": "yes", "kind": "Żebrowski"}]
    write_rows(tmp_path / "a set", [row | {"split": "train"}])
    make(Settings(tmp_path / "a set", tmp_path / "out", experts=("LESIONS",)))
    assert records(tmp_path / "out") and "[removed]: no lesions." in str(records(tmp_path / "out"))
    for name, content in tree(tmp_path / "out").items():
        assert "Żebrowski".encode() not in content and "Żebrowski" not in name


def test_a_label_with_a_slip_in_its_name_is_said(tmp_path):
    rows = write_set(tmp_path / "set", ct=2, dx=0, mr=0)
    write_rows(tmp_path / "set", [row | {"labels": {"nunber": 1, "side": "left"}} for row in rows])
    said = "\n".join(make(Settings(tmp_path / "set", tmp_path / "out", experts=("LESIONS",))).lines())
    assert "warning: the label 'nunber' (2 images) is asked about by no expert here; their topics: number" in said
    assert "'side'" not in said


def test_an_expert_that_no_question_wants_is_named(tmp_path):
    rows = write_set(tmp_path / "set", ct=2, dx=0, mr=0, split="test")
    write_rows(tmp_path / "set", [{k: v for k, v in row.items() if k != "labels"} for row in rows])
    made = make(Settings(tmp_path / "set", tmp_path / "out", experts=("LESIONS",), split="test"))
    assert "warning: no question wants LESIONS" in "\n".join(made.lines())
    write_rows(tmp_path / "set", rows)
    made = make(Settings(tmp_path / "set", tmp_path / "again", experts=("LESIONS",), split="test"))
    assert "no question wants" not in "\n".join(made.lines())


def test_code_that_an_expert_uses_makes_it_another_one():
    from training.data.expert_dialogues.expert_runs import code_of

    used = {file.name for file in code_of("vlm.experts.ct_lesions")}
    assert {"ct_lesions.py", "ct_lungs.py", "topics.py"} <= used and "vista3d.py" not in used


def test_volumes_are_slices_for_training_and_files_for_evaluation(tmp_path):
    from tests.helpers.ct_series import write_series

    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write_series(tmp_path / split / "series", [0, 5, 10])
        write_rows(
            tmp_path / split,
            [{"volume": "series", "patient": "P", "qa": [{"question": "Table?", "answer": "no"}], "split": split}],
        )
        make(Settings(tmp_path / split, tmp_path / f"out-{split}", experts=("LESIONS",), split=split))
    (plain,) = [record for record in records_of(tmp_path / "out-train" / "vqa")]
    kinds = [item["type"] for item in plain["messages"][0]["content"]]
    assert kinds.count("image") == 3 and "CT volume of 3 axial slices" in text_of(plain["messages"][0])
    (asked,) = records_of(tmp_path / "out-test")
    (item, _) = asked["messages"][0]["content"]
    assert item["type"] == "volume" and len(list((tmp_path / "out-test" / item["volume"]).iterdir())) == 3


def test_sequences_in_one_folder_are_shown_each_behind_its_name(tmp_path, monkeypatch):
    class Four(Slow):
        card = ExpertCard("SLOW", "MR", "brain", "tumor")

        def run(self, path, arguments):
            if not any("t2" in file.name for file in path.iterdir()):
                raise ExpertError("missing: t2")
            one = {"name": "whole tumor", "ml": 3.0, "parts": 1, "side": "left"}
            return ExpertResult("whole tumor: 3.0 ml, 1 part, left", None, {"regions": [one]})

    monkeypatch.setitem(experts._EXPERTS, "SLOW", Four)
    rows = []
    for number, words in enumerate((("t1", "t2"), ("t1",))):
        for word in words:
            write_nifti(tmp_path / "set" / f"case{number}" / f"Zebrowski_{word}.nii.gz", body(seed=len(word)))
        rows.append({"volume": f"case{number}", "patient": f"P{number}", "modality": "MR", "split": "train"})
    write_rows(tmp_path / "set", rows)
    make(Settings(tmp_path / "set", tmp_path / "out", experts=("SLOW",), shares=OFTEN))
    (called, *_) = records_of(tmp_path / "out" / "expert-SLOW")
    text = text_of(called["messages"][0])
    assert "t1: MRI volume" in text and "t2: MRI volume" in text and "Zebrowski" not in text
    failed = [r for r in records(tmp_path / "out") if r["meta"]["form"] == "fails"]
    assert failed and text_of(failed[-1]["messages"][2]).startswith("error: missing: t2\n")
    write_rows(tmp_path / "set", [row | {"split": "test", "labels": {"whole tumor": True}} for row in rows])
    make(Settings(tmp_path / "set", tmp_path / "test", experts=("SLOW",), split="test"))
    (item, *_) = [i for i in records_of(tmp_path / "test")[0]["messages"][0]["content"] if i["type"] == "image"]
    assert sorted(file.name for file in (tmp_path / "test" / item["source"]).iterdir()) == [
        "00000_t1.nii.gz", "00001_t2.nii.gz",
    ]  # fmt: skip


def test_what_cannot_be_made_is_said(labelled, tmp_path):
    for changes, words in (
        ({"experts": ("NOBODY",)}, "--experts: unknown expert NOBODY; known: BRATS"),
        ({"experts": ("CXR",)}, "--experts: CXR cannot be used here"),
        ({"split": "val"}, "no image is of the split val"),
        ({"mixture": {"expert-CXR": {"repeats": 1}}}, "unknown part 'expert-CXR'; parts are: expert-FINDINGS"),
    ):
        with pytest.raises(RadioVLMError, match=words):
            make(settings(labelled, tmp_path / "out", **changes))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(RadioVLMError, match="is not empty and was not made by this command"):
        make(settings(labelled, tmp_path / "mine"))
    write_set(tmp_path / "mr", ct=0, dx=0, mr=1)
    plant(tmp_path / "mr/zebrowski/mr0.dcm", BodyPartExamined="HEAD")
    with pytest.raises(RadioVLMError, match="no expert can be used on these images: BRATS: "):
        make(Settings(tmp_path / "mr", tmp_path / "out"))
