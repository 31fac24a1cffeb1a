"""The page in a real browser: it shows what was measured, and model text that is markup stays
text."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape

import pytest

from bench.files import read_lines, replace_lines
from tests.chromium import chromium
from tests.conftest import bench
from tests.recorded_runs import sealed

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
    sealed(answers.parent)
    done = bench(
        "report", folder / "llava-tiny", folder / "llava-tiny-b", "--out", folder / "report"
    )
    assert done.returncode == 0, done.stderr
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def chromium_of_the_module():
    with chromium() as started:
        yield started


@pytest.fixture
def browser(chromium_of_the_module):
    """Chromium, driven by its own driver; as wide and as light in every test."""
    yield chromium_of_the_module
    chromium_of_the_module.set_window_size(1200, 900)
    chromium_of_the_module.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def focused(browser) -> str:
    return browser.execute_script("return document.activeElement.getAttribute('aria-label') || ''")


def opened(browser, page, view):
    """The page anew: a hash alone would keep its filters. Returns the document after its script ran."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get(f"file://{page}#{view}")
    # Once in a while the driver comes back before the page is there.
    shown = "return document.title && document.readyState == 'complete' && document.documentElement.outerHTML"
    return WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(shown))


def find(browser, selector):
    from selenium.webdriver.common.by import By

    return browser.find_element(By.CSS_SELECTOR, selector)


def find_all(browser, selector):
    from selenium.webdriver.common.by import By

    return browser.find_elements(By.CSS_SELECTOR, selector)


def test_the_first_view_is_the_verdict_with_links_to_what_flipped(browser, page):
    opened(browser, page, "")
    assert find(browser, "h2").text == "llava-tiny on scenes → llava-tiny-b on scenes"
    lead = find(browser, ".lead").text
    better, worse, noise = map(
        int, re.search(r"(\d+) better, (\d+) worse, (\d+) no", lead).groups()
    )
    visible_verdicts = []
    for row in find_all(browser, ".effects tbody tr"):
        if row.is_displayed():
            visible_verdicts.append(find(row, ".said").text)
    counts = (visible_verdicts.count("better"), visible_verdicts.count("worse"))
    assert counts == (better, worse), "none of them is hidden"
    find(browser, "#view-verdict button").click()  # the figures that the board leaves out
    verdicts = [cell.text for cell in find_all(browser, ".effects tbody tr:not(.axis) .said")]
    assert [verdicts.count(word) for word in ("better", "worse", "noise")] == [better, worse, noise]
    # CHAIRs falls from llava-tiny to llava-tiny-b, which is better, and so drawn on the right.
    row = next(row for row in find_all(browser, ".effects tr") if row.text.startswith("CHAIRs"))
    assert float(row.text.split()[3].replace("−", "-")) < 0
    point = find(row, "svg .point")
    assert float(point.get_attribute("cx")) > 160
    link = find(browser, ".flips a[href^='#samples/chair//better/']")
    count = int(link.text.split()[0])
    link.click()
    assert find(browser, "#count").text == f"{count} of 60 samples"
    boxes = find_all(browser, "#list .answer:nth-of-type(2) .who b")
    assert {box.text for box in boxes} == {"right"}


def test_the_samples_open_on_what_flipped_to_wrong(browser, page):
    opened(browser, page, "samples/pope")
    assert find(browser, "#f-state").get_attribute("value") == "worse"
    states = [box.text for box in find_all(browser, "#list .answer .who b")]
    assert states == ["right", "wrong"] * (len(states) // 2)
    assert states


def test_a_picture_is_enlarged_by_keyboard_and_closed_again(browser, page):
    from selenium.webdriver.common.keys import Keys

    opened(browser, page, "samples/pope")
    find_all(browser, "#list > li")[0].send_keys(Keys.ENTER)
    image = find(browser, "#enlarged-image")
    width = browser.execute_async_script(
        "const [image, done] = arguments;"
        "image.complete ? done(image.naturalWidth) : (image.onload = () => done(image.naturalWidth));",
        image,
    )
    assert image.is_displayed()
    assert re.search(r"/images/\d+\.jpg$", image.get_attribute("src"))
    assert width == 128, "it was loaded"
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not image.is_displayed()


def test_a_hallucinated_word_is_marked_and_named(browser, page):
    opened(browser, page, "samples/chair//wrong")
    box = find(browser, "#list .answer.wrong")
    word = find(box, "mark").text
    named = next(line for line in box.text.splitlines() if line.startswith("not in the image: "))
    assert word in named


def test_a_run_tells_how_it_was_run(browser, page):
    opened(browser, page, "runs")
    folded = find(browser, "#run-tables details details")
    find(folded, "summary").click()
    terms = [term.text for term in find_all(folded, "dt")]
    assert {"created", "model.weights_sha256", "model.protocol.name"} <= set(terms)
    assert "environment.packages.transformers" in terms


VIEWS = ("verdict", "samples/chair", "board", "runs")


def faults_of_axe(browser):
    """What axe-core finds in the view that is open."""
    axe = pytest.importorskip("axe_core_python.base").AXE_SCRIPT
    browser.execute_script(axe)
    result = browser.execute_async_script("axe.run().then(arguments[0])")
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in result["violations"]]


