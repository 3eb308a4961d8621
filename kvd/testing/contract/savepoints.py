"""What every store must do: savepoints, and CHECK."""

from __future__ import annotations

from typing import Any

from kvd.testing.conversations import Server


class Savepoints:
    """Savepoints."""

    def test_rollback_to_drops_what_came_after_and_keeps_its_savepoint(self, server: Server) -> None:
        server.play("""
            1 START          -> ok
            1 PUT a 1        -> ok
            1 SAVEPOINT s    -> ok
            1 PUT a 2        -> ok
            1 PUT b 2        -> ok
            1 SAVEPOINT t    -> ok
            1 DEL a          -> ok
            1 ROLLBACK TO s  -> ok
            1 MGET a b       -> ["1", null]
            1 PUT a 3        -> ok
            1 ROLLBACK TO s  -> ok
            1 COMMIT         -> ok
            2 MGET a b       -> ["1", null]
        """)

    def test_rollback_to_drops_later_savepoints(self, server: Server) -> None:
        server.play("""
            1 START          -> ok
            1 SAVEPOINT s    -> ok
            1 SAVEPOINT t    -> ok
            1 ROLLBACK TO s  -> ok
            1 ROLLBACK TO t  -> NO_SAVEPOINT
        """)

    def test_release_keeps_the_changes_and_drops_later_savepoints(self, server: Server) -> None:
        server.play("""
            1 START          -> ok
            1 SAVEPOINT s    -> ok
            1 PUT a 1        -> ok
            1 SAVEPOINT t    -> ok
            1 PUT a 2        -> ok
            1 SAVEPOINT u    -> ok
            1 PUT a 3        -> ok
            1 RELEASE t      -> ok
            1 GET a          -> "3"
            1 ROLLBACK TO s  -> ok
            1 GET a          -> null
            1 ROLLBACK TO u  -> NO_SAVEPOINT
        """)

    def test_what_was_changed_after_a_released_savepoint_belongs_to_the_one_before(self, server: Server) -> None:
        server.play("""
            1 START          -> ok
            1 SAVEPOINT r    -> ok
            1 PUT a 1        -> ok
            1 SAVEPOINT s    -> ok
            1 SAVEPOINT t    -> ok
            1 PUT b 1        -> ok
            1 RELEASE t      -> ok
            1 ROLLBACK TO s  -> ok
            1 MGET a b       -> ["1", null]
        """)

    def test_a_name_used_again_hides_the_older_one(self, server: Server) -> None:
        server.play("""
            1 START          -> ok
            1 SAVEPOINT s    -> ok
            1 PUT a 1        -> ok
            1 SAVEPOINT s    -> ok
            1 PUT a 2        -> ok
            1 ROLLBACK TO s  -> ok
            1 GET a          -> "1"
            1 RELEASE s      -> ok
            1 rollback to s  -> ok
            1 GET a          -> null
        """)

    def test_what_was_read_before_a_rollback_to_still_counts(self, server: Server) -> None:
        server.play("""
            1 START         -> ok
            1 SAVEPOINT s   -> ok
            1 GET a         -> null
            1 ROLLBACK TO s -> ok
            2 PUT a 2       -> ok
            1 PUT b 1       -> ok
            1 COMMIT        -> CONFLICT
        """)

    def test_a_transaction_whose_writes_were_all_rolled_back_to_has_written_nothing(self, server: Server) -> None:
        server.play("""
            1 START         -> ok
            1 GET a         -> null
            1 SAVEPOINT s   -> ok
            1 PUT b 1       -> ok
            1 ROLLBACK TO s -> ok
            2 PUT a 2       -> ok
            1 COMMIT        -> ok
        """)

    # CHECK

    def test_check_tells_whether_the_transaction_would_commit(self, server: Server) -> None:
        server.fill("a b c")

        def check() -> dict[str, Any]:
            found: dict[str, Any] = server.client(1).ask("CHECK")["result"]
            assert found.pop("age") >= 0
            return found

        server.play("""
            1 START     -> ok
            1 GET b     -> "B"
            1 MGET a b  -> ["A", "B"]
            2 PUT a 2   -> ok
            2 PUT b 2   -> ok
        """)
        assert check() == {"commits": True, "conflicts": [], "reads": 2, "writes": 0}
        server.play("1 PUT x 1 -> ok")
        assert check() == {"commits": False, "conflicts": ["b", "a"], "reads": 2, "writes": 1}
        server.play("1 COMMIT -> CONFLICT")

    def test_check_names_at_most_100_keys(self, server: Server) -> None:
        server.play("""
            1 START      -> ok
            1 SCAN KEYS  -> {"items": [], "next": null}
            1 PUT x 1    -> ok
        """)
        for number in range(120):
            server.client(2).ask(f"PUT key{number:03} 1")
        found = server.client(1).ask("CHECK")["result"]
        assert found["conflicts"] == [f"key{number:03}" for number in range(100)]
