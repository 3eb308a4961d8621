"""What every store must do: keys that end.

Replies may take some tenths of a second of the server's time, so ends here are seconds apart.
"""

from __future__ import annotations

from typing import Any

from kvd.testing.conversations import Server

LONG = 20.0
"""Seconds, more than all replies of a test take."""


def put(server: Server, key: str, value: str, seconds: int) -> None:
    """Store a key that ends."""
    server.play(f'1 ["PUT", "{key}", "{value}", {seconds}] -> ok')


def left(server: Server, client: int, key: str) -> Any:
    """What TTL says."""
    return server.client(client).ask(f"TTL {key}")["result"]


class Ends:
    """Keys that end."""

    def test_a_key_ends_and_is_gone_for_everyone(self, server: Server) -> None:
        put(server, "a", "1", 40)
        put(server, "b", "2", 100)
        server.play("1 PUT c 3 -> ok")
        server.clock.advance(LONG)
        server.play("""
            1 GET a      -> "1"
            2 MGET a b c -> ["1", "2", "3"]
            2 COUNT      -> 3
        """)
        server.clock.advance(LONG)
        server.play("""
            1 GET a      -> null
            1 EXISTS a   -> false
            2 MGET a b c -> [null, "2", "3"]
            2 SCAN KEYS  -> {"items": ["b", "c"], "next": null}
            1 COUNT      -> 2
            1 TTL a      -> null
            1 EXPIRE a 9 -> false
            1 PERSIST a  -> false
            1 INCR a     -> 1
            1 TTL a      -> null
        """)

    def test_expire_moves_the_end_and_persist_takes_it_away(self, server: Server) -> None:
        server.play("""
            1 PUT a 1          -> ok
            1 PUT b 2          -> ok
            1 PUT c 3          -> ok
            1 TTL a            -> null
            1 PERSIST a        -> false
            1 EXPIRE a 40     -> true
            1 EXPIRE b 40.5   -> true
            1 EXPIRE c 40     -> true
            1 PERSIST a        -> true
            1 PERSIST a        -> false
            1 EXPIRE b 180     -> true
            1 EXPIRE x 180     -> false
        """)
        assert 170 < left(server, 2, "b") <= 180
        server.clock.advance(2 * LONG)
        server.play("""
            1 MGET a b c -> ["1", "2", null]
            1 TTL a      -> null
        """)

    def test_put_takes_the_end_away_and_incr_and_cas_keep_it(self, server: Server) -> None:
        for key in "abcd":
            put(server, key, "1", 40)
        server.play("""
            1 PUT a 1                   -> ok
            1 INCR b                    -> 2
            1 CAS c 1 2                 -> true
            1 DEL d                     -> ok
            1 PUT d 2                   -> ok
        """)
        assert 30 < left(server, 1, "b") <= 40
        assert 30 < left(server, 1, "c") <= 40
        server.clock.advance(2 * LONG)
        server.play('1 MGET a b c d -> ["1", null, null, "2"]')

    def test_expireat_names_a_time_and_one_that_has_passed_removes_the_key_at_once(self, server: Server) -> None:
        server.clock.advance(LONG)
        end = 60_000
        server.play(f"""
            1 PUT a 1               -> ok
            1 PUT b 2               -> ok
            1 EXPIREAT a {end}      -> true
            1 EXPIREAT x {end}      -> false
            1 EXPIREAT b 5          -> true
            1 EXPIREAT b 5          -> false
            1 SCAN ENDS             -> {{"items": [["a", "1", {end}]], "next": null}}
            1 PUT b 2               -> ok
            1 SCAN ENDS             -> {{"items": [["a", "1", {end}], ["b", "2", null]], "next": null}}
            1 SCAN ENDS REVERSE LIMIT 1 -> {{"items": [["b", "2", null]], "next": "b"}}
            1 SCAN KEYS ENDS        -> BAD_ARGUMENTS
        """)
        server.clock.advance(2 * LONG)
        server.play('1 SCAN ENDS -> {"items": [["b", "2", null]], "next": null}')

    def test_a_time_is_more_than_nothing_and_at_most_ten_years(self, server: Server) -> None:
        server.play("1 PUT a 1 -> ok")
        for good in ("1", "0.001", "0.0001", "315360000", "315360000.000", "007.5", '"1.5"', '"3"', "3"):
            server.play(f'1 ["EXPIRE", "a", {good}] -> true' if good[0] == '"' else f"1 EXPIRE a {good} -> true")
            server.play("1 PUT a 1 -> ok")
        for bad in ("0", "0.0", "-1", "+1", "1e3", ".5", "1.", "1_0", "١", "x", "nan", "315360000.001", "9" * 400):
            server.play(f"""
                1 EXPIRE a {bad}              -> BAD_ARGUMENTS
                1 ["EXPIRE", "a", "{bad}"]    -> BAD_ARGUMENTS
                1 ["PUT", "a", "2", "{bad}"]  -> BAD_ARGUMENTS
            """)
        server.play("""
            1 ["EXPIRE", "a", 1.5]    -> BAD_REQUEST
            1 ["EXPIRE", "a", null]   -> BAD_ARGUMENTS
            1 ["EXPIRE", "a", ""]     -> BAD_ARGUMENTS
            1 ["PUT", "a", 2, 5]      -> BAD_ARGUMENTS
            1 ["PUT", "a", "2", 5, 5] -> BAD_ARGUMENTS
            1 EXPIRE a                -> BAD_ARGUMENTS
            1 EXPIREAT a 1.5          -> BAD_ARGUMENTS
            1 EXPIREAT a soon         -> BAD_ARGUMENTS
            1 PERSIST                 -> BAD_ARGUMENTS
            1 TTL a b                 -> BAD_ARGUMENTS
            1 GET a                   -> "1"
            1 TTL a                   -> null
        """)

    def test_in_the_plain_form_everything_after_the_key_is_the_value(self, server: Server) -> None:
        server.play("""
            1 PUT a 1 5 -> ok
            1 GET a     -> "1 5"
            1 TTL a     -> null
        """)

    def test_a_transaction_sees_what_had_not_ended_at_its_start(self, server: Server) -> None:
        put(server, "a", "1", 40)
        put(server, "b", "2", 180)
        server.clock.advance(LONG)
        server.play("""
            1 START READONLY -> ok
            2 START READONLY -> ok
            1 GET a          -> "1"
        """)
        server.clock.advance(LONG)
        server.play("""
            3 START READONLY -> ok
            3 GET a          -> null
            3 COUNT          -> 1
            3 TTL a          -> null
            1 GET a          -> "1"
            1 TTL a          -> 0
            2 SCAN           -> {"items": [["a", "1"], ["b", "2"]], "next": null}
            2 COUNT          -> 2
            4 COUNT          -> 1
            3 PUT c 3        -> READ_ONLY
            2 COUNT          -> 2
            4 PUT a again    -> ok
            1 MGET a b       -> ["1", "2"]
            2 COMMIT         -> ok
            1 COMMIT         -> ok
            3 COMMIT         -> ABORTED
            1 GET a          -> "again"
        """)

    def test_a_key_that_ends_is_a_change_of_what_was_read(self, server: Server) -> None:
        reads = ["GET a", "TTL a", "EXISTS a", "COUNT", "SCAN", "EXPIRE a 180", "PERSIST a", "INCR a", "CAS a 2 3"]
        for client, read in enumerate(reads, 1):
            server.client().ask('["PUT", "a", "1", 10]')
            server.play(f"{client} START -> ok")
            server.client(client).ask(read)
            server.play(f"{client} PUT own{client} x -> ok")
            server.clock.advance(LONG)
            check = server.client(client).ask("CHECK")["result"]
            assert (check["commits"], check["conflicts"]) == (False, ["a"]), read
            reply = server.client(client).ask("COMMIT")
            assert (reply["code"], reply["key"], reply["by"]) == ("CONFLICT", "a", 0), read
            assert "key 'a' ended after this transaction began" in reply["mesg"]

    def test_a_key_that_had_ended_before_start_does_not_conflict(self, server: Server) -> None:
        for read in ("GET a", "COUNT", "SCAN", "TTL a", "MGET a b"):
            server.client().ask('["PUT", "a", "1", 10]')
            server.clock.advance(LONG)
            server.play("""
                2 START   -> ok
                3 START   -> ok
            """)
            server.client(2).ask(read)
            server.client(3).ask(read)
            server.play("""
                1 COUNT     -> 0
                2 PUT own x -> ok
                2 COMMIT    -> ok
                1 DEL own   -> ok
                1 DEL a     -> ok
                1 PUT a new -> ok
                3 PUT own x -> ok
                3 COMMIT    -> CONFLICT
            """)
            server.play("1 DEL a -> ok")

    def test_what_a_transaction_wrote_stays_readable_in_it(self, server: Server) -> None:
        server.play("""
            1 START                      -> ok
            1 ["PUT", "a", "1", 10]      -> ok
            1 ["PUT", "b", "1", 180]     -> ok
            1 INCR b                     -> 2
        """)
        server.clock.advance(LONG)
        server.play("""
            1 GET a      -> "1"
            1 TTL a      -> 0
            1 COUNT      -> 2
            1 SCAN KEYS  -> {"items": ["a", "b"], "next": null}
            2 COUNT      -> 0
            1 COMMIT     -> ok
            1 GET a      -> null
            2 COUNT      -> 1
        """)
        assert 140 < left(server, 2, "b") <= 160

    def test_an_end_that_passed_before_the_commit_is_a_change_nevertheless(self, server: Server) -> None:
        server.play("""
            1 PUT a 1      -> ok
            1 START        -> ok
            1 EXPIRE a 10  -> true
            2 START        -> ok
            2 GET a        -> "1"
            2 PUT b 1      -> ok
            4 START        -> ok
            4 EXISTS x     -> false
            4 PUT c 1      -> ok
            1 ["PUT", "x", "1", 10] -> ok
        """)
        server.clock.advance(LONG)
        server.play("""
            3 GET a        -> "1"
            3 START        -> ok
            3 GET a        -> "1"
            1 COMMIT       -> ok
            1 GET a        -> null
            1 COUNT        -> 0
            3 GET a        -> "1"
            3 COUNT        -> 1
            3 COMMIT       -> ok
            2 COMMIT       -> CONFLICT
            4 COMMIT       -> CONFLICT
        """)

    def test_rollback_to_takes_an_end_back(self, server: Server) -> None:
        server.play("""
            1 PUT a 1              -> ok
            1 START                -> ok
            1 SAVEPOINT s          -> ok
            1 EXPIRE a 10          -> true
            1 ROLLBACK TO s        -> ok
            1 TTL a                -> null
            1 EXPIRE a 180         -> true
            1 SAVEPOINT t          -> ok
            1 PERSIST a            -> true
            1 EXPIREAT a 0         -> true
            1 GET a                -> null
            1 ROLLBACK TO t        -> ok
            1 COMMIT               -> ok
        """)
        assert 170 < left(server, 1, "a") <= 180

    def test_expire_and_persist_change_the_key_for_others(self, server: Server) -> None:
        put(server, "a", "1", 180)
        server.play("1 PUT b 1 -> ok")
        for change in ("EXPIRE a 180", "PERSIST a"):
            server.play(f"""
                2 START     -> ok
                2 GET a     -> "1"
                2 PUT own x -> ok
                1 {change}  -> true
                2 COMMIT    -> CONFLICT
            """)
        server.play("""
            2 START      -> ok
            2 GET b      -> "1"
            2 PUT own x  -> ok
            1 PERSIST b  -> false
            1 EXPIRE x 5 -> false
            2 COMMIT     -> ok
        """)

    def test_a_snapshot_shows_the_ends_of_its_time(self, server: Server) -> None:
        server.play("""
            1 PUT a 1                -> ok
            1 PUT b 2                -> ok
            1 EXPIREAT a 900000      -> true
            2 START READONLY         -> ok
            1 PERSIST a              -> true
            1 EXPIREAT b 800000      -> true
            2 SCAN ENDS              -> {"items": [["a", "1", 900000], ["b", "2", null]], "next": null}
            1 SCAN ENDS              -> {"items": [["a", "1", null], ["b", "2", 800000]], "next": null}
        """)
        assert 880 < left(server, 2, "a") <= 900
        assert left(server, 2, "b") is None

    def test_readonly_refuses_what_sets_an_end(self, server: Server) -> None:
        for command in ("EXPIRE x 5", "EXPIREAT x 5", "PERSIST x", '["PUT", "x", "1", 5]'):
            server.play(f"""
                1 START READONLY -> ok
                1 {command}      -> READ_ONLY
                1 ROLLBACK       -> ok
            """)

    def test_many_keys_end_together(self, server: Server) -> None:
        server.play("1 START -> ok")
        for number in range(700):
            server.client().ask(f'["PUT", "k{number:03}", "x", 30]')
        server.play("""
            1 COMMIT         -> ok
            2 START READONLY -> ok
            3 START          -> ok
            3 COUNT          -> 700
            3 PUT own x      -> ok
        """)
        server.clock.advance(2 * LONG)
        server.play("""
            1 COUNT          -> 0
            1 SCAN KEYS      -> {"items": [], "next": null}
            2 COUNT          -> 700
            3 COMMIT         -> CONFLICT
            2 SCAN LIMIT 1   -> {"items": [["k000", "x"]], "next": "k001"}
            2 COMMIT         -> ok
            1 COUNT          -> 0
        """)
