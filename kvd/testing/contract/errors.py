"""What every store must do: what comes after an error."""

from __future__ import annotations

import pytest

from kvd.testing.conversations import Server


class Errors:
    """What follows an error."""

    @pytest.mark.parametrize(
        "mistake",
        [
            "GET",
            "NOSUCH",
            "START",
            "INCR word",
            "ROLLBACK TO nowhere",
            "RELEASE nowhere",
            "COMMIT now then",
            '["GET"',
            "PUT k",
        ],
    )
    def test_every_error_inside_a_transaction_aborts_it(self, server: Server, mistake: str) -> None:
        server.play("""
            1 PUT word x -> ok
            1 START      -> ok
            1 PUT a 1    -> ok
        """)
        assert server.client(1).ask(mistake)["status"] == "Error"
        server.play("""
            1 GET a      -> ABORTED
            1 PUT b 1    -> ABORTED
            1 SAVEPOINT s -> ABORTED
            1 RELEASE s  -> ABORTED
            1 START      -> ABORTED
            1 GET        -> ABORTED
            1 PING       -> "PONG"
            1 COMMIT     -> ABORTED
            1 MGET a b   -> [null, null]
            1 COMMIT     -> NO_TRANSACTION
        """)

    def test_rollback_ends_a_aborted_transaction(self, server: Server) -> None:
        server.play("""
            1 START    -> ok
            1 PUT a 1  -> ok
            1 GET      -> BAD_ARGUMENTS
            1 ROLLBACK -> ok
            1 GET a    -> null
        """)

    def test_rollback_to_heals_a_aborted_transaction(self, server: Server) -> None:
        server.play("""
            1 START         -> ok
            1 PUT a 1       -> ok
            1 SAVEPOINT s   -> ok
            1 PUT a 2       -> ok
            1 GET           -> BAD_ARGUMENTS
            1 GET a         -> ABORTED
            1 ROLLBACK TO x -> NO_SAVEPOINT
            1 GET a         -> ABORTED
            1 ROLLBACK TO s -> ok
            1 GET a         -> "1"
            1 COMMIT        -> ok
            2 GET a         -> "1"
        """)

    def test_check_works_in_a_aborted_transaction_and_says_that_it_will_not_commit(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 NOSUCH  -> UNKNOWN_COMMAND
        """)
        assert server.client(1).ask("CHECK")["result"]["commits"] is False

    @pytest.mark.parametrize(
        "refused", ["START NOW", '["START", null]', '["START", true]', "START READONLY x", '["start", 1.5]']
    )
    def test_a_refused_start_leaves_a_aborted_transaction_open(self, server: Server, refused: str) -> None:
        assert server.client(1).ask(refused)["status"] == "Error"
        server.play("""
            1 PUT a 1  -> ABORTED
            1 COMMIT   -> ABORTED
            1 PUT a 2  -> ok
        """)

    def test_a_start_that_is_no_text_leaves_a_aborted_transaction_open(self, server: Server) -> None:
        assert b"BAD_REQUEST" in server.client(1).exchange(b"START \xff\n")
        server.play("1 PUT a 1 -> ABORTED")

    def test_transaction_commands_need_a_transaction(self, server: Server) -> None:
        for command in ("COMMIT", "ROLLBACK", "CHECK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"):
            server.play(f"1 {command} -> NO_TRANSACTION")

    def test_quit_rolls_back(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 PUT a 1 -> ok
            1 QUIT    -> ok
            2 GET a   -> null
        """)
        assert server.client(1).closed

    def test_a_lost_connection_rolls_back(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 PUT a 1 -> ok
        """)
        server.client(1).transport.loseConnection()
        server.play("2 GET a -> null")
