"""The stages between prompts and training, on made-up responses: rewards, pairs, recipes."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from PIL import Image

from alignment import pipeline
from alignment.recipe import check_comparable, read_recipe
from alignment.rewards.grounding import WORST, FactsReward, value
from alignment.rewards.reward import Reward, Rewarded
from alignment.settings import RecipeError
from alignment.stages import evaluate, images, preferences, rewards
from alignment.stages.images import FolderImages
from alignment.stages.preferences import Preferences
from bench.benchmarks.chair import caption_values
from bench.errors import BenchError
from bench.files import append_lines, read_lines, write_json
from bench.language.english import NUMBERS, plural
from bench.language.object_mentions import read_synonyms
from bench.runs.run import Run
from bench.scenes.facts import scene_of, synonym_lines
from tests.conftest import ROOT
from tests.recorded_runs import record_of, score_row, write_run
from tests.tiny_pipelines import image_row, response_row

SYNONYMS = read_synonyms(synonym_lines())
GOOD = (ROOT / "alignment" / "recipes" / "scenes-tiny.yaml").read_text()


def test_an_assertion_is_worth_what_the_picture_says():
    assert value(0.8, 0.8) == 0
    assert value(1.0, 0.8) == pytest.approx(1)
    assert value(0.6, 0.8) == pytest.approx(-1)
    assert value(0.0, 0.8) == WORST
    assert math.isnan(value(math.nan, 0.8))


def groups(*texts_and_rewards):
    return [
        [{"text": t, "reward": r, "words": len(t.split())} for t, r in group]
        for group in texts_and_rewards
    ]


def test_a_number_counts_as_much_as_the_recipe_says(tmp_path):
    name, thing, there = "scene_train_0_000004.png", "bird", 2
    assert scene_of(name).counts[thing] == there
    texts = {str(number): f"{NUMBERS[number]} {plural(thing)}" for number in (there, there + 1)}
    for stage, rows in (
        ("images", [image_row("0", name)]),
        ("responses", [response_row(key, "Describe.", text) for key, text in texts.items()]),
    ):
        (tmp_path / stage).mkdir()
        append_lines(tmp_path / stage / f"{stage}.jsonl", rows)
    inputs = {stage: tmp_path / stage for stage in ("images", "responses")}
    for weight in (1.0, 0.25):
        out = tmp_path / str(weight)
        out.mkdir()
        rewards.run(FactsReward(kind="facts", threshold=0.5, numbers=weight), inputs, out, 0)
        assert [row["reward"] for row in read_lines(out / "rewards.jsonl")] == [
            1 + weight,
            1 - weight,
        ]


def test_best_and_worst_are_paired_where_they_are_far_enough_apart():
    best_and_worst = preferences.pairs(
        groups([("a", 1.0), ("b c", 0.0), ("d", 0.5)], [("e", 0.2), ("f", 0.1)]), [0, 0], 0.3
    )
    assert [(better["text"], worse["text"]) for better, worse in best_and_worst] == [("a", "b c")]


def test_a_price_per_word_takes_the_length_bias_away_from_long_and_short_responses_alike():
    rng = random.Random(0)
    responses = []
    for number in range(400):
        short = number % 2  # here the better ones are longer, among the long ones they are shorter
        lengths = [rng.randint(1, 5) if short else rng.randint(10, 20) for _ in range(6)]
        responses.append(
            [("w " * n, (0.4 if short else -0.2) * n + rng.gauss(0, 1)) for n in lengths]
        )
    candidates = groups(*responses)
    free = preferences.pairs(candidates, [0.0] * 400, 0.0)
    priced = preferences.pairs(candidates, preferences.balancing_prices(candidates, 0.0), 0.0)
    for long in (False, True):
        before, after = (
            [p for p in selected if (p[0]["words"] >= 10) == long] for selected in (free, priced)
        )
        assert abs(preferences.length_bias(before)) > 1.5
        assert abs(preferences.length_bias(after)) < 0.3


def stage(tmp_path: Path, texts: list[tuple[str, float, str]], instructions: int = 1, **settings):
    """Pairs of responses with rewards and finish reasons, each given to every instruction."""
    for name in ("images", "responses", "rewards"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "out").mkdir(exist_ok=True)
    append_lines(tmp_path / "images" / "images.jsonl", [image_row("0", "images/0.png")])
    keyed = [(f"{i}/{n}", *row) for i in range(instructions) for n, row in enumerate(texts)]
    rows = [response_row(k, f"{k.partition('/')[0]}?", t, f) for k, t, _, f in keyed]
    append_lines(tmp_path / "responses" / "responses.jsonl", rows)
    append_lines(
        tmp_path / "rewards" / "rewards.jsonl",
        [{"key": k, "reward": r, "doubtful": []} for k, _, r, _ in keyed],
    )
    inputs = {name: tmp_path / name for name in ("images", "responses", "rewards")}
    counts = preferences.run(Preferences(**settings), inputs, tmp_path / "out", 0)
    return counts, read_lines(tmp_path / "out" / "pairs.jsonl")


def test_empty_truncated_and_repeated_responses_are_dropped_and_counted(tmp_path):
    texts = [
        ("A dog.", 1.0, "stop"),
        ("a dog", 1.0, "stop"),
        ("", 2.0, "stop"),
        ("A cat and", -3.0, "length"),
    ]
    counts, pairs = stage(tmp_path, [*texts, ("A cow.", 0.0, "stop")])
    assert (counts["empty"], counts["truncated"], counts["duplicate"], counts["pairs"]) == (
        1,
        1,
        1,
        1,
    )
    assert (pairs[0]["chosen"], pairs[0]["rejected"]) == ("A dog.", "A cow.")


def test_random_pairs_know_nothing_of_the_rewards(tmp_path):
    texts = [("A dog.", 2.0, "stop"), ("A cat.", 1.0, "stop"), ("A cow.", 0.0, "stop")]
    counts, pairs = stage(tmp_path, texts, instructions=600, pick="random", margin=5.0)
    assert counts["pairs"] == 600 and counts["prices_per_word"] == [0.0]
    drawn = Counter((pair["chosen"], pair["rejected"]) for pair in pairs)
    assert len(drawn) == 6, "every two of three, both ways"
    assert all(70 < count < 130 for count in drawn.values()), drawn
    assert abs(counts["mean_margin"]) < 0.2


class NotANumber(Reward):
    """A reward that fails at the second response."""

    kind: str = "nan"

    def rewards(self, responses, images, out):
        yield [Rewarded(responses[0], 1.0, [])]
        yield [Rewarded(responses[1], math.nan, [])]


def test_a_reward_that_is_no_number_is_told_and_those_before_it_are_kept(tmp_path):
    for name in ("images", "responses", "out"):
        (tmp_path / name).mkdir()
    append_lines(tmp_path / "images" / "images.jsonl", [image_row("0", "x.png")])
    rows = [response_row(str(number), "?", "A dog.") for number in range(3)]
    append_lines(tmp_path / "responses" / "responses.jsonl", rows)
    inputs = {name: tmp_path / name for name in ("images", "responses")}
    with pytest.raises(BenchError, match="The reward of response 1 is not a number"):
        rewards.run(NotANumber(), inputs, tmp_path / "out", 0)
    assert [row["key"] for row in read_lines(tmp_path / "out" / "rewards.jsonl")] == ["0"]


def test_a_recipes_paths_count_from_its_folder_and_do_not_decide_what_is_made(
    tmp_path, monkeypatch
):
    content = yaml.safe_load((ROOT / "alignment" / "recipes" / "scenes-tiny.yaml").read_text())
    content["prompts"] = {"kind": "file", "path": "prompts.jsonl", "instructions": ["What is it?"]}
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.yaml").write_text(yaml.safe_dump(content))
        (tmp_path / name / "prompts.jsonl").write_text("a dog\n")
    monkeypatch.chdir(tmp_path)
    first, second = (read_recipe(Path(name) / "r.yaml") for name in ("here", "there"))
    assert first.prompts.path == tmp_path / "here" / "prompts.jsonl"
    for recipe in (first, second):
        # A prompt of a file names no place of the scenes, so it stops behind the prompts.
        with pytest.raises(BenchError, match="names no place"):
            pipeline.align(recipe, tmp_path / "out", print)
    assert len(list((tmp_path / "out").glob("prompts-*/manifest.json"))) == 1


def test_no_pair_at_all_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(RecipeError, match="No preference pair"):
        stage(tmp_path, [("A dog.", 1.0, "stop"), ("A cow.", 0.9, "stop")], margin=0.5)


def test_the_shipped_recipes_are_right():
    for file in (ROOT / "alignment" / "recipes").glob("*.yaml"):
        recipe = read_recipe(file)
        for name in recipe.variants:
            assert recipe.variant(name, 5).seed == 5


def test_all_faults_of_a_recipe_are_told_at_once_with_their_lines(tmp_path):
    file = tmp_path / "bad.yaml"
    text = GOOD.replace("  count: 500", "  count: 0").replace(
        "  beta: 0.1", "  beta: -1\n  betta: 2"
    )
    file.write_text(text)
    with pytest.raises(RecipeError) as raised:
        read_recipe(file)
    lines = text.splitlines()
    for wrong in ("  count: 0", "  beta: -1", "  betta: 2"):
        assert f"line {lines.index(wrong) + 1}: " in raised.value.reason
    assert raised.value.fact.endswith("has 3 faults.")


@pytest.mark.parametrize("text", ["", "[]", "name: [", "\x00", "variants: {a: {dpo: 3}}"])
def test_what_is_no_recipe_is_told_so(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(RecipeError):
        read_recipe(tmp_path / "bad.yaml")


def test_a_variant_changes_only_what_it_names():
    recipe = read_recipe(ROOT / "alignment" / "recipes" / "scenes-tiny.yaml")
    facts = recipe.variant("facts")
    assert facts.rewards.kind == "facts"
    assert facts.dpo == recipe.dpo
    assert facts.prompts == recipe.prompts
    with pytest.raises(RecipeError, match="no variant"):
        recipe.variant("nonsense")


def test_corrupt_pictures_of_a_folder_are_dropped_with_the_reason(tmp_path):
    for name in ("source", "prompts", "out"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "source" / "a.png")
    (tmp_path / "source" / "b.png").write_bytes((tmp_path / "source" / "a.png").read_bytes()[:40])
    (tmp_path / "source" / "c.jpg").write_text("no picture")
    rows = [{"id": str(n), "prompt": "p", "instructions": ["?"]} for n in range(4)]
    append_lines(tmp_path / "prompts" / "prompts.jsonl", rows)
    settings = FolderImages(kind="folder", path=tmp_path / "source")
    counts = images.run(settings, {"prompts": tmp_path / "prompts"}, tmp_path / "out", 0)
    assert counts == {"images": 1, "candidates": 0, "dropped": 3}
    reasons = [row.get("dropped", "") for row in read_lines(tmp_path / "out" / "images.jsonl")]
    assert (
        reasons[0] == ""
        and "b.png" in reasons[1]
        and "c.jpg" in reasons[2]
        and "no picture left" in reasons[3]
    )


def caption_run(folder, captions):
    """A CHAIR run of captions that mention these objects, of images that show dogs."""
    rows = []
    for number, mentioned in enumerate(captions):
        values = caption_values(mentioned, ["dog"]) | {"length": len(mentioned)}
        rows.append(score_row(str(number), f"{number}.png", "all", **values))
    record = record_of(benchmark={"name": "chair", "version": "1"})
    return Run(write_run(folder, record, rows))


@pytest.mark.parametrize("mentioned", [["dog", "cat"], []])
def test_a_model_that_hardly_speaks_is_compared_without_intervals(tmp_path, mentioned):
    """One caption alone, or none, has a mention: CHAIRi has no error then, or no value."""
    base = caption_run(tmp_path / "base", [["dog"]] * 6)
    aligned = caption_run(tmp_path / "aligned", [mentioned, *[[]] * 5])
    write_json(tmp_path / "results.json", evaluate.compare([base], [aligned]))
    rows = evaluate.read_results(tmp_path)
    chair_i = next(row for row in rows if row["figure"] == "CHAIRi")
    assert math.isnan(chair_i["p"]) and math.isnan(chair_i["difference"][1])
    results = evaluate.RecipeResults("recipe", 0, rows, 10, 5)
    line = next(line for line in evaluate.as_text(results).splitlines() if "CHAIRi" in line)
    change = "50.00    +50.00 no interval" if mentioned else "–         – no interval"
    assert " ".join(change.split()) in " ".join(line.split())
    assert "nan" not in evaluate.as_text(results) + evaluate.table([results])


def test_a_batch_of_prompts_draws_what_single_prompts_draw(tmp_path):
    """A real pipeline; three prompts at once, and one after the other, the last of them resumed."""
    from tests.tiny_pipelines import sd3_pipeline

    pipe = str(sd3_pipeline(tmp_path / "sd3"))
    (tmp_path / "prompts").mkdir()
    rows = [{"id": str(n), "prompt": f"{n} dogs", "instructions": ["?"]} for n in range(3)]
    append_lines(tmp_path / "prompts" / "prompts.jsonl", rows)
    drawn = {}
    for batch in (1, 2, 3):
        settings = images.DiffusersImages(
            kind="diffusers", model=pipe, steps=2, side=32, guidance=[5.0, 7.0], batch=batch
        )
        out = tmp_path / str(batch)
        out.mkdir()
        counts = images.run(settings, {"prompts": tmp_path / "prompts"}, out, 0)
        assert counts["images"] == 3 and counts["candidates"] == 6
        lines = read_lines(out / "images.jsonl")
        assert [row["id"] for row in lines] == ["0", "1", "2"]
        pixels = [list(Image.open(out / row["file"]).getdata()) for row in lines]
        seeds = []
        for row in lines:
            seeds.append([candidate["seed"] for candidate in row["candidates"]])
        drawn[batch] = seeds, pixels
    assert drawn[1][0] == drawn[2][0] == drawn[3][0]
    assert len({seed for seeds in drawn[1][0] for seed in seeds}) == 6
    for batch in (2, 3):
        for one, other in zip(drawn[1][1], drawn[batch][1], strict=True):
            differences = [
                abs(a - b)
                for p, q in zip(one, other, strict=True)
                for a, b in zip(p, q, strict=True)
            ]
            assert max(differences) <= 1  # of 255
    assert drawn[1][1][0] != drawn[1][1][1]


def test_a_painter_whose_files_do_not_fit_is_told(tmp_path):
    from tests.tiny_pipelines import sd3_pipeline

    pipe = sd3_pipeline(tmp_path / "sd3")
    file = pipe / "scheduler" / "scheduler_config.json"
    write_json(file, json.loads(file.read_text()) | {"shift_terminal": {"x": None}})
    for name in ("prompts", "out"):
        (tmp_path / name).mkdir()
    row = {"id": "0", "prompt": "dogs", "instructions": ["?"]}
    append_lines(tmp_path / "prompts" / "prompts.jsonl", [row])
    settings = images.DiffusersImages(
        kind="diffusers", model=str(pipe), steps=2, side=32, guidance=[5.0]
    )
    with pytest.raises(RecipeError, match="cannot draw"):
        images.run(settings, {"prompts": tmp_path / "prompts"}, tmp_path / "out", 0)


def test_recipes_that_train_or_measure_otherwise_are_not_compared(tmp_path):
    content = yaml.safe_load(GOOD)
    recipes = {}
    for name, part, change in (
        ("one", "dpo", {}),
        ("other", "rewards", {"threshold": 0.5}),
        ("base", "dpo", {"model": "llava-tiny-b"}),
        ("measured", "evaluate", {"suite": ["pope"]}),
    ):
        changed = content | {"name": name, part: content[part] | change}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(changed))
        recipes[name] = read_recipe(tmp_path / f"{name}.yaml")
    check_comparable([recipes["one"], recipes["other"]])
    for name, field in (("base", "dpo.model"), ("measured", "evaluate")):
        with pytest.raises(RecipeError, match=rf"`{field}` is"):
            check_comparable([recipes["one"], recipes[name]])
    with pytest.raises(RecipeError, match="one name"):
        check_comparable([recipes["one"], recipes["one"]])
