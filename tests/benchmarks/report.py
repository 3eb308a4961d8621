"""Results of compare.py -> tables, charts, and the part of ``docs/performance.md`` between the two marks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.loads import Row
from tests.benchmarks.servers import KINDS

if TYPE_CHECKING:
    from tests.benchmarks.compare import Measured, Results

BEGIN = "<!-- from here: written by tests/benchmarks/compare.py -->"
END = "<!-- to here -->"

BUSY = 0.9

COLOURS = {"kvd": "#1f6fb4", "redis": "#c0392b", "threads": "#7f8c8d", "bare": "#d9b44a"}

SIZES = {3: "3 bytes", 1024: "1 KiB", 65536: "64 KiB"}


def row_title(row: Row) -> str:
    """A row, for people."""
    clients = f"{row.clients:,} client{'s' if row.clients > 1 else ''}"
    flight = "" if row.kind == "transaction" else f", {row.depth} in flight"
    return f"{row.kind.upper() if row.kind != 'transaction' else row.kind}, {clients}{flight}, {SIZES[row.value]}"


def write(results: Results, directory: Path) -> None:
    """Put the figures into performance.md, which is made if it is not there, and draw the charts beside it."""
    page = directory / "performance.md"
    text = page.read_text() if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    charts = draw(results, directory)
    page.write_text(f"{before}{BEGIN}\n\n{figures(results, charts)}\n\n{END}{after}")


def figures(results: Results, charts: list[tuple[str, str]]) -> str:
    """The part of the page that is made of figures.

    :param charts: the names of their files, and what they show.
    """
    parts = [
        "## The machine",
        "\n".join(f"- {name}: {value}" for name, value in results.machine.items()),
        f"Rounds: {results.rounds}, of {results.seconds:g} seconds for each figure. The load came from "
        f"{results.load}. Where that took more than {BUSY:.0%} of its core, the load may be what limits the figure: "
        f"{_busy(results)}.",
        *(f"![{title}]({name})" for name, title in charts),
        "## Requests a second",
        _rates(results),
        "## Latencies",
        "In milliseconds; a batch's, if several requests are in flight.",
        _latencies(results),
        "## Processor time of a request",
        "In microseconds, from `/proc`: in the server's own code, and in the kernel for it.",
        _times(results),
    ]
    if results.filled:
        parts += ["## Memory, and pauses while much is loaded", _filled(results)]
    return "\n\n".join(parts)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown; all columns but the first are numbers."""
    names = list(head)
    lines = [names, ["---", *["--:"] * (len(names) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(number: float | None, form: str = ",.0f") -> str:
    return "–" if number is None else format(number, form)


def _names(results: Results) -> list[str]:
    return [name for name in KINDS if any(name in measured.rounds for measured in results.rows)]


def _busy(results: Results) -> str:
    found = [
        f"{KINDS[name].title} at {row_title(each.row)}"
        for each in results.rows
        for name in each.rounds
        if (each.median(name, "own_cpu_share") or 0) > BUSY
    ]
    return "; ".join(found) or "nowhere"


def _rates(results: Results) -> str:
    names = _names(results)
    others = [name for name in names if name != "kvd"]

    def line(measured: Measured) -> Iterable[str]:
        yield row_title(measured.row)
        yield from (_number(measured.median(name)) for name in names)
        yield from (_number(measured.ratio("kvd", name), ".2f") for name in others)

    head = ["load", *(KINDS[name].title for name in names), *(f"kvd / {KINDS[name].title}" for name in others)]
    return table(head, map(line, results.rows))


def _latencies(results: Results) -> str:
    names = [name for name in _names(results) if name != "bare"]
    wanted = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
    head = ["load", *(f"{KINDS[name].title} {shown}" for name in names for shown in wanted.values())]
    lines = (
        [row_title(each.row), *(_number(each.median(name, figure), ".3f") for name in names for figure in wanted)]
        for each in results.rows
    )
    return table(head, lines)


def _times(results: Results) -> str:
    names = _names(results)
    head = ["load", *(f"{KINDS[name].title} {part}" for name in names for part in ("own", "kernel"))]

    def line(measured: Measured) -> Iterable[str]:
        yield row_title(measured.row)
        for name in names:
            for part in ("user", "system"):
                seconds = measured.median(name, part)
                yield _number(None if seconds is None else seconds * 1e6, ".2f")

    return table(head, map(line, results.rows))


def _filled(results: Results) -> str:
    pairs = next(iter(results.filled.values())).pairs
    text = (
        f"Resident memory that {pairs:,} pairs add, with keys of 16 bytes and values of 32; and how long one more "
        f"client, who asks for one key each millisecond, waits while 50 clients with 16 requests in flight store "
        f"{results.polite_pairs:,} pairs."
    )
    head = ["server", "bytes a pair", "pairs a second", "p50 ms", "p99 ms", "p99.9 ms", "longest wait ms"]
    lines = []
    for name, filled in results.filled.items():
        polite = results.polite[name]
        waits = (polite.p50, polite.p99, polite.p999, polite.longest)
        lines.append(
            [
                KINDS[name].title,
                _number(filled.bytes_per_pair),
                _number(filled.per_second),
                *(_number(wait, ".2f") for wait in waits),
            ]
        )
    return f"{text}\n\n{table(head, lines)}"


# Charts.


def draw(results: Results, directory: Path) -> list[tuple[str, str]]:
    """Draw the charts, if matplotlib is there.

    :return: the names of their files, and what they show.
    """
    try:
        import matplotlib as mpl
        import matplotlib.pyplot as plt
    except ImportError:
        print("There is no matplotlib: no charts are drawn.")
        return []
    mpl.use("svg")
    # Text stays text, so the files are small; and the same figures give the same file.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "kvd", "font.size": 9})
    charts = []
    for name, title, make in (
        ("performance-rates.svg", "Requests a second, values of 3 bytes, 50 clients", _draw_rates),
        ("performance-ratios.svg", "How many times as many requests a second as Redis", _draw_ratios),
    ):
        figure = make(plt, results)
        if figure is not None:
            figure.savefig(directory / name, bbox_inches="tight", metadata={"Date": None, "Creator": None})
            plt.close(figure)
            charts.append((name, title))
    return charts


def _draw_rates(plt: Any, results: Results) -> Any:
    """Dots: a line for each row, a dot for each server."""
    rows = [each for each in results.rows if each.row.clients == 50 and each.row.value == 3]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    for name in _names(results):
        rates = [each.median(name) or None for each in rows]
        axes.plot(rates, range(len(rows)), "o", markersize=8, label=KINDS[name].title, color=COLOURS[name])
    titles = [each.row.kind if each.row.kind == "transaction" else _short(each.row) for each in rows]
    axes.set_yticks(range(len(rows)), titles)
    axes.set_xscale("log")
    axes.set_xlabel("requests a second")
    axes.grid(axis="both", which="major", linewidth=0.4)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _short(row: Row) -> str:
    return f"{row.kind.upper()}, {row.depth} in flight"


def _draw_ratios(plt: Any, results: Results) -> Any:
    """Bars: kvd beside Redis, whose speed is the line at 1."""
    ratios = [(row_title(each.row), each.ratio("kvd", "redis")) for each in results.rows]
    known = [(title, ratio) for title, ratio in ratios if ratio is not None]
    if not known:
        return None
    figure, axes = plt.subplots(figsize=(8, 0.22 * len(known) + 0.8))
    bars = axes.barh([title for title, _ in known], [ratio for _, ratio in known], 0.7, color=COLOURS["kvd"])
    axes.bar_label(bars, [f"{ratio:.2f}" for _, ratio in known], padding=2, fontsize=7)
    axes.axvline(1, color=COLOURS["redis"], linewidth=1)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("kvd / Redis")
    return figure
