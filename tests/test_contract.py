"""What every store must do, through the real protocol: one suite, run on each store."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from tests.server import Server
from tests.slow_store import SlowStore


@pytest.fixture(params=["memory", "slow-1", "slow-2"])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "memory":
        return Server()
    clock = Clock()
    return Server(SlowStore(clock, int(request.param[-1])), clock)


# Data commands


def test_a_value_is_there_until_it_is_overwritten_or_removed(server: Server) -> None:
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


def test_exists_tells_an_empty_value_from_none(server: Server) -> None:
    server.play("""
        1 EXISTS a            -> false
        1 ["PUT", "a", ""]    -> ok
        1 EXISTS a            -> true
        1 GET a               -> ""
    """)


def test_mget_answers_in_the_order_asked_with_null_for_what_is_absent(server: Server) -> None:
    server.play("""
        1 PUT a 1      -> ok
        1 PUT b 2      -> ok
        1 MGET b x a b -> ["2", null, "1", "2"]
    """)


def test_incr_counts_an_absent_key_as_nothing_and_answers_the_sum(server: Server) -> None:
    server.play("""
        1 INCR n               -> 1
        1 INCR n 41            -> 42
        1 INCR n -50           -> -8
        1 ["INCR", "n", 8]     -> 0
        1 ["INCR", "n", "007"] -> 7
        1 GET n                -> "7"
    """)


def test_incr_refuses_what_is_no_number_and_sums_past_64_bits(server: Server) -> None:
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


def test_cas_swaps_only_what_it_expects(server: Server) -> None:
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


# Order: SCAN and COUNT


def fill(server: Server, keys: str) -> None:
    for key in keys.split():
        server.client().ask(f"PUT {key} {key.upper()}")


def test_scan_goes_through_the_keys_in_byte_order(server: Server) -> None:
    for key in ["b", "é", "a", "\U0001f600", "B", "\uffee", "ab"]:
        server.client().ask(json.dumps(["PUT", key, ""]))
    server.play(r"""
        1 SCAN KEYS         -> {"items": ["B", "a", "ab", "b", "\u00e9", "\uffee", "\ud83d\ude00"], "next": null}
        1 SCAN KEYS REVERSE -> {"items": ["\ud83d\ude00", "\uffee", "\u00e9", "b", "ab", "a", "B"], "next": null}
    """)


def test_a_page_tells_where_the_next_one_begins(server: Server) -> None:
    fill(server, "a b c d")
    server.play("""
        1 SCAN LIMIT 2           -> {"items": [["a", "A"], ["b", "B"]], "next": "c"}
        1 SCAN FROM c LIMIT 2    -> {"items": [["c", "C"], ["d", "D"]], "next": null}
        1 SCAN LIMIT 4 KEYS      -> {"items": ["a", "b", "c", "d"], "next": null}
    """)


def test_a_reversed_page_tells_where_the_next_one_ends(server: Server) -> None:
    fill(server, "a b c d")
    server.play("""
        1 SCAN REVERSE LIMIT 2 KEYS      -> {"items": ["d", "c"], "next": "c"}
        1 SCAN REVERSE TO c LIMIT 2 KEYS -> {"items": ["b", "a"], "next": null}
    """)


def test_prefix_from_and_to_intersect(server: Server) -> None:
    fill(server, "a p pa pb pc q")
    server.play("""
        1 SCAN PREFIX p KEYS              -> {"items": ["p", "pa", "pb", "pc"], "next": null}
        1 SCAN PREFIX p FROM pb KEYS      -> {"items": ["pb", "pc"], "next": null}
        1 SCAN PREFIX p TO pb KEYS        -> {"items": ["p", "pa"], "next": null}
        1 SCAN PREFIX p FROM a TO z KEYS  -> {"items": ["p", "pa", "pb", "pc"], "next": null}
        1 SCAN FROM pa TO pa KEYS         -> {"items": [], "next": null}
        1 SCAN FROM z TO a KEYS           -> {"items": [], "next": null}
        1 scan prefix p limit 1 reverse   -> {"items": [["pc", "PC"]], "next": "pc"}
        1 COUNT                           -> 6
        1 COUNT PREFIX p                  -> 4
        1 COUNT PREFIX x                  -> 0
    """)


def test_a_prefix_that_ends_in_the_last_character_of_all_has_a_range_of_its_own(server: Server) -> None:
    last = "\U0010ffff"
    for key in ["a", "a" + last, "a" + last + "x", "b", last, last + last]:
        server.client().ask(json.dumps(["PUT", key, ""]))
    assert server.client().ask(json.dumps(["COUNT", "PREFIX", "a" + last]))["result"] == 2
    assert server.client().ask(json.dumps(["COUNT", "PREFIX", last]))["result"] == 2
    assert server.client().ask(json.dumps(["COUNT", "PREFIX", "a\ud7ff"]))["result"] == 0


def test_a_page_ends_once_its_items_reach_a_mebibyte(server: Server) -> None:
    half = "x" * (512 * 1024)
    for key in "abcd":
        server.client().ask(f"PUT {key} {half}")
    page = server.client().ask("SCAN")["result"]
    assert ([key for key, _ in page["items"]], page["next"]) == (["a", "b"], "c")
    page = server.client().ask("SCAN REVERSE")["result"]
    assert ([key for key, _ in page["items"]], page["next"]) == (["d", "c"], "c")
    assert server.client().ask("SCAN KEYS")["result"] == {"items": list("abcd"), "next": None}


def test_a_page_of_a_transaction_counts_its_own_writes(server: Server) -> None:
    fill(server, "a c e g")
    server.play("""
        1 START                    -> ok
        1 PUT b own                -> ok
        1 DEL c                    -> ok
        1 PUT e own                -> ok
        1 SCAN LIMIT 2             -> {"items": [["a", "A"], ["b", "own"]], "next": "e"}
        1 SCAN FROM e LIMIT 2      -> {"items": [["e", "own"], ["g", "G"]], "next": null}
        1 SCAN REVERSE LIMIT 3     -> {"items": [["g", "G"], ["e", "own"], ["b", "own"]], "next": "b"}
        1 SCAN KEYS                -> {"items": ["a", "b", "e", "g"], "next": null}
        1 COUNT                    -> 4
        1 COUNT PREFIX c           -> 0
        2 SCAN KEYS                -> {"items": ["a", "c", "e", "g"], "next": null}
    """)


# Transactions


def test_changes_are_seen_by_others_after_commit_and_not_before(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
        1 PUT b 2 -> ok
        1 GET a   -> "1"
        2 MGET a b -> [null, null]
        1 COMMIT  -> ok
        2 MGET a b -> ["1", "2"]
    """)


