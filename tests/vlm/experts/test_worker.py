"""Experts beside the session: a call that never returns ends, in a thread as in a process; nothing is left over."""

import os
import subprocess
import sys
import threading
import time

import pytest

from tests.helpers.odd_experts import Odd, ask, asked, write_image
from vlm.experts import ExpertSession, protocol
from vlm.experts.process_worker import ProcessWorker, kill
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


def test_a_process_is_killed_whatever_it_does(registered, image):
    """A sleep inside one C call, which no thread could leave, and what is raised and returned before."""
    with ExpertSession(["ODD"], isolation="process", call_seconds=30, max_calls=5) as session:
        transcript = ask(session, asked(image), "<ODD(raise)>", "<ODD(mask)>", "<ODD(refuse)>", "<ODD(exit)>")
        assert [call.text for call in transcript.calls] == [
            "error: ODD failed: RuntimeError",
            "two regions",
            "error: no good: [removed] of [removed]",
            "error: ODD failed: SystemExit",
        ]
        assert transcript.calls[1].result.mask.sum() == 25 + 2 * 40
        assert Odd.built == [], "nothing is built on this side"
        process = session._workers["ODD"]._process
        assert process.poll() is None, "one process serves all calls"
        session.call_seconds = 0.3
        start = time.perf_counter()
        call = ask(session, asked(image), "<ODD(sleep)>").calls[0]
        assert call.text == "error: ODD did not answer within 0.3 s" and time.perf_counter() - start < 1.5
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)  # neither running nor a zombie


def test_a_process_that_is_still_there_ends_with_the_session():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], **pipes)
    worker = ProcessWorker("ODD", Odd)
    worker._process, worker._finalizer = process, lambda: kill(process)
    worker.close()
    assert process.returncode is not None and worker._process is None
    worker.close()


def test_what_no_other_process_can_have_is_said(image):
    class Local(Odd):
        pass

    session = ExpertSession(["ODD"], instances={"ODD": Local()}, isolation="process")
    assert "cannot run in a process of its own" in ask(session, asked(image), "<ODD(fine)>").calls[0].text
