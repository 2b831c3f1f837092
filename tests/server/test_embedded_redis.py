"""The embedded server is found or started, is private, and ends with its owner."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from llm_service.server import embedded_redis
from llm_service.server.embedded_redis import Embedded, EmbeddedRedisError

ROOT = Path(__file__).parents[2]
# A process that owns a server until its input ends or it is killed.
OWNER = """
import sys
from pathlib import Path
from llm_service.server import embedded_redis
server = embedded_redis.ensure(Path(sys.argv[1]))
print(server.pid, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for lock in tmp_path.rglob("valkey.lock"):
        assert not embedded_redis.running(lock.parent), "a test left a server running"


@pytest.fixture
def server(instance: Path) -> Iterator[Embedded]:
    embedded = embedded_redis.ensure(instance)
    yield embedded
    embedded.stop()


def owner(instance: Path, patched: bool = False) -> subprocess.Popen[str]:
    code = "from gevent import monkey; monkey.patch_all()\n" + OWNER if patched else OWNER
    return subprocess.Popen(
        [sys.executable, "-c", code, str(instance)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def pid_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    return int(line) if line.isdigit() else 0


def ended(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def connect(embedded: Embedded) -> Redis:
    return Redis.from_url(embedded.url)


def test_it_answers_and_keeps_what_is_written(server: Embedded) -> None:
    with connect(server) as redis:
        redis.set("a", "b")
        assert redis.get("a") == b"b"


def test_it_listens_on_a_private_unix_socket_and_on_no_port(server: Embedded, instance: Path) -> None:
    with connect(server) as redis:
        assert redis.config_get("port")["port"] == "0"
    assert (instance / "valkey.sock").stat().st_mode & 0o777 == 0o700
    assert (instance / "valkey.log").stat().st_mode & 0o077 == 0


def test_its_data_survives_when_it_is_killed_and_nothing_is_evicted(server: Embedded, instance: Path) -> None:
    with connect(server) as redis:
        redis.set("a", "b")
        settings = redis.config_get("save", "appendonly", "maxmemory-policy")
    assert settings == {"save": "", "appendonly": "yes", "maxmemory-policy": "noeviction"}
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert within(5, lambda: not embedded_redis.answers(instance))
    again = embedded_redis.ensure(instance)
    try:
        with connect(again) as redis:
            assert redis.get("a") == b"b"
    finally:
        again.stop()
    for path in [instance / "redis", *(instance / "redis").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0


def test_the_second_process_finds_the_first_one_s_server_and_does_not_stop_it(server: Embedded, instance: Path) -> None:
    found = embedded_redis.ensure(instance)
    assert (found.url, found.pid) == (server.url, None)
    found.stop()
    assert embedded_redis.answers(instance)


def test_only_one_of_many_concurrent_processes_starts_the_server(instance: Path) -> None:
    owners = [owner(instance) for _ in range(6)]
    started = [pid for pid in map(pid_of, owners) if pid]
    assert len(started) == 1
    for process in owners:
        ended(process)
    assert not embedded_redis.answers(instance)


def test_stop_leaves_no_process_and_no_socket_and_may_be_called_twice(instance: Path) -> None:
    server = embedded_redis.ensure(instance)
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert not embedded_redis.alive(pid)
    assert not (instance / "valkey.sock").exists()


def test_it_ends_when_its_owner_is_killed(instance: Path) -> None:
    process = owner(instance)
    server = pid_of(process)
    process.kill()
    ended(process)
    assert server and within(2, lambda: not embedded_redis.running(instance))


def test_it_also_starts_in_a_process_patched_by_gevent_and_ends_with_it(instance: Path) -> None:
    for end in (lambda process: None, lambda process: process.kill()):
        process = owner(instance, patched=True)
        server = pid_of(process)
        assert server and embedded_redis.answers(instance)
        end(process)
        ended(process)
        assert within(2, lambda: not embedded_redis.running(instance))


def test_a_killed_server_is_replaced_although_its_socket_file_still_exists(instance: Path) -> None:
    first = embedded_redis.ensure(instance)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    assert within(2, lambda: not embedded_redis.running(instance))
    assert (instance / "valkey.sock").exists()
    second = embedded_redis.ensure(instance)
    assert second.pid not in (None, first.pid)
    first.stop()
    assert embedded_redis.answers(instance), "the first handle must not end the second server"
    second.stop()


def test_tend_starts_a_server_only_if_none_is_alive(server: Embedded, instance: Path) -> None:
    assert embedded_redis.tend(instance) is None
    server.stop()
    started = embedded_redis.tend(instance)
    assert started is not None and embedded_redis.answers(instance)
    started.stop()


def test_a_server_that_has_outlived_its_owner_is_ended_and_replaced(server: Embedded, instance: Path) -> None:
    """This is the case on a system without a parent-death signal: the record names an owner that has ended."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (instance / "valkey.lock").write_text(f"{server.pid} {gone.pid}\n")
    replaced = embedded_redis.ensure(instance)
    assert replaced.pid not in (None, server.pid)
    replaced.stop()
    server.stop()


def test_a_forked_child_does_not_end_its_parent_s_server(server: Embedded, instance: Path) -> None:
    child = os.fork()
    if child == 0:
        server.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert embedded_redis.answers(instance)


def test_if_the_path_is_too_long_for_a_socket_a_private_folder_elsewhere_is_used(instance: Path) -> None:
    deep = instance / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    server = embedded_redis.ensure(deep)
    with connect(server) as redis:
        assert redis.ping()
    socket_path = Path(server.url.removeprefix("unix://"))
    assert not socket_path.is_relative_to(deep)
    assert socket_path.parent.stat().st_mode & 0o777 == 0o700
    server.stop()
    socket_path.parent.rmdir()


def test_a_socket_folder_that_others_may_write_to_is_rejected(instance: Path) -> None:
    deep = instance / ("f" * 60) / ("g" * 60)
    deep.mkdir(parents=True)
    folder = Path(embedded_redis.url(deep).removeprefix("unix://")).parent
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    try:
        with pytest.raises(EmbeddedRedisError, match="not private"):
            embedded_redis.ensure(deep)
    finally:
        folder.rmdir()


def test_a_path_with_spaces_quotes_and_percent_signs_works(instance: Path) -> None:
    odd = instance / 'it\'s 100% "odd"'
    odd.mkdir()
    server = embedded_redis.ensure(odd)
    with connect(server) as redis:
        assert redis.ping()
    server.stop()


def test_the_error_about_a_missing_folder_names_the_alternative(instance: Path) -> None:
    with pytest.raises(EmbeddedRedisError, match="REDIS_URL"):
        embedded_redis.ensure(instance / "missing")


def test_a_server_whose_folder_was_removed_can_still_be_stopped(tmp_path: Path) -> None:
    instance = tmp_path / "removed"
    instance.mkdir()
    server = embedded_redis.ensure(instance)
    pid = server.pid
    assert pid is not None
    shutil.rmtree(instance)
    server.stop()
    assert not embedded_redis.alive(pid)


def test_the_server_does_not_get_our_environment(instance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-marker")
    server = embedded_redis.ensure(instance)
    if sys.platform == "linux":
        assert Path(f"/proc/{server.pid}/environ").read_bytes() == b""
    server.stop()
