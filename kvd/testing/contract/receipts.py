"""What every store must do: COMMIT with a receipt, and OUTCOME."""

from __future__ import annotations

from typing import Any

from kvd.testing.conversations import Server


def ask(server: Server, receipt: str, number: int = 9) -> Any:
    reply = server.client(number).ask(f"OUTCOME {receipt}")
    assert list(reply) == ["status", "result", "kept"]
    assert 0 <= reply["kept"] <= 3600
    return reply["result"]


class Receipts:
    """Receipts."""

    def test_a_commit_with_a_receipt_can_be_asked_for_from_any_connection(self, server: Server) -> None:
        server.play("""
            1 START      -> ok
            1 PUT a 1    -> ok
            1 COMMIT r1  -> ok
            1 GET a      -> "1"
        """)
        assert ask(server, "r1") == ask(server, "r1", 1) == ask(server, "r1") == "committed"

    def test_after_never_no_commit_with_the_receipt_succeeds(self, server: Server) -> None:
        server.play("""
            1 START      -> ok
            1 PUT a 1    -> ok
        """)
        assert ask(server, "r1") == "never"
        server.play("""
            1 COMMIT r1  -> RECEIPT_USED
            1 COMMIT     -> NO_TRANSACTION
            1 GET a      -> null
        """)
        assert ask(server, "r1") == "never"

    def test_a_receipt_is_used_once(self, server: Server) -> None:
        server.play("""
            1 START      -> ok
            1 PUT a 1    -> ok
            1 COMMIT r1  -> ok
            2 START      -> ok
            2 PUT a 2    -> ok
            2 COMMIT r1  -> RECEIPT_USED
            2 GET a      -> "1"
        """)
        assert ask(server, "r1") == "committed"

    def test_a_commit_that_failed_leaves_its_receipt_unused(self, server: Server) -> None:
        server.fill("a")
        server.play("""
            1 START      -> ok
            1 GET a      -> "A"
            2 PUT a 2    -> ok
            1 PUT b 1    -> ok
            1 COMMIT r1  -> CONFLICT
            1 START      -> ok
            1 GET        -> BAD_ARGUMENTS
            1 COMMIT r1  -> ABORTED
            1 COMMIT r1  -> NO_TRANSACTION
            1 START      -> ok
            1 PUT b 1    -> ok
            1 COMMIT r1  -> ok
        """)
        assert ask(server, "r1") == "committed"

    def test_a_commit_that_wrote_nothing_records_its_receipt(self, server: Server) -> None:
        server.fill("a")
        server.play("""
            1 START READONLY -> ok
            1 GET a          -> "A"
            2 PUT a 2        -> ok
            1 COMMIT r1      -> ok
            1 START          -> ok
            1 COMMIT r2      -> ok
            1 START          -> ok
            1 COMMIT r2      -> RECEIPT_USED
        """)
        assert (ask(server, "r1"), ask(server, "r2"), ask(server, "r3")) == ("committed", "committed", "never")

    def test_a_receipt_has_1_to_64_bytes(self, server: Server) -> None:
        server.play(f"""
            1 START            -> ok
            1 COMMIT {"x" * 65} -> TOO_LARGE
            1 ROLLBACK         -> ok
            1 START            -> ok
            1 COMMIT {"x" * 64} -> ok
            1 OUTCOME {"x" * 65} -> TOO_LARGE
            1 OUTCOME          -> BAD_ARGUMENTS
            1 ["OUTCOME", ""]  -> BAD_ARGUMENTS
            1 OUTCOME a b      -> BAD_ARGUMENTS
            1 START            -> ok
            1 COMMIT a b       -> BAD_ARGUMENTS
            1 COMMIT           -> ABORTED
        """)
        assert ask(server, "x" * 64) == "committed"

    def test_outcome_works_in_an_aborted_transaction_and_in_an_open_one(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 PUT a 1 -> ok
        """)
        assert ask(server, "r1", 1) == "never"
        server.play("1 NOSUCH -> UNKNOWN_COMMAND")
        assert ask(server, "r1", 1) == "never"
        server.play("""
            1 COMMIT r2 -> ABORTED
        """)
        assert ask(server, "r2") == "never"