@pytest.mark.parametrize(("scheme", "views"), [("light", VIEWS), ("dark", VIEWS[:2])])
def test_it_is_accessible(browser, page, scheme, views):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    for view in views:
        opened(browser, page, view)
        assert faults_of_axe(browser) == []


def test_a_model_with_fewer_samples_is_set_beside_what_the_first_has_on_these(browser, page):
    runs = page.parents[1]
    words = ("--suite", "chair", "--data", "scenes", "--limit", "20", "--name", "few")
    done = bench("run", "--model", "llava-tiny-b", *words, "--out", runs / "few")
    assert done.returncode == 0, done.stderr
    hallucinated = {}
    for row in read_lines(runs / "llava-tiny" / "chair" / "scores.jsonl"):
        hallucinated[row["sample"]] = bool(row["values"]["hallucinated"])
    shared = [row["sample"] for row in read_lines(runs / "few" / "chair" / "scores.jsonl")]
    rate_on_all = 100 * sum(hallucinated.values()) / len(hallucinated)
    rate_on_shared = 100 * sum(hallucinated[sample] for sample in shared) / len(shared)
    assert rate_on_shared != rate_on_all
    folders = [runs / name for name in ("llava-tiny", "llava-tiny-b", "few")]
    done = bench("report", *folders, "--out", runs / "beside-few")
    assert done.returncode == 0, done.stderr
    opened(browser, runs / "beside-few" / "index.html", "")
    (row,) = [
        row for row in find_all(browser, ".models tbody tr") if find(row, "td").text == "CHAIRs"
    ]
    _, first, same, _, fewer, difference = [cell.text for cell in find_all(row, "td")]
    assert first == f"{rate_on_all:.2f}"
    assert "from" not in same
    assert fewer.endswith(f"from {rate_on_shared:.2f}")
    assert "[" in difference, "its interval is seen"


def test_several_models_stand_side_by_side_and_each_links_to_its_own_samples(browser, page):
    runs = page.parents[1]
    if not (runs / "third").exists():
        shutil.copytree(runs / "llava-tiny-b", runs / "third")
        for record in (runs / "third").rglob("run.json"):
            record.write_text(json.dumps(json.loads(record.read_text()) | {"name": "third"}))
            sealed(record.parent)
    folders = [runs / name for name in ("llava-tiny", "llava-tiny-b", "third")]
    done = bench("report", *folders, "--out", runs / "three")
    assert done.returncode == 0, done.stderr
    several = runs / "three" / "index.html"
    opened(browser, several, "")
    assert find(browser, "h2").text == "llava-tiny on scenes → 2 others"
    heads = [head.text for head in find_all(browser, ".models th")]
    assert heads[1:] == ["llava-tiny on scenes", "llava-tiny-b on scenes", "third on scenes"]
    marks = {"▲": 0, "▼": 0}
    for row in find_all(browser, ".models tbody tr"):
        cells = [cell.text for cell in find_all(row, "td")]
        if row.is_displayed():
            assert cells[2:4] == cells[4:6], "the third's answers are the second's"
            for mark in marks:
                marks[mark] += mark in cells[3]
    found = re.search(r"(\d+) better, (\d+) worse", find(browser, "details.verdict summary").text)
    assert tuple(marks.values()) == (int(found[1]), int(found[2])), "what is no noise is seen"
    assert faults_of_axe(browser) == []
    last = find_all(browser, "details.verdict")[-1]
    find(last, "summary").click()
    find(last, ".flips a[href*='chair']").click()
    chosen = browser.execute_script(
        "return document.getElementById('f-second').selectedOptions[0].text"
    )
    assert chosen == "third on scenes"
    browser.set_window_size(500, 800)
    opened(browser, several, "")
    width, inside = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width <= inside


