"""Weighed answers: the probability that the model itself gives to the tokens of the last answer."""

import json

import pytest
import torch

from eval.backends.radio import RadioBackend
from eval.data import read_dataset
from eval.evaluate import evaluate
from eval.jobs import job_for_likelihood
from eval.journal import remove_journal
from eval.results import write_json
from eval.tasks.base import Options
from eval.tasks.likelihood import answered
from tests.helpers.data_folders import record, write_image, write_records
from tests.helpers.stage_runs import small_vlm


@pytest.fixture(scope="module")
def parts():
    model, processor = small_vlm()
    return model.eval(), processor


def by_hand(model, processor, messages) -> float:
    """Mean log-probability of the answer's tokens, from the logits of the whole conversation."""
    whole = processor.encode(messages)
    start = len(processor.encode(messages[:-1], add_generation_prompt=True)["input_ids"])
    labels = whole.pop("labels")
    with torch.no_grad():
        logits = model(**processor.collate([whole])).logits[0]
    chosen = [place for place in range(start, len(labels)) if labels[place] != -100]
    logs = torch.log_softmax(logits.float(), -1)
    return float(torch.stack([logs[place - 1, labels[place]] for place in chosen]).mean())


def test_the_probability_is_that_of_the_last_answers_tokens(parts, tmp_path):
    write_image(tmp_path / "data/images/a.png", size=(64, 48))
    first, second = record("x", "one?", "first", images=("images/a.png",)), record("x", "two?", "the second")
    turns = first["messages"] + second["messages"]
    write_records(tmp_path / "data", [{"id": "x", "messages": turns}])
    messages = read_dataset(tmp_path / "data").samples[0].messages
    probability, tokens = RadioBackend(*parts).answer_probability(messages)
    assert probability == pytest.approx(torch.tensor(by_hand(*parts, messages)).exp().item(), rel=1e-4)
    assert 0 < probability < 1 and tokens >= len("the second")  # a byte a token, and the end of the turn


def test_records_of_questions_and_broken_ones(parts, tmp_path):
    rows = [
        {"id": "q", "question": "What?", "answers": ["yes", "no"]},
        record("gone", images=("images/none.png",)),
        record("good"),
    ]
    write_records(tmp_path / "text", rows)
    results = evaluate(RadioBackend(*parts), [job_for_likelihood(tmp_path / "text")], Options(), progress=False)
    figures = results["tasks"]["text-likelihood"]
    assert (figures["n"], figures["failed"]) == (3, 1)
    scores = {row["id"]: row["score"] for row in results["samples"]}
    hashes = {row["id"]: row["input_hash"] for row in results["samples"]}
    assert hashes["gone"] == "" and len(hashes["q"]) == 64 and hashes["q"] != hashes["good"]
    assert scores["gone"] == 0.0 and 0 < scores["q"] < 1
    assert figures["answer_probability"] == pytest.approx(sum(scores.values()) / 3, abs=1e-4)
    asked = next(sample for sample in read_dataset(tmp_path / "text").samples if sample.id == "q")
    assert answered(asked)[-1] == {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}
    json.dumps(results)


@pytest.mark.parametrize("finished", [False, True])
def test_answers_are_not_weighed_twice(parts, tmp_path, finished, monkeypatch):
    write_records(tmp_path / "text", [record("a"), record("b", "two?", "second")])
    backend, out = RadioBackend(*parts), tmp_path / "r.json"
    first = evaluate(backend, [job_for_likelihood(tmp_path / "text")], Options(), progress=False, out=out)
    if finished:
        write_json(first, out)
        remove_journal(out)
    monkeypatch.setattr(backend, "answer_probability", lambda messages: pytest.fail("weighed again"))
    again = evaluate(
        backend, [job_for_likelihood(tmp_path / "text")], Options(), progress=False, out=out, resume=True
    )
    assert [row["score"] for row in again["samples"]] == [row["score"] for row in first["samples"]]
    assert [row["answer_tokens"] for row in again["samples"]] == [row["answer_tokens"] for row in first["samples"]]