def test_rollback_leaves_no_trace(server: Server) -> None:
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


def test_a_transaction_reads_from_its_start(server: Server) -> None:
    fill(server, "a b")
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


def test_snapshots_of_different_age_each_see_their_own_past(server: Server) -> None:
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


def test_a_conflict_names_the_key_that_was_read_first_and_who_changed_it(server: Server) -> None:
    fill(server, "a b c")
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


def test_a_conflict_in_a_range_names_the_changed_key_that_was_met_first(server: Server) -> None:
    fill(server, "a b c d")
    for scan, key in (("SCAN", "b"), ("SCAN REVERSE", "d")):
        server.play(f"""
            1 START           -> ok
            1 {scan} KEYS LIMIT 9 -> {json.dumps({"items": list("abcd" if key == "b" else "dcba"), "next": None})}
            2 PUT d 2         -> ok
            2 PUT b 2         -> ok
            1 PUT x 1         -> ok
        """)
        assert server.client(1).ask("COMMIT")["key"] == key


def test_any_committed_write_is_a_change_even_to_the_same_value(server: Server) -> None:
    for change in ("PUT a A", "INCR n 0", "CAS a A A"):
        fill(server, "a")
        server.play("""
            1 PUT n 1   -> ok
            1 START     -> ok
            1 MGET a n  -> ["A", "1"]
            1 PUT x 1   -> ok
        """)
        server.client(2).ask(change)
        server.play("1 COMMIT -> CONFLICT")


