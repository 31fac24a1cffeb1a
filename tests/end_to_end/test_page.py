"""The page in a real browser: it shows what was measured, and model text that is markup stays
text."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape

import pytest

from bench.files import read_lines, replace_lines
from tests.conftest import bench

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"></script> & </li>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two runs of llava-tiny and llava-tiny-b, with one hostile answer."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("llava-tiny", "llava-tiny-b"):
        done = bench(
            "run",
            "--model",
            name,
            "--suite",
            "pope,chair",
            "--data",
            "scenes",
            "--limit",
            "60",
            "--out",
            folder / name,
        )
        assert done.returncode == 0, done.stderr
    answers = folder / "llava-tiny" / "chair" / "answers.jsonl"
    rows = read_lines(answers)
    rows[0]["text"] = HOSTILE
    rows[1] |= {"finish": "length", "thoughts": f"Is it a dog? {HOSTILE}"}
    replace_lines(answers, rows)
    done = bench(
        "report", folder / "llava-tiny", folder / "llava-tiny-b", "--out", folder / "report"
    )
    assert done.returncode == 0, done.stderr
    return folder / "report" / "index.html"


def dom(page, view):
    """The document after its script ran."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=4000",
        "--dump-dom",
    ]
    command = [BROWSER, *words, f"file://{page}{view}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture
def browser(page):
    """Chromium on the page, driven by its own driver."""
    driver = shutil.which("chromedriver")
    if BROWSER is None or driver is None:
        pytest.skip("no Chromium with its driver here")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(word)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as opened:
        opened.get(f"file://{page}")
        yield opened


def focused(browser) -> str:
    return browser.execute_script("return document.activeElement.getAttribute('aria-label') || ''")


def test_the_keyboard_moves_sorts_links_and_filters(browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        browser.switch_to.active_element.send_keys(*keys)

    button = browser.find_elements(By.CSS_SELECTOR, "#board-table th button")[1]
    button.send_keys(Keys.ENTER)
    heads = browser.find_elements(By.CSS_SELECTOR, "#board-table th")
    assert heads[1].get_attribute("aria-sort") == "descending"
    press(Keys.SPACE)
    heads = browser.find_elements(By.CSS_SELECTOR, "#board-table th")
    assert heads[1].get_attribute("aria-sort") == "ascending", "the button keeps the focus"

    browser.find_element(By.CSS_SELECTOR, "nav a[href='#samples']").send_keys(Keys.ENTER)
    names = [
        item.get_attribute("aria-label")
        for item in browser.find_elements(By.CSS_SELECTOR, "#list > li")
    ]
    for key, expected in (("j", names[0]), ("j", names[1]), ("j", names[2]), ("k", names[1])):
        browser.find_element(By.TAG_NAME, "body").send_keys(key) if not focused(browser) else press(
            key
        )
        assert focused(browser) == expected
    for _ in range(len(names)):
        press("j")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#list > li")) > len(names), (
        "moving on shows more"
    )
    press(Keys.ENTER)
    assert browser.current_url.endswith(f"#samples/chair/{focused(browser)}")
    state = browser.find_element(By.ID, "f-state")
    browser.find_element(By.ID, "f-text").clear()
    state.send_keys("first")
    assert re.fullmatch(r"\d+ of 60 samples", browser.find_element(By.ID, "count").text)
    wrong = browser.find_elements(By.CSS_SELECTOR, "#list > li > .answer:nth-of-type(3)")
    assert all("wrong" in box.get_attribute("class") for box in wrong)


def test_nothing_hostile_ran_and_nothing_is_wider_than_a_narrow_screen(browser, page):
    browser.set_window_size(500, 800)
    for view in ("board", "runs", "samples/chair/"):
        browser.get(f"file://{page}#{view}")
        width, inside = browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert width <= inside
    assert browser.title == "Synth-Align Bench"
    assert [row for row in browser.get_log("browser") if row["level"] == "SEVERE"] == []


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


def test_thoughts_are_folded_and_a_cut_off_answer_says_so(page, browser):
    from selenium.webdriver.common.by import By

    browser.get(f"file://{page}#samples/chair/")
    browser.find_element(By.ID, "f-state").send_keys("cut off")
    assert browser.find_element(By.ID, "count").text == "1 of 60 samples"
    box = browser.find_element(By.CSS_SELECTOR, "#list > li")
    assert "cut off at the token limit" in box.text
    folded = box.find_element(By.TAG_NAME, "details")
    assert "Is it a dog?" not in folded.text
    folded.find_element(By.TAG_NAME, "summary").click()
    assert f"Is it a dog? {HOSTILE}" in folded.text
    assert browser.title == "Synth-Align Bench"


def test_markup_in_an_answer_is_shown_and_does_nothing(page):
    shown = dom(page, "#samples/chair/")
    assert "<title>Synth-Align Bench</title>" in shown
    listed = shown[shown.index('<ol id="list">') : shown.index("</ol>")]
    assert "&lt;script&gt;document.title" in listed
    assert "<script" not in listed
    assert "onerror=" not in re.sub(r">[^<]*<", "><", listed)
    assert HOSTILE.split("</li>")[0] in unescape(listed)
