"""Suite-wide rules: one torch thread per worker, offline, and no skip that nobody planned."""

import logging
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

PLANNED_SKIPS = ("shared data absent", "needs a GPU", "optional package absent")
_unplanned: list[str] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    """Entry points that run inside a test set levels and stop propagation; the next test must not notice."""
    before = {logger: (logger.level, logger.propagate, logger.handlers[:]) for logger in _loggers()}
    yield
    for logger in _loggers():
        level, logger.propagate, logger.handlers[:] = before.get(logger, (logging.NOTSET, True, []))
        logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    return [logging.getLogger(), *(x for x in logging.root.manager.loggerDict.values() if hasattr(x, "level"))]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(PLANNED_SKIPS):
            _unplanned.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unplanned and session.exitstatus == 0 and not hasattr(session.config, "workerinput"):
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = len(terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"skips: {skipped} ({len(_unplanned)} unplanned)")
    for line in _unplanned:
        terminalreporter.write_line(f"  unplanned skip: {line}")
