"""The loop of a process starts when it is needed, survives forks and defects, and ends in time."""

from __future__ import annotations

import os
import threading
import time

import pytest

from llm_service.core.background import Background, Loop
from tests.support.captured_logs import captured_logs
from tests.support.wait import wait_until


class Counting(Loop):
    """Counts its rounds. ``script`` says what the next rounds do: an exception is raised."""

    def __init__(self, before: Counting | None) -> None:
        super().__init__()
        self.before = before
        self.rounds = self.closed = 0
        self.script: list[BaseException] = []
        self.left = 0

    def has_work(self) -> bool:
        return self.left > 0

    def round(self) -> None:
        self.rounds += 1
        self.left = max(0, self.left - 1)
        if self.script:
            raise self.script.pop()
        if not self.stopping.is_set():
            self.wait(None)

    def close(self) -> None:
        self.closed += 1


def running(background: Background[Counting]) -> Counting:
    loop = background.running()
    assert loop is not None
    return loop


def test_the_loop_starts_when_it_is_first_needed_and_only_once() -> None:
    background = Background(Counting)
    assert background.own() is None
    loop = running(background)
    assert running(background) is loop is background.own()
    background.stop(5)
    assert (loop.dead, loop.closed) == (True, 1)


def test_a_wake_up_starts_the_next_round() -> None:
    background = Background(Counting)
    loop = running(background)
    wait_until(lambda: loop.rounds == 1, 5)
    loop.wake()
    wait_until(lambda: loop.rounds == 2, 5)
    background.stop(5)


def test_a_round_that_fails_is_reported_once_and_the_next_round_goes_on() -> None:
    with captured_logs() as lines:
        background = Background(Counting)
        loop = running(background)
        wait_until(lambda: loop.rounds == 1, 5)
        loop.script = [KeyError("MARKER"), KeyError("MARKER"), OSError("MARKER")]
        loop.wake()
        wait_until(lambda: loop.rounds == 5, 5)
        background.stop(5)
    assert [line["message"] for line in lines] == [
        f"background: a step failed and is repeated ({name})" for name in ("OSError", "KeyError")
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_another_loop_takes_over_from_one_that_died() -> None:
    background = Background(Counting)
    loop = running(background)
    wait_until(lambda: loop.rounds == 1, 5)
    loop.script = [SystemExit()]
    loop.wake()
    wait_until(lambda: loop.dead, 5)
    following = running(background)
    assert following is not loop and following.before is loop
    background.stop(5)


def test_the_end_waits_for_the_work_that_is_left() -> None:
    background = Background(Counting)
    loop = running(background)
    wait_until(lambda: loop.rounds == 1, 5)
    loop.left = 100
    background.stop(5)
    assert (loop.left, loop.rounds) == (0, 101)


def test_the_end_does_not_wait_beyond_its_deadline() -> None:
    class Endless(Counting):
        def round(self) -> None:
            self.left = 1
            time.sleep(0.01)

    background = Background(Endless)
    loop = background.running()
    assert loop is not None
    began = time.monotonic()
    background.stop(0.2)
    assert time.monotonic() - began < 2
    wait_until(lambda: loop.dead, 5)


def test_after_the_end_no_loop_starts() -> None:
    background = Background(Counting)
    background.stop(1)
    threads = threading.active_count()
    assert background.running() is None
    assert threading.active_count() == threads


def test_a_forked_process_starts_a_loop_of_its_own() -> None:
    background = Background(Counting)
    loop = running(background)
    pid = os.fork()
    if pid == 0:
        ok = background.own() is None and running(background) is not loop
        background.stop(5)
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert running(background) is loop
    background.stop(5)
