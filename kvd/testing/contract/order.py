"""What every store must do: the order of keys: SCAN and COUNT."""

from __future__ import annotations

import json

from kvd.testing.conversations import Server


class Order:
    """SCAN and COUNT."""

    def test_scan_goes_through_the_keys_in_byte_order(self, server: Server) -> None:
        for key in ["b", "é", "a", "\U0001f600", "B", "\uffee", "ab"]:
            server.client().ask(json.dumps(["PUT", key, ""]))
        server.play(r"""
            1 SCAN KEYS         -> {"items": ["B", "a", "ab", "b", "\u00e9", "\uffee", "\ud83d\ude00"], "next": null}
            1 SCAN KEYS REVERSE -> {"items": ["\ud83d\ude00", "\uffee", "\u00e9", "b", "ab", "a", "B"], "next": null}
        """)

    def test_a_page_tells_where_the_next_one_begins(self, server: Server) -> None:
        server.fill("a b c d")
        server.play("""
            1 SCAN LIMIT 2           -> {"items": [["a", "A"], ["b", "B"]], "next": "c"}
            1 SCAN FROM c LIMIT 2    -> {"items": [["c", "C"], ["d", "D"]], "next": null}
            1 SCAN LIMIT 4 KEYS      -> {"items": ["a", "b", "c", "d"], "next": null}
        """)

    def test_a_reversed_page_tells_where_the_next_one_ends(self, server: Server) -> None:
        server.fill("a b c d")
        server.play("""
            1 SCAN REVERSE LIMIT 2 KEYS      -> {"items": ["d", "c"], "next": "c"}
            1 SCAN REVERSE TO c LIMIT 2 KEYS -> {"items": ["b", "a"], "next": null}
        """)

    def test_prefix_from_and_to_intersect(self, server: Server) -> None:
        server.fill("a p pa pb pc q")
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

    def test_a_prefix_that_ends_in_the_last_character_of_all_has_a_range_of_its_own(self, server: Server) -> None:
        last = "\U0010ffff"
        for key in ["a", "a" + last, "a" + last + "x", "b", last, last + last]:
            server.client().ask(json.dumps(["PUT", key, ""]))
        assert server.client().ask(json.dumps(["COUNT", "PREFIX", "a" + last]))["result"] == 2
        assert server.client().ask(json.dumps(["COUNT", "PREFIX", last]))["result"] == 2
        assert server.client().ask(json.dumps(["COUNT", "PREFIX", "a\ud7ff"]))["result"] == 0

    def test_a_page_ends_once_its_items_reach_a_mebibyte(self, server: Server) -> None:
        half = "x" * (512 * 1024)
        for key in "abcd":
            server.client().ask(f"PUT {key} {half}")
        page = server.client().ask("SCAN")["result"]
        assert ([key for key, _ in page["items"]], page["next"]) == (["a", "b"], "c")
        page = server.client().ask("SCAN REVERSE")["result"]
        assert ([key for key, _ in page["items"]], page["next"]) == (["d", "c"], "c")
        assert server.client().ask("SCAN KEYS")["result"] == {"items": list("abcd"), "next": None}

    def test_a_page_of_a_transaction_counts_its_own_writes(self, server: Server) -> None:
        server.fill("a c e g")
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