def test_a_key_that_was_removed_and_put_back_has_changed(server: Server) -> None:
    fill(server, "a")
    server.play("""
        1 START   -> ok
        1 GET a   -> "A"
        2 DEL a   -> ok
        2 PUT a A -> ok
        1 PUT x 1 -> ok
        1 COMMIT  -> CONFLICT
    """)


def test_removing_an_absent_key_changes_nothing(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 GET a   -> null
        2 DEL a   -> ok
        1 PUT x 1 -> ok
        1 COMMIT  -> ok
    """)


def test_a_false_cas_changes_nothing_but_reads(server: Server) -> None:
    fill(server, "a")
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


def test_writing_without_reading_never_conflicts(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
        2 START   -> ok
        2 PUT a 2 -> ok
        1 COMMIT  -> ok
        2 COMMIT  -> ok
        3 GET a   -> "2"
    """)


def test_reading_without_writing_always_commits(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 GET a   -> null
        1 COUNT   -> 0
        2 PUT a 2 -> ok
        1 GET a   -> null
        1 COMMIT  -> ok
    """)


def test_a_key_answered_from_the_own_write_is_not_read(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
        1 GET a   -> "1"
        1 INCR a  -> 2
        2 PUT a 9 -> ok
        1 COMMIT  -> ok
        1 GET a   -> "2"
    """)


def test_a_range_is_read_whole_own_keys_included(server: Server) -> None:
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
def test_a_scan_cut_short_has_read_up_to_the_key_that_it_met(server: Server, changed: str, outcome: str) -> None:
    fill(server, "a b c d")
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
    server: Server, changed: str, outcome: str
) -> None:
    fill(server, "a b c d")
    server.play(f"""
        1 START                     -> ok
        1 SCAN LIMIT 2 KEYS REVERSE -> {{"items": ["d", "c"], "next": "c"}}
        2 {changed}                 -> ok
        1 PUT x 1                   -> ok
        1 COMMIT                    -> {outcome}
    """)


def test_readonly_refuses_what_changes_and_always_commits(server: Server) -> None:
    fill(server, "a")
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


# Savepoints


def test_rollback_to_drops_what_came_behind_and_keeps_its_savepoint(server: Server) -> None:
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


def test_rollback_to_drops_later_savepoints(server: Server) -> None:
    server.play("""
        1 START          -> ok
        1 SAVEPOINT s    -> ok
        1 SAVEPOINT t    -> ok
        1 ROLLBACK TO s  -> ok
        1 ROLLBACK TO t  -> NO_SAVEPOINT
    """)


def test_release_keeps_the_changes_and_drops_later_savepoints(server: Server) -> None:
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


def test_what_was_changed_behind_a_released_savepoint_belongs_to_the_one_before(server: Server) -> None:
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


def test_a_name_used_again_hides_the_older_one(server: Server) -> None:
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


def test_what_was_read_before_a_rollback_to_still_counts(server: Server) -> None:
    server.play("""
        1 START         -> ok
        1 SAVEPOINT s   -> ok
        1 GET a         -> null
        1 ROLLBACK TO s -> ok
        2 PUT a 2       -> ok
        1 PUT b 1       -> ok
        1 COMMIT        -> CONFLICT
    """)


def test_a_transaction_whose_writes_were_all_rolled_back_to_has_written_nothing(server: Server) -> None:
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


def test_check_tells_whether_the_transaction_would_commit(server: Server) -> None:
    fill(server, "a b c")

    def check() -> dict[str, object]:
        found: dict[str, object] = server.client(1).ask("CHECK")["result"]
        assert found.pop("age") >= 0  # type: ignore[operator]
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


def test_check_names_at_most_100_keys(server: Server) -> None:
    server.play("""
        1 START      -> ok
        1 SCAN KEYS  -> {"items": [], "next": null}
        1 PUT x 1    -> ok
    """)
    for number in range(120):
        server.client(2).ask(f"PUT key{number:03} 1")
    found = server.client(1).ask("CHECK")["result"]
    assert found["conflicts"] == [f"key{number:03}" for number in range(100)]


# After an error


