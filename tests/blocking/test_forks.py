"""A client that a process has inherited by fork: the connection stays with the process that made it."""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from kvd import errors
from kvd.blocking import Client, Transaction
from kvd.errors import KvdError
from tests.support.daemon import LIMIT, Daemon, wait_for


def raw_fork() -> int:
    """A fork of which Python is not told, as that of a program in which it is embedded."""
    child: int = ctypes.PyDLL(None).fork()
    return child


FORKS = pytest.mark.parametrize("fork", [os.fork, raw_fork])


def in_child(fork: Callable[[], int], run: Callable[[], Any]) -> Any:
    """What a function returns in a child process, which ends then; an error of ours as its code and sentence."""
    reading, writing = os.pipe()
    child = fork()
    if not child:
        try:
            signal.alarm(int(LIMIT))
            with os.fdopen(writing, "w") as pipe:
                json.dump(outcome(run), pipe)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    try:
        assert select.select([reading], [], [], LIMIT)[0], "the child says nothing"
        with os.fdopen(reading) as pipe:
            return json.loads(pipe.read() or '"the child failed"')
    finally:
        os.waitpid(child, 0)


def outcome(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except KvdError as error:
        return [error.code, error.mesg]


@FORKS
def test_a_child_is_told_that_the_connection_is_not_its_own(
    client: Client, daemon: Daemon, fork: Callable[[], int]
) -> None:
    client.put("a", "1")
    asks: list[Callable[[], Any]] = [
        lambda: client.get("a"),
        lambda: client.put("a", "2"),
        lambda: client.send_command("PUT a 2"),
        lambda: client.put_many({"a": "2"}),
        lambda: client.start(),
        lambda: client.transact(lambda txn: txn.put("a", "2")),
        lambda: client.quit(),
    ]
    for ask in asks:
        code, mesg = in_child(fork, ask)
        assert code == "UNAVAILABLE"
        assert f"process {os.getpid()} made this connection" in mesg
        assert client.get("a") == "1"
    assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 1}'


@FORKS
def test_parent_and_children_get_their_own_replies_at_the_same_time(
    client: Client, daemon: Daemon, fork: Callable[[], int]
) -> None:
    def child(number: int) -> int:
        with suppress(errors.Unavailable):
            client.get("a")
        client.connect()
        for each in range(200):
            client.put(f"{number}", f"{each}")
            if client.get(f"{number}") != f"{each}":
                return each
        return -1

    pipes = []
    for number in range(3):
        reading, writing = os.pipe()
        pid = fork()
        if not pid:
            signal.alarm(int(LIMIT))
            os.write(writing, str(child(number)).encode())
            os._exit(0)
        os.close(writing)
        pipes.append((pid, reading))
    for each in range(200):
        client.put("parent", str(each))
        assert client.get("parent") == str(each)
    for pid, reading in pipes:
        assert os.read(reading, 100) == b"-1"
        os.close(reading)
        os.waitpid(pid, 0)


def leaves(client: Client, txn: Transaction, how: str) -> None:
    """What a child does in the block that it has inherited."""
    if how == "ends it":
        pass
    elif how == "uses it":
        txn.put("a", "child's")
    elif how == "raises":
        raise ZeroDivisionError
    elif how == "exits":
        sys.exit(3)
    elif how == "disconnects":
        client.disconnect()
    elif how == "connects":
        client.connect()
        client.put("c", "3")


@FORKS
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("ends it", "Unavailable"),
        ("uses it", "Unavailable"),
        ("raises", "ZeroDivisionError"),
        ("exits", "SystemExit"),
        ("disconnects", "Unavailable"),
        ("connects", "Unavailable"),
    ],
)
def test_a_child_that_leaves_an_inherited_transaction_does_not_touch_that_of_the_parent(
    client: Client, other: Client, fork: Callable[[], int], how: str, said: str
) -> None:
    reading, writing = os.pipe()
    child = -1
    try:
        with client.transaction() as txn:
            txn.put("a", "1")
            child = fork()
            if child == 0:
                signal.alarm(int(LIMIT))
                leaves(client, txn, how)
            else:
                os.waitpid(child, 0)
                txn.put("b", "2")
                assert other.mget("a", "b") == [None, None]
    except BaseException as error:
        if child == 0:
            os.write(writing, type(error).__name__.encode())
        else:
            raise
    finally:
        if child == 0:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == said
    assert other.mget("a", "b") == ["1", "2"]
    assert other.get("c") == ("3" if how == "connects" else None)


def test_a_child_that_exits_inside_of_an_inherited_transaction_does_not_touch_that_of_the_parent(
    client: Client, other: Client
) -> None:
    with client.transaction() as txn:
        txn.put("a", "1")
        process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(3,))
        process.start()
        process.join(LIMIT)
        assert process.exitcode == 3
        txn.put("b", "2")
        assert other.mget("a", "b") == [None, None]
    assert other.mget("a", "b") == ["1", "2"]


@FORKS
def test_a_client_that_is_collected_in_a_child_does_not_touch_the_connection_of_the_parent(
    daemon: Daemon, fork: Callable[[], int]
) -> None:
    clients = [Client("127.0.0.1", daemon.port, timeout=LIMIT)]
    clients[0].connect()
    clients[0].start()
    clients[0].put("a", "1")

    def collect() -> str:
        clients.clear()
        gc.collect()
        return "collected"

    assert in_child(fork, collect) == "collected"
    clients[0].commit()
    assert clients[0].get("a") == "1"
    clients[0].disconnect()


@FORKS
def test_a_client_that_was_shut_off_from_another_thread_at_the_fork_can_connect_in_the_child(
    client: Client, fork: Callable[[], int]
) -> None:
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with client.transaction():
            inside.set()
            done.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(LIMIT)

    def connect() -> str:
        with suppress(errors.Unavailable):
            client.get("a")
        client.connect()
        return client.ping()

    assert in_child(fork, connect) == "PONG"
    done.set()
    thread.join(LIMIT)
    assert client.ping() == "PONG"


def test_the_connection_of_a_parent_that_dies_ends_though_its_child_lives(client: Client, daemon: Daemon) -> None:
    script = f"""
import os, signal, time
from kvd.blocking import Client
signal.alarm({int(LIMIT)})
client = Client("127.0.0.1", {daemon.port})
client.connect()
client.start()
child = os.fork()
if child:
    print(child, flush=True)
else:
    signal.alarm({int(LIMIT)})
time.sleep({LIMIT})
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert client.info("transactions")["open"] == 1
            parent.kill()
            parent.wait(LIMIT)
            wait_for(lambda: client.info("transactions")["open"] == 0, "the transaction to end")
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)
