"""What every store must do: the catalogue of anomalies.

They are Adya's, as Hermitage by Martin Kleppmann tries them on databases.
"""

from __future__ import annotations

import pytest

from kvd.testing.conversations import Server


class Anomalies:
    """None of Adya's anomalies comes through."""

    @pytest.fixture
    def two(self, server: Server) -> Server:
        """Two keys that hold 10 and 20."""
        server.play("""
            1 PUT x 10 -> ok
            1 PUT y 20 -> ok
        """)
        return server

    def test_g0_writes_of_two_transactions_do_not_interleave(self, two: Server) -> None:
        two.play("""
            1 START    -> ok
            2 START    -> ok
            1 PUT x 11 -> ok
            2 PUT x 12 -> ok
            1 PUT y 21 -> ok
            1 COMMIT   -> ok
            3 MGET x y -> ["11", "21"]
            2 PUT y 22 -> ok
            2 COMMIT   -> ok
            3 MGET x y -> ["12", "22"]
        """)

    def test_g1a_an_aborted_write_is_never_read(self, two: Server) -> None:
        two.play("""
            1 START     -> ok
            2 START     -> ok
            1 PUT x 101 -> ok
            2 GET x     -> "10"
            3 GET x     -> "10"
            1 ROLLBACK  -> ok
            2 GET x     -> "10"
            2 COMMIT    -> ok
        """)

    def test_g1b_an_intermediate_value_is_never_read(self, two: Server) -> None:
        two.play("""
            1 START     -> ok
            2 START     -> ok
            1 PUT x 101 -> ok
            2 GET x     -> "10"
            1 PUT x 11  -> ok
            3 GET x     -> "10"
            1 COMMIT    -> ok
            2 GET x     -> "10"
            2 COMMIT    -> ok
            3 GET x     -> "11"
        """)

    def test_g1c_information_does_not_flow_in_a_circle(self, two: Server) -> None:
        two.play("""
            1 START    -> ok
            2 START    -> ok
            1 PUT x 11 -> ok
            2 PUT y 22 -> ok
            1 GET y    -> "20"
            2 GET x    -> "10"
            1 COMMIT   -> ok
            2 COMMIT   -> CONFLICT
        """)

    def test_otv_an_observed_transaction_does_not_vanish(self, two: Server) -> None:
        two.play("""
            1 START    -> ok
            2 START    -> ok
            1 PUT x 11 -> ok
            1 PUT y 19 -> ok
            2 PUT x 12 -> ok
            1 COMMIT   -> ok
            3 START    -> ok
            3 GET x    -> "11"
            2 PUT y 18 -> ok
            2 COMMIT   -> ok
            3 GET y    -> "19"
            3 GET x    -> "11"
            3 COMMIT   -> ok
        """)

    def test_pmp_a_predicate_read_twice_answers_the_same(self, two: Server) -> None:
        two.play("""
            1 START       -> ok
            2 START       -> ok
            1 COUNT       -> 2
            2 PUT z 30    -> ok
            2 COMMIT      -> ok
            1 COUNT       -> 2
            1 SCAN KEYS   -> {"items": ["x", "y"], "next": null}
            1 COMMIT      -> ok
        """)

    def test_pmp_a_write_that_depends_on_a_predicate_conflicts(self, two: Server) -> None:
        two.play("""
            1 START       -> ok
            2 START       -> ok
            1 SCAN KEYS   -> {"items": ["x", "y"], "next": null}
            2 SCAN KEYS   -> {"items": ["x", "y"], "next": null}
            1 PUT x 20    -> ok
            2 DEL y       -> ok
            1 COMMIT      -> ok
            2 COMMIT      -> CONFLICT
        """)

    def test_p4_an_update_is_never_lost(self, two: Server) -> None:
        two.play("""
            1 START   -> ok
            2 START   -> ok
            1 INCR x  -> 11
            2 INCR x  -> 11
            1 COMMIT  -> ok
            2 COMMIT  -> CONFLICT
            3 GET x   -> "11"
            1 START   -> ok
            1 GET x   -> "11"
            3 INCR x  -> 12
            1 PUT x 0 -> ok
            1 COMMIT  -> CONFLICT
        """)

    def test_g_single_reads_are_not_skewed(self, two: Server) -> None:
        two.play("""
            1 START    -> ok
            1 GET x    -> "10"
            2 START    -> ok
            2 MGET x y -> ["10", "20"]
            2 PUT x 12 -> ok
            2 PUT y 18 -> ok
            2 COMMIT   -> ok
            1 GET y    -> "20"
            1 COMMIT   -> ok
        """)

    def test_g_single_a_write_on_a_skewed_predicate_conflicts(self, two: Server) -> None:
        two.play("""
            1 START      -> ok
            1 GET x      -> "10"
            2 START      -> ok
            2 PUT x 12   -> ok
            2 PUT y 18   -> ok
            2 COMMIT     -> ok
            1 DEL y      -> ok
            1 COMMIT     -> CONFLICT
            3 MGET x y   -> ["12", "18"]
        """)

    def test_g2_item_writes_are_not_skewed(self, two: Server) -> None:
        two.play("""
            1 START    -> ok
            2 START    -> ok
            1 MGET x y -> ["10", "20"]
            2 MGET x y -> ["10", "20"]
            1 PUT x 11 -> ok
            2 PUT y 21 -> ok
            1 COMMIT   -> ok
            2 COMMIT   -> CONFLICT
        """)

    def test_g2_insertions_that_break_each_others_count_do_not_both_commit(self, two: Server) -> None:
        two.play("""
            1 START         -> ok
            2 START         -> ok
            1 COUNT PREFIX p -> 0
            2 COUNT PREFIX p -> 0
            1 PUT p1 1      -> ok
            2 PUT p2 1      -> ok
            1 COMMIT        -> ok
            2 COMMIT        -> CONFLICT
        """)

    def test_g2_a_phantom_by_deletion_conflicts(self, two: Server) -> None:
        two.play("""
            1 START     -> ok
            1 SCAN KEYS -> {"items": ["x", "y"], "next": null}
            2 DEL y     -> ok
            1 PUT n 2   -> ok
            1 COMMIT    -> CONFLICT
            1 START     -> ok
            1 COUNT     -> 1
            2 DEL x     -> ok
            1 PUT n 1   -> ok
            1 COMMIT    -> CONFLICT
        """)

    def test_g2_an_absent_key_that_was_read_is_a_read(self, two: Server) -> None:
        two.play("""
            1 START    -> ok
            1 EXISTS z -> false
            2 PUT z 1  -> ok
            1 PUT n 1  -> ok
            1 COMMIT   -> CONFLICT
        """)

    def test_g2_two_edges_a_reader_between_two_writers_breaks_the_circle(self, two: Server) -> None:
        two.play("""
            1 START    -> ok
            1 MGET x y -> ["10", "20"]
            2 START    -> ok
            2 INCR y 5 -> 25
            2 COMMIT   -> ok
            3 START    -> ok
            3 MGET x y -> ["10", "25"]
            3 COMMIT   -> ok
            1 PUT x 0  -> ok
            1 COMMIT   -> CONFLICT
        """)

    def test_commit_is_all_or_nothing_for_a_reader_that_reads_key_by_key(self, two: Server) -> None:
        two.play("""
            1 START     -> ok
            2 START     -> ok
            1 GET x     -> "10"
            2 PUT x 100 -> ok
            2 PUT y 200 -> ok
            2 COMMIT    -> ok
            1 GET y     -> "20"
            1 COMMIT    -> ok
        """)