@pytest.mark.parametrize(
    "mistake",
    ["GET", "NOSUCH", "START", "INCR word", "ROLLBACK TO nowhere", "RELEASE nowhere", "COMMIT now", '["GET"', "PUT k"],
)
def test_every_error_inside_a_transaction_dooms_it(server: Server, mistake: str) -> None:
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


def test_rollback_ends_a_doomed_transaction(server: Server) -> None:
    server.play("""
        1 START    -> ok
        1 PUT a 1  -> ok
        1 GET      -> BAD_ARGUMENTS
        1 ROLLBACK -> ok
        1 GET a    -> null
    """)


def test_rollback_to_heals_a_doomed_transaction(server: Server) -> None:
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


def test_check_works_in_a_doomed_transaction_and_says_that_it_will_not_commit(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 NOSUCH  -> UNKNOWN_COMMAND
    """)
    assert server.client(1).ask("CHECK")["result"]["commits"] is False


@pytest.mark.parametrize(
    "refused", ["START NOW", '["START", null]', '["START", true]', "START READONLY x", '["start", 1.5]']
)
def test_a_refused_start_leaves_a_doomed_transaction_open(server: Server, refused: str) -> None:
    assert server.client(1).ask(refused)["status"] == "Error"
    server.play("""
        1 PUT a 1  -> ABORTED
        1 COMMIT   -> ABORTED
        1 PUT a 2  -> ok
    """)


def test_a_start_that_is_no_text_leaves_a_doomed_transaction_open(server: Server) -> None:
    assert b"BAD_REQUEST" in server.client(1).exchange(b"START \xff\n")
    server.play("1 PUT a 1 -> ABORTED")


def test_transaction_commands_need_a_transaction(server: Server) -> None:
    for command in ("COMMIT", "ROLLBACK", "CHECK", "SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"):
        server.play(f"1 {command} -> NO_TRANSACTION")


def test_quit_rolls_back(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
        1 QUIT    -> ok
        2 GET a   -> null
    """)
    assert server.client(1).closed


def test_a_lost_connection_rolls_back(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
    """)
    server.client(1).transport.loseConnection()
    server.play("2 GET a -> null")


# The catalogue of anomalies (Adya's, as Hermitage by Martin Kleppmann tries them on databases)


@pytest.fixture
def two(server: Server) -> Server:
    """Two keys that hold 10 and 20."""
    server.play("""
        1 PUT x 10 -> ok
        1 PUT y 20 -> ok
    """)
    return server


def test_g0_writes_of_two_transactions_do_not_interleave(two: Server) -> None:
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


def test_g1a_an_aborted_write_is_never_read(two: Server) -> None:
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


def test_g1b_an_intermediate_value_is_never_read(two: Server) -> None:
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


def test_g1c_information_does_not_flow_in_a_circle(two: Server) -> None:
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


def test_otv_an_observed_transaction_does_not_vanish(two: Server) -> None:
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


def test_pmp_a_predicate_read_twice_answers_the_same(two: Server) -> None:
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


def test_pmp_a_write_that_depends_on_a_predicate_conflicts(two: Server) -> None:
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


def test_p4_an_update_is_never_lost(two: Server) -> None:
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


def test_g_single_reads_are_not_skewed(two: Server) -> None:
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


def test_g_single_a_write_on_a_skewed_predicate_conflicts(two: Server) -> None:
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


def test_g2_item_writes_are_not_skewed(two: Server) -> None:
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


def test_g2_insertions_that_break_each_others_count_do_not_both_commit(two: Server) -> None:
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


def test_g2_a_phantom_by_deletion_conflicts(two: Server) -> None:
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


def test_g2_an_absent_key_that_was_read_is_a_read(two: Server) -> None:
    two.play("""
        1 START    -> ok
        1 EXISTS z -> false
        2 PUT z 1  -> ok
        1 PUT n 1  -> ok
        1 COMMIT   -> CONFLICT
    """)


def test_g2_two_edges_a_reader_between_two_writers_breaks_the_circle(two: Server) -> None:
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


def test_commit_is_all_or_nothing_for_a_reader_that_reads_key_by_key(two: Server) -> None:
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
