"""One call fetches a new token when the old one expires. An error about fetching contains no secret."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from llm_service.core.errors import UpstreamFailed, UpstreamKeyRefused
from llm_service.core.target import Provider
from llm_service.providers.http.credentials import CommandKey, ExpiringToken, FileKey
from tests.support.wait import wait_until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_used_until_the_margin_before_its_end() -> None:
    clock, tokens = Clock(), iter([("a", 10.0), ("b", 10.0)])
    token = ExpiringToken(lambda: next(tokens), margin=3.0, clock=clock)
    assert token() == "a"
    clock.now += 6.9
    assert token() == "a"
    clock.now += 0.1
    assert token() == "b"


def test_callers_at_the_same_time_share_one_fetch() -> None:
    count, names = 0, []

    def fetch() -> tuple[str, float]:
        nonlocal count
        count += 1
        time.sleep(0.1)
        return f"token-{count}", 60.0

    token = ExpiringToken(fetch)
    threads = [threading.Thread(target=lambda: names.append(token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (count, set(names)) == (1, {"token-1"})


def test_a_failed_fetch_is_an_upstream_failure_without_the_text_of_its_cause() -> None:
    def fetch() -> tuple[str, float]:
        raise RuntimeError("secret-of-the-operator")

    with pytest.raises(UpstreamFailed) as caught:
        ExpiringToken(fetch)()
    assert "secret-of-the-operator" not in str(caught.value)


def file_row(path: Path) -> Provider:
    return Provider("x", "openai", key_file=str(path))


def command_row(path: Path, seconds: float = 300) -> Provider:
    """A command that prints the file and counts its runs in another one."""
    script = f'echo run >> "{path}.runs"; cat "{path}"'
    return Provider("x", "openai", key_command=("/bin/sh", "-c", script), key_seconds=seconds)


def runs(path: Path) -> int:
    return len(Path(f"{path}.runs").read_text().splitlines())


def test_a_key_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    key = FileKey(file_row(path))
    assert key() == "one"
    path.write_text("another")
    assert key() == "another"
    replacement = tmp_path / "new"
    replacement.write_text("renamed")
    replacement.rename(path)
    assert key() == "renamed"


def test_a_key_file_that_is_away_or_empty_for_a_moment_leaves_the_old_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    key = FileKey(file_row(path))
    assert key() == "one"
    path.write_text("")
    assert key() == "one"
    path.unlink()
    assert key() == "one"
    path.write_text("two")
    assert key() == "two"


def test_without_any_key_a_call_fails_as_the_operator_s_fault(tmp_path: Path) -> None:
    with pytest.raises(UpstreamKeyRefused, match="provider x"):
        FileKey(file_row(tmp_path / "gone"))()


def test_a_refused_key_is_read_again_although_the_file_looks_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    key = FileKey(file_row(path))
    assert key() == "one"
    assert not key.renew("one")
    path.write_text("two")
    assert key.renew("one") and key() == "two"
    assert key.renew("one"), "another call renewed it already"


def test_a_command_runs_once_until_its_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("one")
    key = CommandKey(command_row(path))
    assert [key(), key()] == ["one", "one"]
    assert runs(path) == 1
    path.write_text("two")
    assert key() == "one"
    assert key.renew("one") and key() == "two"
    assert runs(path) == 2


def test_a_command_that_gives_the_refused_key_again_is_left_alone_for_a_while(tmp_path: Path) -> None:
    path, clock = tmp_path / "key", Clock()
    path.write_text("one")
    key = CommandKey(command_row(path), clock)
    key()
    assert not key.renew("one") and not key.renew("one")
    assert runs(path) == 2
    clock.now += 6
    path.write_text("two")
    assert key.renew("one")


def test_an_old_key_of_a_command_is_used_while_the_command_runs_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "key", Clock()
    path.write_text("one")
    key = CommandKey(command_row(path, seconds=10), clock)
    assert key() == "one"
    path.write_text("two")
    clock.now += 11
    assert key() == "one"
    wait_until(lambda: key() == "two", 10, "the new key")
    assert runs(path) == 2
