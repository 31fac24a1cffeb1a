"""The page in a real browser: it shows what was measured, and model text that is markup stays text."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape

import pytest

from bench.store import read_lines, replace_lines
from tests.conftest import bench

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"></script> & </li>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two runs of llava-tiny and llava-tiny-b, with one hostile answer."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("llava-tiny", "llava-tiny-b"):
        done = bench("run", "--model", name, "--suite", "pope,chair", "--data", "scenes", "--limit", "60",
                     "--out", folder / name)  # fmt: skip
        assert done.returncode == 0, done.stderr
    answers = folder / "llava-tiny" / "chair" / "answers.jsonl"
    rows = read_lines(answers)
    rows[0]["text"] = HOSTILE
    replace_lines(answers, rows)
    done = bench("report", folder / "llava-tiny", folder / "llava-tiny-b", "--out", folder / "report")
    assert done.returncode == 0, done.stderr
    return folder / "report" / "index.html"


def dom(page, view):
    """The document after its script ran."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    command = [BROWSER, *words, f"file://{page}{view}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_it_is_one_file_that_loads_nothing(page):
    text = page.read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert text.count("<script") == 2
    assert text.count("</script>") == 2


def test_the_board_shows_runs_and_published_rows(page):
    shown = dom(page, "#board")
    assert "llava-tiny-b on scenes" in shown
    assert "LLaVA-1.5-7B + PDS-DPO" in shown
    assert 'aria-sort="none"' in shown


def test_samples_stand_side_by_side_and_a_link_leads_to_one(page):
    shown = dom(page, "#samples/pope/random%2F1")
    assert "samples" in re.search(r'id="count"[^>]*>([^<]*)', shown)[1]
    assert 'aria-label="random/1"' in shown
    box = re.search(r'<li class="sample"[^>]*aria-label="random/1".*?</li>', shown, re.DOTALL)[0]
    assert box.count('class="answer') == 2
    assert "P(yes)" in box
    assert "data:image/jpeg;base64," in box


def test_markup_in_an_answer_is_shown_and_does_nothing(page):
    shown = dom(page, "#samples/chair/")
    assert "<title>Synth-Align Bench</title>" in shown
    listed = shown[shown.index('<ol id="list">') : shown.index("</ol>")]
    assert "&lt;script&gt;document.title" in listed
    assert "<script" not in listed
    assert "onerror=" not in re.sub(r">[^<]*<", "><", listed)
    assert HOSTILE.split("</li>")[0] in unescape(listed)
