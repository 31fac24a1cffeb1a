"""Files of others that are nearly right, each of a kind that once ended in a traceback."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from typing import cast

import pytest

from alignment.rows import ImageRow
from alignment.settings import RecipeError
from alignment.stages import prompts
from alignment.stages.prompts import FilePrompts
from alignment.training.settings import Training
from alignment.training.trainer import train
from bench.errors import DataError, StoreError
from bench.files import (
    append_lines,
    check_types,
    folder_of_its_own,
    read_lines,
    read_rows,
    read_text,
    write_json,
)
from bench.runs.run import Run
from bench.runs.seal import with_digest
from bench.runs.store import RunFolder
from tests.conftest import bench
from tests.end_to_end.test_judging import tiny_judge
from tests.faults.test_kills import changes_of, killed_at
from tests.recorded_runs import metric_row, record_of, score_row, write_run
from tests.tiny_pipelines import image_row

FIELDS = {"id": str | int, "image": str, "names": list[str]}
ROW = {"id": 1, "image": "a.png", "names": ["dog"], "more": 2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": ["a"]}, "image of 2 is ['a']"),
        ({"image": None}, "item 2 has no image"),
        ({"names": "dog"}, "names of 2 is 'dog'"),
        ({"names": ["dog", 1.5]}, "2 of names of 2 is 1.5"),
        ({"id": True}, "of id of 2 is True"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_item(tmp_path, change, words):
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW | change)}\n")
    with pytest.raises(DataError) as raised:
        read_rows(file, FIELDS)
    assert words in str(raised.value)


def test_rows_keep_what_no_field_names_and_half_a_character_becomes_a_mark(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('[{"id": "x", "image": "a\\ud800.png", "names": [], "more": {"\\udfff": 1}}]')
    (row,) = read_rows(file, FIELDS)
    assert row == {"id": "x", "image": "a?.png", "names": [], "more": {"?": 1}}


def test_what_is_no_utf_8_is_told(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("käse".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read"):
        read_text(file)
    file.write_bytes("käse".encode("utf-8-sig"))
    assert read_text(file) == "käse"


def test_a_place_in_a_whole_is_named(tmp_path):
    with pytest.raises(DataError) as raised:
        check_types(dict[str, list[int]], {"1": [0, "x"]}, tmp_path / "truth.json")
    assert "2 of 1 is 'x'" in raised.value.reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chair/coco2014_chair_gt__wordnet_pos_lemma.json", {"categories": [3.5], "images": {}}),
        (
            "chair/coco2014_chair_gt__wordnet_pos_lemma.json",
            {"categories": [], "images": {"1": [9]}},
        ),
        ("amber/relation.json", {"dog": [["puppy"]]}),
        ("amber/relation.json", [1]),
        ("amber/annotations.json", [{"id": [], "type": "x", "truth": "yes"}]),
        ("amber/annotations.json", [{"id": 1, "type": {}, "truth": "yes"}]),
        ("mmhal/mmhal-bench_answer_template.json", [{"image_id": {}}]),
        ("hallusionbench/HallusionBench.json", [{"category": ["VD"]}]),
    ],
)
def test_question_files_of_another_shape_are_refused(small_world, name, content):
    file = small_world / name
    before = file.read_bytes()
    file.write_text(json.dumps(content))
    done = bench("data", "check", small_world)
    file.write_bytes(before)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "fault of synth-align" not in done.stderr


IMAGE_ROW = image_row("1", "a.png")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": {"x": 1}}, "file of 2 is"),
        ({"instructions": "Describe."}, "instructions of 2 is 'Describe.'"),
        ({"candidates": None}, "candidates of 2 is None"),
    ],
)
def test_a_row_of_a_stage_that_was_changed_is_named_with_its_place(tmp_path, change, words):
    file = tmp_path / "images.jsonl"
    append_lines(file, [IMAGE_ROW, {**IMAGE_ROW, "id": "2", **change}])
    with pytest.raises(StoreError) as raised:
        read_lines(file, ImageRow)
    assert words in raised.value.reason and str(file) in raised.value.fact
    append_lines(tmp_path / "more.jsonl", [{**IMAGE_ROW, "more": 1}])
    assert read_lines(tmp_path / "more.jsonl", ImageRow) == [{**IMAGE_ROW, "more": 1}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": "x"}, "max_tokens is 'x'"),
        ({"created": "yesterday"}, "created is 'yesterday'"),
        ({"sessions": [{"answers": "1", "software": {}}]}, "answers of 1 of sessions is '1'"),
        ({"recorded": {"rows": 9, "unmatched": {"count": []}}}, "count of unmatched of recorded"),
        ({"subsets": "random"}, "subsets is 'random'"),
        ({"judge": {"kind": "grounding", "models": ["m"]}}, "1 of models"),
        ({"judge": {"kind": ["scene"]}}, "kind"),
    ],
)
def test_a_part_of_a_record_of_another_type_is_named(tmp_path, change, words):
    run = write_run(tmp_path / "run", record_of("m", **change), [score_row("1", "1", correct=True)])
    with pytest.raises(StoreError) as raised:
        _ = Run(run).record
    assert words in raised.value.reason


@pytest.mark.parametrize(
    "wrong", [{"correct": [1]}, {"label": "yes"}, {"correct": True, "p_yes": 2}]
)
def test_scores_that_give_no_figure_are_left_out_and_others_shown(tmp_path, wrong):
    """As an editor's, whose digests are right, or another program's."""
    rows = []
    for number in range(4):
        values = {"correct": True, "answer": "yes", "label": "yes", "p_yes": None}
        rows.append(score_row(str(number), str(number), **values))
    write_run(tmp_path / "good", record_of("good"), rows, [metric_row("accuracy", "mean", 1.0)])
    bad = [*rows[:3], {**rows[3], "values": {**rows[3]["values"], **wrong}}]
    if "correct" not in wrong:
        del bad[3]["values"]["answer"]
    write_run(tmp_path / "bad", record_of("bad"), bad, [metric_row("accuracy", "mean", 1.0)])
    done = bench("board", tmp_path / "good", tmp_path / "bad")
    told = done.stdout + done.stderr
    assert done.returncode == 0 and "good" in done.stdout, done.stderr
    assert "bad was left out" in told and "good was left out" not in told
    done = bench("compare", tmp_path / "good", tmp_path / "bad")
    assert done.returncode == 2 and "scores.jsonl is not as it was written" in done.stderr


def test_a_description_that_cannot_be_recorded_is_told_before_anything_is_asked(tmp_path):
    """A model of another package may describe itself as it likes."""
    store = RunFolder(tmp_path / "run")
    store.path.mkdir()
    with pytest.raises(StoreError, match="cannot be recorded") as raised:
        store.begin(record_of("m", model={"name": "m", "protocol": "mine"}))
    assert "protocol of model is 'mine'" in raised.value.reason
    assert not store.record_file.exists()


def test_digests_without_a_size_are_told(tmp_path):
    run = write_run(tmp_path / "run", record_of("m"), [score_row("1", "1", correct=True)])
    file = run / "metrics.json"
    content = json.loads(file.read_text())
    content["files"]["run.json"] = {"sha256": content["files"]["run.json"]["sha256"]}
    write_json(file, with_digest({key: content[key] for key in ("files", "metrics")}))
    with pytest.raises(StoreError, match=r"Field required: bytes of run\.json of files"):
        Run(run).store.metrics()


def test_prompts_are_cut_at_line_ends_alone(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a\u2028dog", "instructions": ["Describe it."]}\na cat\u2028\n')
    settings = FilePrompts(kind="file", path=file, instructions=["What is it?"])
    prompts.run(settings, {}, tmp_path, 0)
    rows = read_lines(tmp_path / "prompts.jsonl")
    assert [row["prompt"] for row in rows] == ["a\u2028dog", "a cat"]


def test_a_reference_that_is_no_number_is_told(small_world, tmp_path):
    data = shutil.copytree(small_world, tmp_path / "data")
    file = data / "amber" / "annotations.json"
    rows = json.loads(file.read_text())
    rows[0]["truth"] = [*rows[0]["truth"], float("nan")] if "truth" in rows[0] else float("nan")
    file.write_text(json.dumps(rows))
    words = ("--suite", "amber", "--data", data, "--out", tmp_path / "run")
    done = bench("run", "--model", "llava-tiny", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(file) in done.stderr or "a number that is none" in done.stderr


def test_counts_of_a_training_that_are_none_are_told(tmp_path):
    (tmp_path / "trained.json").write_text('{"steps": 4}')
    with pytest.raises(StoreError, match="Field required: pairs"):
        train(cast(Training, None), {}, tmp_path, 0)


def test_a_network_that_fails_on_what_its_processor_makes_is_told(tiny, small_world, tmp_path):
    folder = shutil.copytree(tiny("mllama"), tmp_path / "mllama")
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"]["size"] = {"height": 112, "width": 112}
    file.write_text(json.dumps(content))
    suite = ("--suite", "pope", "--data", small_world, "--limit", 2, "--out", tmp_path / "run")
    done = bench("run", "--model", folder, *suite)
    assert done.returncode == 2 and "The network's own code ends in RuntimeError" in done.stderr


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "d"
    assert bench("data", "scenes", "--n", "4", "--out", folder).returncode == 0
    return folder


def test_a_folder_that_was_left_unfinished_is_written_again_by_the_same_command_only(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), folder_of_its_own(out, "scenes 1", print):
        (out / "half.png").write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(StoreError, match="not empty"), folder_of_its_own(out, "scenes 2", print):
        pass
    with folder_of_its_own(out, "scenes 1", print):
        assert not (out / "half.png").exists()
        (out / "whole.png").write_text("whole")
    assert [file.name for file in out.iterdir()] == ["whole.png"]
    with pytest.raises(StoreError, match="not empty"), folder_of_its_own(out, "scenes 1", print):
        pass


def test_half_a_mark_of_a_full_disk_blocks_no_folder_and_is_not_another_commands(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".unfinished").write_text("scen")
    with folder_of_its_own(out, "scenes 12", print):
        pass
    (out / ".unfinished").write_text("scenes 1\n")
    with pytest.raises(StoreError, match="not empty"), folder_of_its_own(out, "scenes 12", print):
        pass


def test_a_kill_before_any_change_of_a_folder_blocks_it_for_nobody(tmp_path):
    out = tmp_path / "out"

    def write() -> None:
        with folder_of_its_own(out, "scenes 1", print):
            (out / "whole.png").write_text("whole")

    changes = changes_of(write, out)
    assert changes > 3
    for at in range(changes):
        shutil.rmtree(out, ignore_errors=True)
        assert killed_at(write, out, at).code == -signal.SIGKILL
        write()
        assert [file.name for file in out.iterdir()] == ["whole.png"], at


def test_two_processes_do_not_write_one_folder(tmp_path):
    out, outcomes = tmp_path / "out", []

    def write(number):
        try:
            with folder_of_its_own(out, "scenes 1", print):
                (out / "whole.png").write_text(str(number))
                time.sleep(0.3)
        except StoreError as error:
            outcomes.append(error.fact)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [f"{out} is not empty."] * 2
    assert [file.name for file in out.iterdir()] == ["whole.png"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a dog", "image": True, "instructions": ["Describe it."]},
        {"prompt": "a dog", "instructions": ["Describe it.", 3]},
        {"prompt": "a dog", "instructions": "Describe it."},
    ],
)
def test_a_prompt_of_another_shape_is_named_with_its_line(tmp_path, row):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f"a cat\n{json.dumps(row)}\n")
    settings = FilePrompts(kind="file", path=file, instructions=["Describe it."])
    with pytest.raises(RecipeError, match="is broken in line 2"):
        prompts.run(settings, {}, tmp_path, 0)


@pytest.mark.parametrize("content", [[], 1.5, {"inputs": "x"}, {"inputs": {}, "sha256": 1}])
def test_a_damaged_manifest_of_pairs_is_told(tmp_path, content):
    pair = {"image": "a.png", "instruction": "q", "chosen": "a", "rejected": "b"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    done = bench("data", "pairs", tmp_path, "--out", tmp_path / "out.json")
    assert done.returncode == 2 and "manifest.json is not as it was written" in done.stderr


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("chat_template.jinja", "{# nothing #}", "it writes nothing"),
        ("tokenizer_config.json", {"pad_token": "</nowhere>"}, "cannot be asked"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_told(small_world, tmp_path, name, change, words):
    judge = tiny_judge(tmp_path / "judge")
    file = judge / name
    if isinstance(change, dict):
        change = json.dumps(json.loads(file.read_text()) | change)
    file.write_text(change)
    suite = ("--suite", "mmhal", "--data", small_world, "--limit", 2, "--out", tmp_path / "run")
    done = bench("run", "--model", "llava-tiny", *suite, "--judge", f"hf:{judge}")
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert (tmp_path / "run" / "mmhal" / "answers.jsonl").stat().st_size, "the answers are kept"
