"""One connection for all callers, with a real server: each gets its own answer, also when the server restarts."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from llm_service.store.redis_pipe import Pipe
from tests.support.valkey import Valkey
from tests.support.wait import wait_until


@pytest.fixture
def server() -> Iterator[Valkey]:
    own = Valkey().start()
    yield own
    own.remove()


@pytest.fixture
def pipe(server: Valkey) -> Iterator[Pipe]:
    pool = ConnectionPool.from_url(
        server.url, socket_timeout=0.3, socket_connect_timeout=0.3, retry=Retry(NoBackoff(), 0)
    )
    yield Pipe(pool)
    pool.disconnect()


def test_each_of_many_callers_at_once_gets_its_own_answer(pipe: Pipe) -> None:
    def ask(number: int) -> list[bytes]:
        return [pipe.ask("ECHO", f"{number}.{turn}") for turn in range(50)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    assert answers == [[f"{number}.{turn}".encode() for turn in range(50)] for number in range(16)]


def test_all_callers_share_one_connection_and_waiting_callers_share_one_round_trip(pipe: Pipe, server: Valkey) -> None:
    pipe.ask("PING")
    before = connections_made(server)
    slow = threading.Thread(target=pipe.ask, args=("BLPOP", "nothing", "0.15"))
    slow.start()
    time.sleep(0.05)
    with ThreadPoolExecutor(20) as pool:
        started = time.monotonic()
        assert list(pool.map(lambda _: pipe.ask("PING"), range(20))) == [b"PONG"] * 20
        assert time.monotonic() - started < 0.3
    slow.join()
    assert connections_made(server) == before + 1  # the connection of the command that counts them


def connections_made(server: Valkey) -> int:
    lines = server.command("INFO", "stats").split(b"\r\n")
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"total_connections_received:"))


def test_an_error_reaches_its_own_caller_only(pipe: Pipe) -> None:
    pipe.ask("SET", "text", "no number")

    def ask(number: int) -> object:
        try:
            return pipe.ask("INCR", "text" if number % 3 == 0 else f"n{number}")
        except ResponseError as error:
            return type(error)

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == [ResponseError if number % 3 == 0 else 1 for number in range(12)]
    with pytest.raises(NoScriptError):
        pipe.ask("EVALSHA", "0" * 40, 0)


def test_a_restarted_server_is_used_again(pipe: Pipe, server: Valkey) -> None:
    assert pipe.ask("PING") == b"PONG"
    server.stop()
    with pytest.raises(RedisError):
        pipe.ask("PING")
    server.start()
    assert pipe.ask("PING") == b"PONG"


def test_a_connection_that_the_server_closed_while_idle_causes_no_error(pipe: Pipe, server: Valkey) -> None:
    assert pipe.ask("PING") == b"PONG"
    server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert pipe.ask("PING") == b"PONG"


def test_a_server_that_hangs_costs_all_waiting_callers_one_time_out_and_no_late_answer_is_used(
    pipe: Pipe, server: Valkey
) -> None:
    assert pipe.ask("ECHO", "first") == b"first"
    server.freeze()
    try:
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            failures = list(pool.map(lambda number: failure_of(pipe, f"late{number}"), range(8)))
        assert all(isinstance(failure, RedisError) for failure in failures)
        assert time.monotonic() - started < 1.5
    finally:
        server.thaw()
    wait_until(server.answers, 5, "the server answers again")
    assert pipe.ask("ECHO", "last") == b"last"


def test_callers_that_come_while_a_server_hangs_do_not_wait_for_a_second_time_out(pipe: Pipe, server: Valkey) -> None:
    pipe.ask("PING")
    server.freeze()
    try:
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(failure_of, pipe, "first")
            time.sleep(0.1)  # the first caller now waits for the server
            began = time.monotonic()
            others = list(pool.map(lambda number: failure_of(pipe, f"later{number}"), range(8)))
            waited = time.monotonic() - began
        assert all(isinstance(failure, RedisError) for failure in (first.result(), *others))
        assert waited < 0.3, "they must wait only for the rest of its time-out"
    finally:
        server.thaw()


def test_arguments_of_every_type_are_sent_as_the_client_would_send_them(pipe: Pipe) -> None:
    words = ["", "text", "ä€", b"\x00\r\n$1", b"", 0, -7, 2**63, 0.1, 1e300, 1 / 3]
    packed = pipe.ask("EVAL", "return ARGV", 0, *words)
    assert packed == [word if isinstance(word, bytes) else str(word).encode() for word in words]


def test_a_forked_process_has_a_connection_of_its_own(pipe: Pipe, server: Valkey) -> None:
    own = pipe.ask("CLIENT", "ID")
    near, far = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=lambda: far.send(pipe.ask("CLIENT", "ID")))
    child.start()
    assert near.poll(10)
    assert near.recv() != own
    child.join(10)
    assert pipe.ask("CLIENT", "ID") == own


def failure_of(pipe: Pipe, word: str) -> Exception | None:
    try:
        pipe.ask("ECHO", word)
    except RedisError as error:
        return error
    return None
