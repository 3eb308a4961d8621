"""Transactions of the blocking client, against a real daemon."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from kvd import errors
from kvd.blocking import Client, Transaction


def test_a_transaction_commits_at_the_end_of_its_block(client: Client, other: Client) -> None:
    with client.transaction() as txn:
        txn.put("a", "1")
        txn.savepoint("s")
        txn.put("a", "2")
        txn.rollback_to("s")
        txn.release("s")
        assert txn.check()["writes"] == 1
        assert other.get("a") is None
    assert other.get("a") == "1"
    with pytest.raises(errors.NoTransaction):
        txn.put("a", "late")
    assert other.get("a") == "1"


def test_a_transaction_rolls_back_when_its_block_raises(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), client.transaction() as txn:
        txn.put("a", "1")
        raise ZeroDivisionError
    assert client.get("a") is None
    with client.transaction() as txn:
        txn.put("a", "2")
    assert client.get("a") == "2"


def test_a_transaction_can_be_entered_through_an_exit_stack(client: Client, other: Client) -> None:
    with ExitStack() as stack:
        txn = stack.enter_context(client.transaction())
        txn.put("a", "1")
        assert other.get("a") is None
    assert other.get("a") == "1"
    with pytest.raises(ZeroDivisionError), ExitStack() as stack:
        stack.enter_context(client.transaction()).put("a", "2")
        raise ZeroDivisionError
    assert client.get("a") == "1"


def test_a_conflict_is_raised_at_the_end_of_the_block_and_names_key_and_client(client: Client, other: Client) -> None:
    with pytest.raises(errors.Conflict) as caught, client.transaction() as txn:
        txn.get("a")
        other.put("a", "other's")
        txn.put("b", "1")
    assert caught.value.fields == {"key": "a", "by": 2}
    assert client.get("b") is None


def test_an_error_inside_a_transaction_stores_nothing(client: Client) -> None:
    with pytest.raises(errors.NotANumber), client.transaction() as txn:
        txn.put("a", "x")
        txn.incr("a")
    assert client.get("a") is None


def test_a_read_only_transaction_refuses_changes(client: Client) -> None:
    with pytest.raises(errors.ReadOnly), client.transaction(read_only=True) as txn:
        txn.put("a", "1")


def test_commands_do_not_slip_into_a_transaction_that_is_open_on_the_same_client(client: Client) -> None:
    with client.transaction() as txn:
        txn.put("a", "1")
        with pytest.raises(errors.InTransaction):
            client.put("b", "1")
        with pytest.raises(errors.InTransaction):
            client.send_command("PUT b 1")
        with pytest.raises(errors.InTransaction), client.pipeline() as pipe:
            pipe.put("b", "1")
        with pytest.raises(errors.InTransaction), client.transaction():
            pass
    assert client.mget("a", "b") == ["1", None]


@pytest.mark.parametrize("words", [["START"], ["COMMIT"], ["commit"], ["ROLLBACK"], ["QUIT"]])
def test_a_transaction_with_a_block_ends_where_that_ends(client: Client, words: list[str]) -> None:
    with client.transaction() as txn:
        with pytest.raises(errors.BadRequest):
            txn.call(*words)
        with pytest.raises(errors.BadRequest), txn.pipeline() as pipe:
            pipe.call(*words)
        txn.put("a", "1")
    assert client.get("a") == "1"


def test_a_transaction_can_be_led_by_hand(client: Client, other: Client) -> None:
    client.start()
    client.put("a", "1")
    client.savepoint("s")
    client.delete("a")
    client.rollback_to("s")
    client.release("s")
    assert client.check()["commits"] is True
    client.commit()
    client.start(read_only=True)
    client.rollback()
    assert other.get("a") == "1"


def test_a_transaction_with_a_block_is_refused_inside_one_that_is_led_by_hand_and_harms_it_not(client: Client) -> None:
    for start, commit in (
        (client.start, client.commit),
        (lambda: client.send_command("start"), lambda: client.send_command('["COMMIT"]')),
    ):
        start()
        client.put("a", "1")
        with pytest.raises(errors.InTransaction), client.transaction():
            pass
        commit()
        assert client.get("a") == "1"
        client.delete("a")


def test_a_start_that_is_refused_leaves_no_transaction(client: Client) -> None:
    client.send_command("START nonsense")  # leaves an aborted one, of which the client knows nothing
    with pytest.raises(errors.Aborted), client.transaction():
        pass
    client.put("a", "1")
    assert client.get("a") == "1"


def test_a_transaction_that_is_disconnected_in_its_block_stores_nothing(client: Client, other: Client) -> None:
    with pytest.raises(errors.Unavailable, match="connect"), client.transaction() as txn:
        txn.put("a", "1")
        client.connect()
        with pytest.raises(errors.Unavailable):
            txn.put("a", "2")
        client.put("b", "1")
    assert other.mget("a", "b") == [None, "1"]


def test_transact_runs_again_after_a_conflict(client: Client, other: Client) -> None:
    runs: list[int] = []

    def add(txn: Transaction, amount: int) -> int:
        total = int(txn.get("total") or 0) + amount
        if not runs:
            other.put("total", "10")
        runs.append(total)
        txn.put("total", str(total))
        return total

    assert client.transact(add, 5) == 15
    assert runs == [5, 15]
    assert client.get("total") == "15"