def test_the_keyboard_moves_sorts_and_filters(browser, page):
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        browser.switch_to.active_element.send_keys(*keys)

    opened(browser, page, "board")
    find_all(browser, "#board-table th button")[1].send_keys(Keys.ENTER)
    assert find_all(browser, "#board-table th")[1].get_attribute("aria-sort") == "descending"
    press(Keys.SPACE)
    heads = find_all(browser, "#board-table th")
    assert heads[1].get_attribute("aria-sort") == "ascending", "the button keeps the focus"

    find(browser, "nav a[href='#samples']").send_keys(Keys.ENTER)
    find(browser, "#f-state").send_keys("all")
    names = [item.get_attribute("aria-label") for item in find_all(browser, "#list > li")]
    assert len(names) == 40
    browser.execute_script("document.activeElement.blur()")
    for key, expected in (("j", names[0]), ("j", names[1]), ("j", names[2]), ("k", names[1])):
        find(browser, "body").send_keys(key) if not focused(browser) else press(key)
        assert focused(browser) == expected
    for _ in range(len(names)):
        press("j")
    assert len(find_all(browser, "#list > li")) == 60, "moving on shows more"
    find(browser, "#f-state").send_keys("wrong")
    assert re.fullmatch(r"\d+ of 60 samples", find(browser, "#count").text)
    states = [box.text for box in find_all(browser, "#list .answer:nth-of-type(1) .who b")]
    assert set(states) == {"wrong"}


def test_nothing_hostile_ran_and_nothing_is_wider_than_a_narrow_screen(browser, page):
    browser.set_window_size(500, 800)
    for view in ("verdict", "board", "runs", "samples/chair//all"):
        opened(browser, page, view)
        width, inside = browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert width <= inside, view
    assert browser.title == "Synth-Align Bench"
    assert [row for row in browser.get_log("browser") if row["level"] == "SEVERE"] == []


def test_it_is_one_file_that_loads_nothing(page):
    text = page.read_text()
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert text.count("<script") == 2
    assert text.count("</script>") == 2


def test_the_board_shows_runs_and_published_rows(browser, page):
    shown = opened(browser, page, "board")
    assert "llava-tiny-b on scenes" in shown
    assert "LLaVA-1.5-7B + PDS-DPO" in shown
    assert 'aria-sort="none"' in shown


def test_samples_stand_side_by_side_and_a_link_leads_to_one(browser, page):
    shown = opened(browser, page, "samples/pope/random%2F1")
    assert "samples" in re.search(r'id="count"[^>]*>([^<]*)', shown)[1]
    assert 'aria-label="random/1"' in shown
    box = re.search(r'<li class="sample"[^>]*aria-label="random/1".*?</li>', shown, re.DOTALL)[0]
    assert len(re.findall('class="answer[ "]', box)) == 2
    assert "P(yes)" in box
    assert "data:image/jpeg;base64," in box


def test_thoughts_are_folded_and_a_cut_off_answer_says_so(page, browser):
    opened(browser, page, "samples/chair//unended")
    assert find(browser, "#count").text == "1 of 60 samples"
    box = find(browser, "#list > li")
    assert "cut off at the token limit" in box.text
    folded = find(box, "details")
    assert "Is it a dog?" not in folded.text
    find(folded, "summary").click()
    assert f"Is it a dog? {HOSTILE}" in folded.text
    assert browser.title == "Synth-Align Bench"


def test_markup_in_an_answer_is_shown_and_does_nothing(browser, page):
    shown = opened(browser, page, "samples/chair//all")
    assert "<title>Synth-Align Bench</title>" in shown
    listed = shown[shown.index('<ol id="list">') : shown.rindex("</ol>")]
    assert "&lt;script&gt;document.title" in listed
    assert "<script" not in listed
    assert "onerror=" not in re.sub(r">[^<]*<", "><", listed)
    assert HOSTILE.split("</li>")[0] in unescape(listed)
