"""What every store must do: transactions."""

from __future__ import annotations

import json

import pytest

from kvd.testing.conversations import Server


class Transactions:
    """Transactions."""

    def test_changes_are_seen_by_others_after_commit_and_not_before(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 PUT a 1 -> ok
            1 PUT b 2 -> ok
            1 GET a   -> "1"
            2 MGET a b -> [null, null]
            1 COMMIT  -> ok
            2 MGET a b -> ["1", "2"]
        """)

    def test_rollback_leaves_no_trace(self, server: Server) -> None:
        server.play("""
            1 PUT a old -> ok
            1 START     -> ok
            1 PUT a new -> ok
            1 DEL a     -> ok
            1 PUT b new -> ok
            1 ROLLBACK  -> ok
            1 MGET a b  -> ["old", null]
            2 COUNT     -> 1
        """)

    def test_a_transaction_reads_from_its_start(self, server: Server) -> None:
        server.fill("a b")
        server.play("""
            1 START          -> ok
            2 PUT a changed  -> ok
            2 DEL b          -> ok
            2 PUT c new      -> ok
            1 MGET a b c     -> ["A", "B", null]
            1 SCAN           -> {"items": [["a", "A"], ["b", "B"]], "next": null}
            1 COUNT          -> 2
            2 COUNT          -> 2
            1 EXISTS b       -> true
            1 COMMIT         -> ok
            1 SCAN KEYS      -> {"items": ["a", "c"], "next": null}
        """)

    def test_snapshots_of_different_age_each_see_their_own_past(self, server: Server) -> None:
        server.play("""
            1 PUT a 1 -> ok
            1 START   -> ok
            4 PUT a 2 -> ok
            2 START   -> ok
            4 DEL a   -> ok
            3 START   -> ok
            4 PUT a 4 -> ok
            1 GET a   -> "1"
            2 GET a   -> "2"
            3 GET a   -> null
            3 COUNT   -> 0
            2 COMMIT  -> ok
            1 SCAN    -> {"items": [["a", "1"]], "next": null}
            3 SCAN    -> {"items": [], "next": null}
            3 COMMIT  -> ok
            1 GET a   -> "1"
            1 COMMIT  -> ok
            1 GET a   -> "4"
        """)

    def test_a_conflict_names_the_key_that_was_read_first_and_who_changed_it(self, server: Server) -> None:
        server.fill("a b c")
        server.play("""
            1 START    -> ok
            1 GET c    -> "C"
            1 GET a    -> "A"
            2 PUT a 2  -> ok
            3 PUT c 3  -> ok
            1 PUT x 1  -> ok
        """)
        reply = server.client(1).ask("COMMIT")
        assert reply["code"] == "CONFLICT"
        assert (reply["key"], reply["by"]) == ("c", 3)
        assert "'c'" in reply["mesg"]
        server.play("""
            1 GET x    -> null
            1 COMMIT   -> NO_TRANSACTION
        """)

    def test_a_conflict_in_a_range_names_the_changed_key_that_was_met_first(self, server: Server) -> None:
        server.fill("a b c d")
        for scan, key in (("SCAN", "b"), ("SCAN REVERSE", "d")):
            server.play(f"""
                1 START           -> ok
                1 {scan} KEYS LIMIT 9 -> {json.dumps({"items": list("abcd" if key == "b" else "dcba"), "next": None})}
                2 PUT d 2         -> ok
                2 PUT b 2         -> ok
                1 PUT x 1         -> ok
            """)
            assert server.client(1).ask("COMMIT")["key"] == key

    def test_any_committed_write_is_a_change_even_to_the_same_value(self, server: Server) -> None:
        for change in ("PUT a A", "INCR n 0", "CAS a A A"):
            server.fill("a")
            server.play("""
                1 PUT n 1   -> ok
                1 START     -> ok
                1 MGET a n  -> ["A", "1"]
                1 PUT x 1   -> ok
            """)
            server.client(2).ask(change)
            server.play("1 COMMIT -> CONFLICT")

    def test_a_key_that_was_removed_and_put_back_has_changed(self, server: Server) -> None:
        server.fill("a")
        server.play("""
            1 START   -> ok
            1 GET a   -> "A"
            2 DEL a   -> ok
            2 PUT a A -> ok
            1 PUT x 1 -> ok
            1 COMMIT  -> CONFLICT
        """)

    def test_removing_an_absent_key_changes_nothing(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 GET a   -> null
            2 DEL a   -> ok
            1 PUT x 1 -> ok
            1 COMMIT  -> ok
        """)

    def test_a_false_cas_changes_nothing_but_reads(self, server: Server) -> None:
        server.fill("a")
        server.play("""
            1 START         -> ok
            1 GET a         -> "A"
            2 CAS a no yes  -> false
            1 PUT x 1       -> ok
            1 COMMIT        -> ok
            1 START         -> ok
            1 CAS a no yes  -> false
            2 PUT a 2       -> ok
            1 PUT x 1       -> ok
            1 COMMIT        -> CONFLICT
        """)

    def test_writing_without_reading_never_conflicts(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 PUT a 1 -> ok
            2 START   -> ok
            2 PUT a 2 -> ok
            1 COMMIT  -> ok
            2 COMMIT  -> ok
            3 GET a   -> "2"
        """)

    def test_reading_without_writing_always_commits(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 GET a   -> null
            1 COUNT   -> 0
            2 PUT a 2 -> ok
            1 GET a   -> null
            1 COMMIT  -> ok
        """)

    def test_a_key_answered_from_the_own_write_is_not_read(self, server: Server) -> None:
        server.play("""
            1 START   -> ok
            1 PUT a 1 -> ok
            1 GET a   -> "1"
            1 INCR a  -> 2
            2 PUT a 9 -> ok
            1 COMMIT  -> ok
            1 GET a   -> "2"
        """)

    def test_a_range_is_read_whole_own_keys_included(self, server: Server) -> None:
        server.play("""
            1 START      -> ok
            1 PUT a 1    -> ok
            1 SCAN KEYS  -> {"items": ["a"], "next": null}
            2 PUT a 9    -> ok
            1 COMMIT     -> CONFLICT
        """)

    @pytest.mark.parametrize(
        ("changed", "outcome"), [("PUT c 1", "CONFLICT"), ("PUT bb 1", "CONFLICT"), ("PUT ca 1", "ok")]
    )
    def test_a_scan_cut_short_has_read_up_to_the_key_that_it_met(
        self, server: Server, changed: str, outcome: str
    ) -> None:
        server.fill("a b c d")
        server.play(f"""
            1 START             -> ok
            1 SCAN LIMIT 2 KEYS -> {{"items": ["a", "b"], "next": "c"}}
            2 {changed}         -> ok
            1 PUT x 1           -> ok
            1 COMMIT            -> {outcome}
        """)

    @pytest.mark.parametrize(
        ("changed", "outcome"), [("PUT b 1", "CONFLICT"), ("PUT bb 1", "CONFLICT"), ("PUT ab 1", "ok")]
    )
    def test_a_reversed_scan_cut_short_has_read_down_to_the_key_that_it_met(
        self, server: Server, changed: str, outcome: str
    ) -> None:
        server.fill("a b c d")
        server.play(f"""
            1 START                     -> ok
            1 SCAN LIMIT 2 KEYS REVERSE -> {{"items": ["d", "c"], "next": "c"}}
            2 {changed}                 -> ok
            1 PUT x 1                   -> ok
            1 COMMIT                    -> {outcome}
        """)

    def test_readonly_refuses_what_changes_and_always_commits(self, server: Server) -> None:
        server.fill("a")
        for change in ("PUT a 1", "DEL a", "INCR n", "CAS a no yes", "PUT", "put a"):
            server.play(f"""
                1 START READONLY -> ok
                1 {change}       -> READ_ONLY
                1 GET a          -> ABORTED
                1 ROLLBACK       -> ok
            """)
        server.play("""
            1 START readonly -> ok
            1 GET a          -> "A"
            2 PUT a 2        -> ok
            1 GET a          -> "A"
            1 COMMIT         -> ok
        """)
