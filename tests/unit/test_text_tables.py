"""Tables of text: nothing is wider than the terminal, nothing is lost, decimals stand in a line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.text_tables import text_table
from tests.conftest import Terminal, bench

CELL = st.sampled_from(["", "–", "12", "3.50 ±0.22", "100.00 [96.01, 100.00]", "7.25‡"])


@given(
    st.lists(st.lists(CELL, min_size=6, max_size=6), min_size=1, max_size=8), st.integers(40, 200)
)
def test_what_does_not_fit_stands_below_and_nothing_is_lost(cells, width):
    header = ["", *(f"heading {number}" for number in range(6))]
    rows = [header, *([f"row {number}", *row] for number, row in enumerate(cells))]
    lines = text_table(rows, width)
    # The name and one column are the least there can be.
    assert all(len(line) <= max(width, 35) for line in lines)
    text = "\n".join(lines)
    for heading in header[1:]:
        assert text.count(heading) == 1
    for number, row in enumerate(cells):
        shown = "  ".join(line for line in lines if line.startswith(f"row {number} "))
        for cell in row:
            if cell not in ("", "–"):
                assert shown.count(cell) >= row.count(cell)


def test_a_line_parts_rows_even_where_the_first_below_it_is_left_out():
    rows = [["", "a", "b"], ["x", "1", "2"], ["y", "–", "3"], ["z", "4", "–"]]
    assert text_table(rows, 80, (2,)) == [
        "   a  b",
        "───────",
        "x  1  2",
        "───────",
        "y  –  3",
        "z  4  –",
    ]
    assert text_table(rows, 4, (2,)) == [
        *("   a", "────", "x  1", "────", "z  4", ""),
        *("   b", "────", "x  2", "────", "y  3"),
    ]


def test_decimal_points_stand_below_each_other_and_marks_hang():
    rows = [
        ["", "v"],
        ["a", "3.50 ±0.2"],
        ["b", "100.00‡"],
        ["c", "12"],
        ["d", "–"],
        ["e", "-1.25"],
    ]
    assert text_table(rows, 80)[2:] == [
        "a    3.50 ±0.2",
        "b  100.00‡",
        "c   12",
        "d    –",
        "e   -1.25",
    ]


def test_commands_fit_a_terminal_of_80_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    scored = bench(
        *("run", "--model", "llava-tiny", "--suite", "mmhal,amber", "--data", "scenes"),
        *("--limit", "24", "--out", tmp_path / "r"),
        out=Terminal(),
    )
    board = bench("board", tmp_path / "r", "--columns", "mmhal,amber.cover", out=Terminal())
    listed = bench("list", "suites", out=Terminal())
    bench(
        *("run", "--model", "llava-tiny-b", "--suite", "mmhal,amber", "--data", "scenes"),
        *("--limit", "24", "--out", tmp_path / "b"),
    )
    compared = bench("compare", tmp_path / "r", tmp_path / "b", out=Terminal())
    # A pipe has a width only if it is told one.
    piped = bench("board", tmp_path / "r", "--columns", "mmhal,amber.cover")
    assert piped.stdout.splitlines()[0] == board.stdout.splitlines()[0]
    assert " to wrong in " in compared.stdout
    for done in (scored, board, listed, compared):
        assert done.returncode == 0, done.stderr
        wide = [line for line in done.stdout.splitlines() if len(line) > 80]
        # Paths are not broken: they are copied.
        assert [line for line in wide if str(tmp_path) not in line] == []
    assert "Cover" in board.stdout
    assert "POPE" not in board.stdout
    headings = [line for line in scored.stdout.splitlines() if "relation" in line]
    assert headings, "the last subset is shown, though below the others"


def test_a_column_that_the_board_does_not_have_is_refused():
    done = bench("board", "--columns", "pope,mmhall")
    assert done.returncode == 2
    assert "no column 'mmhall'" in done.stderr
    assert "Did you mean 'mmhal'?" in done.stderr
    assert "It has columns of pope" in bench("board", "--columns", "zzzzzz").stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("run --model llava-tiny --suite quik --data scenes", "quick"),
        ("run --model LLAVA-TINY --suite pope --data scenes", "llava-tiny"),
        ("board --columns POPE", "pope"),
        ("align scenes-tny", "scenes-tiny"),
        ("list RUNS", "runs"),
    ],
)
def test_whatever_is_named_wrongly_has_a_nearest_name(words, meant):
    done = bench(*words.split())
    assert done.returncode == 2 and f"Did you mean '{meant}'?" in done.stderr


def test_recipes_are_listed_with_whole_sentences():
    rows = json.loads(bench("list", "recipes", "--json").stdout)["recipes"]
    assert len(rows) > 3 and all(row["what"].endswith(".") for row in rows)


def test_a_name_in_other_case_is_recognised():
    done = bench("run", "--model", "llava-tiny", "--suite", "POPE", "--data", "scenes")
    assert done.returncode == 2
    assert "Did you mean 'pope'?" in done.stderr
