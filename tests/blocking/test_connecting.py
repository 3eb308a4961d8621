"""Where the blocking client connects to, and what it is not given: addresses, times, threads, and wrong arguments."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvd.blocking import Client
from kvd.errors import BadArguments, BadRequest, NoTransaction, TooLarge, Unavailable
from tests.support.daemon import LIMIT, Daemon


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    path = tmp_path / "kvd.sock"
    with Daemon(tmp_path, "--listen", f"unix:{path}") as daemon:
        daemon.started()
        for each in (path, str(path)):
            with Client(path=each, timeout=LIMIT) as client:
                client.put("a", "1")
                assert client.get("a") == "1"


def test_connect_waits_for_a_server_that_starts_later(tmp_path: Path) -> None:
    path = tmp_path / "kvd.sock"
    client = Client(path=path, timeout=LIMIT)
    with pytest.raises(Unavailable):
        client.connect()
    with Daemon(tmp_path, "--listen", f"unix:{path}"):
        client.connect(wait=LIMIT)
        assert client.ping() == "PONG"
        client.disconnect()


def test_connect_waits_no_longer_than_it_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(Unavailable):
            Client("127.0.0.1", taken.getsockname()[1]).connect(wait=0.2)


@pytest.mark.parametrize(
    "host", ["x..y", "", " ", "a b", "\0", "x" * 300, 5, None, b"localhost", "no-such-host.invalid"]
)
def test_what_can_not_be_a_host_is_an_error_of_the_library(host: Any) -> None:
    with pytest.raises((BadArguments, Unavailable)):
        Client(host, 8765, timeout=2).connect()


@pytest.mark.parametrize("port", [-1, 65536, "8765", None, 1.5])
def test_what_can_not_be_a_port_is_an_error_of_the_library(port: Any) -> None:
    with pytest.raises(BadArguments):
        Client("localhost", port)


@pytest.mark.parametrize("seconds", [-1, 0, float("nan"), float("inf"), 10**9, "1", None])
def test_what_can_not_be_a_timeout_is_an_error_of_the_library(seconds: Any) -> None:
    with pytest.raises(BadArguments):
        Client("localhost", 8765, timeout=seconds)


WRONG: list[Callable[[Any], Any]] = [
    lambda client: client.put("a", b"x"),
    lambda client: client.put("a", 5),
    lambda client: client.put(None, "x"),
    lambda client: client.put("", "x"),
    lambda client: client.put("a\ud800", "x"),
    lambda client: client.put("a", "\udfff"),
    lambda client: client.put("k" * 1025, "x"),
    lambda client: client.put("a", "x" * 1_048_577),
    lambda client: client.get(5),
    lambda client: client.incr("a", 10**5000),
    lambda client: client.incr("a", 2**63),
    lambda client: client.incr("a", 1.5),
    lambda client: client.incr("a", None),
    lambda client: client.cas("a", b"x", "y"),
    lambda client: client.scan(limit=0),
    lambda client: client.scan(limit=10_001),
    lambda client: client.scan(prefix=5),
    lambda client: client.call(),
    lambda client: client.call("GET", ["a"]),
    lambda client: client.send_command("\t"),
    lambda client: client.send_command("GET \ud800"),
    lambda client: client.send_command(""),
    lambda client: client.send_command("GET a\nGET b"),
    lambda client: client.send_command(5),
    lambda client: client.transact(5),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments_are_errors_of_the_library_and_the_connection_lives_on(
    client: Client, wrong: Callable[[Any], Any]
) -> None:
    try:
        answer = wrong(client)
        assert answer["status"] == "Error"  # of send_command
    except (BadArguments, BadRequest, TooLarge):
        pass
    assert client.ping() == "PONG"
    assert client.count() == 0


def test_mget_of_no_keys_is_no_values(client: Client) -> None:
    assert client.mget() == []


# Threads.


def in_threads(number: int, work: Callable[[int], None]) -> list[BaseException]:
    failed: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    return failed


def test_four_threads_share_a_client(client: Client) -> None:
    def work(index: int) -> None:
        for number in range(200):
            client.put(f"key{index}", str(number))
            assert client.get(f"key{index}") == str(number)
            assert client.mget(f"key{index}") == [str(number)]

    assert in_threads(4, work) == []


def test_transactions_of_four_threads_wait_for_each_other(client: Client) -> None:
    def work(index: int) -> None:
        for _ in range(50):
            with client.transaction() as txn:
                txn.put("n", str(int(txn.get("n") or 0) + 1))
            client.incr("plain")

    assert in_threads(4, work) == []
    assert (client.get("n"), client.get("plain")) == ("200", "200")


def test_a_transaction_of_another_thread_is_refused(client: Client) -> None:
    with client.transaction() as txn:
        failed = in_threads(1, lambda index: txn.put("a", "1"))
        assert [type(error) for error in failed] == [NoTransaction]
    assert client.get("a") is None
