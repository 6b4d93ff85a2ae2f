"""Experts beside the session: a call that never returns ends, in a thread as in a process; nothing is left over."""

import os
import threading
import time

import pytest

from tests.helpers.odd_experts import Odd, ask, asked, write_image
from vlm.experts import ExpertError, ExpertSession, protocol
from vlm.experts.process_worker import ProcessWorker
from vlm.experts.worker import ExpertTimeoutError, ThreadWorker


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "slice.dcm")


@pytest.fixture
def registered(monkeypatch):
    """`ODD` in the registry, as an expert in its own file would be; counts of constructions from zero."""
    monkeypatch.setitem(protocol._EXPERTS, "ODD", Odd)
    monkeypatch.setattr(Odd, "built", [])
    monkeypatch.setattr(Odd, "ended", [])


def expert_threads():
    return [thread for thread in threading.enumerate() if thread.name == "expert ODD" and thread.is_alive()]


def test_an_expert_is_built_at_its_first_call_and_kept(registered, image):
    with ExpertSession(call_seconds=5) as session:
        ask(session, asked(image), "no call")
        ask(session, asked(image), "<ODD(spleen)>")
        assert Odd.built == [], "offered, and called wrongly: not built"
        for _ in range(3):
            assert ask(session, asked(image), "<ODD(fine)>").calls[0].ok
        assert len(Odd.built) == 1 and list(session._workers) == ["ODD"], "no other expert was built"
        assert len(expert_threads()) == 1
    assert expert_threads() == [], "closing ends the thread"
    assert ask(session, asked(image), "<ODD(fine)>").calls[0].ok and len(Odd.built) == 2
    session.close()


def test_python_code_that_loops_is_stopped_in_its_thread(registered, image):
    with ExpertSession(["ODD"], call_seconds=0.2) as session:
        start = time.perf_counter()
        transcript = ask(session, asked(image), "<ODD(spin)>", "<ODD(fine)>")
        assert time.perf_counter() - start < 2
        assert [call.text for call in transcript.calls] == ["error: ODD did not answer within 0.2 s", "all fine"]
        assert Odd.ended == ["spin"], "the loop was ended, not left to run"
        assert 0.2 <= transcript.calls[0].expert_seconds < 1
    assert expert_threads() == []


def test_what_cannot_be_stopped_is_left_behind_and_said(registered, image):
    with ExpertSession(["ODD"], call_seconds=0.2, max_calls=3) as session:
        start = time.perf_counter()
        transcript = ask(session, asked(image), "<ODD(stubborn)>", "<ODD(fine)>")
        assert time.perf_counter() - start < 1.4
        assert transcript.calls[1].text == "error: ODD is still busy with an earlier call"
        for thread in expert_threads():
            assert thread.daemon, "nobody waits for it at exit"
            thread.join(4)
        assert ask(session, asked(image), "<ODD(fine)>").calls[0].ok, "free again once it ended"


def test_loading_is_not_counted_but_is_limited(monkeypatch, image):
    worker = ThreadWorker("ODD", lambda: Odd(0.4))
    assert worker.call(image, ("fine",), 0.2).text == "all fine" and worker.run_seconds < 0.2
    worker.close()
    monkeypatch.setattr("vlm.experts.worker.LOAD_SECONDS", 0.1)
    with pytest.raises(ExpertTimeoutError, match="did not answer within 0.1 s"):
        ThreadWorker("ODD", lambda: Odd(1)).call(image, ("fine",), 0.05)


def test_a_process_is_killed_whatever_it_does(image):
    """A sleep inside one C call, which no thread could leave, and what it raises and returns before."""
    worker = ProcessWorker("ODD", Odd)
    assert worker.call(image, ("mask",), 30).mask.sum() == 25 + 2 * 40
    process = worker._process
    with pytest.raises(ExpertError, match="no good"):
        worker.call(image, ("refuse",), 30)
    with pytest.raises(RuntimeError) as raised:
        worker.call(image, ("exit",), 30)
    assert raised.value.args[0] == "SystemExit" and worker._process is process, "one process serves all calls"
    start = time.perf_counter()
    with pytest.raises(ExpertTimeoutError):
        worker.call(image, ("sleep",), 0.3)
    assert time.perf_counter() - start < 1.5
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)  # neither running nor a zombie
    worker.close()


def test_a_session_with_processes(registered, image):
    with ExpertSession(["ODD"], isolation="process", call_seconds=30) as session:
        transcript = ask(session, asked(image), "<ODD(raise)>", "<ODD(mask)>")
        assert [call.text for call in transcript.calls] == ["error: ODD failed: RuntimeError", "two regions"]
        assert Odd.built == [], "nothing is built on this side"
        process = session._workers["ODD"]._process
    assert process.returncode is not None


def test_what_no_other_process_can_have_is_said(image):
    class Local(Odd):
        pass

    session = ExpertSession(["ODD"], instances={"ODD": Local()}, isolation="process")
    assert "cannot run in a process of its own" in ask(session, asked(image), "<ODD(fine)>").calls[0].text
