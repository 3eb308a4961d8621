"""The parts of compare.py run and fit together. What they measure in so short a time says nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.report import BEGIN, END

SCRIPT = Path(__file__).with_name("compare.py")


@pytest.mark.parametrize(
    ("servers", "with_compiler"), [("kvd,threads", shutil.which("cc") is not None), ("threads", False)]
)
def test_it_measures_and_leaves_what_was_written_by_hand(tmp_path: Path, servers: str, with_compiler: bool) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# By hand\n\n{BEGIN}\nold figures\n{END}\n\nmore by hand\n")
    options = [f"--to={tmp_path}", f"--json={tmp_path}/all.json", f"--servers={servers}"]
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--rounds=1", "--seconds=0.1", *options],
        env=os.environ if with_compiler else {**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "all.json").read_text())
    for measured in found["rows"]:
        for rounds in measured["rounds"].values():
            assert [figures["per_second"] > 0 for figures in rounds] == [True]
    measured_on = {name for measured in found["rows"] for name in measured["rounds"]}
    assert measured_on == set(servers.split(","))
    assert list(found["filled"]) == (["kvd"] if with_compiler else [])

    text = page.read_text()
    assert text.startswith(f"# By hand\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nmore by hand\n")
    assert "old figures" not in text
    assert "| GET, 5 clients, 16 in flight, 3 bytes | " in text
    assert ("no C compiler" in done.stdout) == (not with_compiler)
