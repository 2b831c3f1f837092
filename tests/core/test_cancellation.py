"""``Cancel`` ends a call from outside, wherever the call waits."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from llm_service.core.cancellation import Cancel
from llm_service.core.errors import ClientClosed, Stopping


def test_setting_it_ends_a_blocked_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cancel = Cancel()
        cancel.attach(ours.fileno())
        threading.Timer(0.05, cancel.set, [ClientClosed("gone")]).start()
        ours.settimeout(5)
        assert ours.recv(1) == b""
        with pytest.raises(ClientClosed):
            cancel.check()


def test_a_wait_ends_with_its_event_its_time_out_or_the_call() -> None:
    cancel, event = Cancel(), threading.Event()
    assert cancel.wait(event, 0.01) is False
    event.set()
    assert cancel.wait(event, 5) is True
    started = time.monotonic()
    threading.Timer(0.05, cancel.set, [ClientClosed("gone")]).start()
    with pytest.raises(ClientClosed):
        cancel.wait(threading.Event(), 30)
    assert time.monotonic() - started < 10
    with pytest.raises(ClientClosed):  # at once, because the call has ended already
        cancel.wait(threading.Event(), 30)


def test_a_socket_attached_after_the_end_is_shut_down_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cancel = Cancel()
        cancel.set(ClientClosed("gone"))
        cancel.attach(ours.fileno())
        assert ours.recv(1) == b""


def test_a_detached_socket_is_not_shut_down() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        cancel = Cancel()
        cancel.attach(ours.fileno())
        cancel.detach()
        cancel.set(ClientClosed("gone"))
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"


def test_setting_it_ends_a_sleep() -> None:
    cancel = Cancel()
    threading.Timer(0.05, cancel.set, [Stopping("draining")]).start()
    started = time.monotonic()
    with pytest.raises(Stopping):
        cancel.sleep(30)
    assert time.monotonic() - started < 5


def test_the_first_reason_is_kept() -> None:
    cancel = Cancel()
    cancel.set(ClientClosed("gone"))
    cancel.set(Stopping("draining"))
    with pytest.raises(ClientClosed):
        cancel.check()
