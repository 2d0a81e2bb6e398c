"""A lock that is handed on in the order of asking, to everybody who asked and to one at a time."""

from __future__ import annotations

import signal
import threading

import pytest

from edge_sdk.fairlock import FairLock

pytestmark = pytest.mark.device

LIMIT_S = 60.0


def waiting(lock: FairLock, count: int) -> None:
    """Return once so many wait."""
    pause = threading.Event()
    while len(lock._waiting) < count:
        pause.wait(0.0005)


def test_those_who_wait_are_served_in_the_order_they_came() -> None:
    lock, served = FairLock(), []

    def work(number: int) -> None:
        with lock:
            served.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    with lock:
        for number, thread in enumerate(threads, start=1):
            thread.start()
            waiting(lock, number)
    for thread in threads:
        thread.join(LIMIT_S)
    assert served == list(range(6))


def test_whoever_holds_it_knows_how_long_it_waited_and_who_did_not_wait_says_none() -> None:
    lock, waited_s, pause = FairLock(), [], threading.Event()

    def work() -> None:
        with lock:
            waited_s.append(lock.waited_s)

    thread = threading.Thread(target=work)
    with lock:
        thread.start()
        waiting(lock, 1)
        pause.wait(0.02)
    thread.join(LIMIT_S)
    assert waited_s[0] >= 0.02
    work()
    assert waited_s[1] == 0.0


def test_one_at_a_time_holds_it_and_nobody_is_forgotten() -> None:
    lock, total, inside = FairLock(), [0], [0]
    most: list[int] = []

    def work() -> None:
        for _ in range(500):
            with lock:
                inside[0] += 1
                most.append(inside[0])
                total[0] += 1
                inside[0] -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert total[0] == 2000
    assert max(most) == 1


class Interrupted(BaseException):
    """As Ctrl-C raises it, in the midst of a wait."""


def test_an_interrupted_wait_neither_keeps_its_place_nor_swallows_its_turn() -> None:
    lock, served = FairLock(), []

    def interrupt(*_: object) -> None:
        raise Interrupted

    def send() -> None:
        waiting(lock, 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def work() -> None:
        with lock:
            served.append("after")

    before = signal.signal(signal.SIGUSR1, interrupt)
    sending, working = threading.Thread(target=send), threading.Thread(target=work)
    try:
        with lock:
            sending.start()
            with pytest.raises(Interrupted):
                lock.__enter__()
            assert not lock._waiting
            working.start()
            waiting(lock, 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    for each in (sending, working):
        each.join(LIMIT_S)
    assert served == ["after"]
    with lock:
        pass
