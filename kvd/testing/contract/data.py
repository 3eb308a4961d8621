"""What every store must do: data commands."""

from __future__ import annotations

from kvd.testing.conversations import Server


class Data:
    """Data commands."""

    def test_a_value_is_there_until_it_is_overwritten_or_removed(self, server: Server) -> None:
        server.play("""
            1 GET a     -> null
            1 PUT a one -> ok
            2 GET a     -> "one"
            2 PUT a two -> ok
            1 GET a     -> "two"
            1 DEL a     -> ok
            1 DEL a     -> ok
            2 GET a     -> null
        """)

    def test_exists_tells_an_empty_value_from_none(self, server: Server) -> None:
        server.play("""
            1 EXISTS a            -> false
            1 ["PUT", "a", ""]    -> ok
            1 EXISTS a            -> true
            1 GET a               -> ""
        """)

    def test_mget_answers_in_the_order_asked_with_null_for_what_is_absent(self, server: Server) -> None:
        server.play("""
            1 PUT a 1      -> ok
            1 PUT b 2      -> ok
            1 MGET b x a b -> ["2", null, "1", "2"]
        """)

    def test_incr_counts_an_absent_key_as_nothing_and_answers_the_sum(self, server: Server) -> None:
        server.play("""
            1 INCR n               -> 1
            1 INCR n 41            -> 42
            1 INCR n -50           -> -8
            1 ["INCR", "n", 8]     -> 0
            1 ["INCR", "n", "007"] -> 7
            1 GET n                -> "7"
        """)

    def test_incr_refuses_what_is_no_number_and_sums_past_64_bits(self, server: Server) -> None:
        server.play("""
            1 PUT word x                     -> ok
            1 INCR word                      -> NOT_A_NUMBER
            1 PUT spaced  1                  -> ok
            1 INCR spaced                    -> NOT_A_NUMBER
            1 PUT big 9223372036854775807    -> ok
            1 INCR big 0                     -> 9223372036854775807
            1 INCR big                       -> NOT_A_NUMBER
            1 GET big                        -> "9223372036854775807"
            1 INCR low -9223372036854775808  -> -9223372036854775808
            1 INCR low -1                    -> NOT_A_NUMBER
            1 INCR n 9223372036854775808     -> BAD_ARGUMENTS
            1 INCR n 1.5                     -> BAD_ARGUMENTS
            1 INCR n +1                      -> BAD_ARGUMENTS
            1 INCR n ١                       -> BAD_ARGUMENTS
        """)

    def test_cas_swaps_only_what_it_expects(self, server: Server) -> None:
        server.play("""
            1 CAS a x y              -> false
            1 ["CAS", "a", null, "1"] -> true
            1 ["CAS", "a", null, "2"] -> false
            1 CAS a 1 2              -> true
            1 CAS a 1 3              -> false
            1 GET a                  -> "2"
            1 ["CAS", "a", "2", null] -> true
            1 EXISTS a               -> false
            1 ["CAS", "a", null, null] -> true
        """)
