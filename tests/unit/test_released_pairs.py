"""Released preference pairs: small files in each form, made here, give the pairs that their authors
train on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from alignment.settings import RecipeError
from alignment.stages import released_pairs
from alignment.stages.pair_formats import DESCRIBE, read_pairs
from alignment.stages.released_pairs import Pairs
from bench.data.images import read_image
from bench.files import read_lines
from tests.loopback_hub import client_of, hub_server


def picture(colour: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(content, "PNG")
    return content.getvalue()


def taken(source: Path, images: Path | None = None) -> tuple[dict, list[dict]]:
    """The counts and pairs of a source, with the colour of each image's first pixel."""
    out = source.parent / "out"
    out.mkdir(exist_ok=True)
    counts = released_pairs.run(Pairs(path=source, images=images), {}, out, 0)
    rows = read_lines(out / "pairs.jsonl")
    for row in rows:
        row["colour"] = read_image(out / row["image"]).getpixel((0, 0))
    return counts, rows


def texts(rows: list[dict]) -> list[tuple[str, str, str]]:
    return [(row["instruction"], row["chosen"], row["rejected"]) for row in rows]


def conversation(*turns: tuple[str, str]) -> list[dict]:
    return [{"from": speaker, "value": text} for speaker, text in turns]


def row(number: int, turns: list[tuple[str, str]], rejected: list[tuple[str, str]]) -> dict:
    return {
        "id": str(number),
        "image": "0.png",
        "conversations": conversation(*turns),
        "rejected_conversations": conversation(*rejected),
    }


def test_conversations_of_several_turns_are_dropped_and_counted(tmp_path):
    """What is behind the first answer would not be trained, without a word."""
    asked = ("human", "<image>\nWhat is it?")
    single = row(0, [asked, ("gpt", "A dog.")], [asked, ("gpt", "A cat.")])
    later = ("human", "And the colour?")
    multi = row(
        1,
        [asked, ("gpt", "A dog."), later, ("gpt", "Red.")],
        [asked, ("gpt", "A dog."), later, ("gpt", "Green.")],
    )
    system = ("system", "Be brief.")
    of_a_system = row(2, [system, asked, ("gpt", "A dog.")], [system, asked, ("gpt", "A cat.")])
    (tmp_path / "0.png").write_bytes(picture("red"))
    (tmp_path / "pairs.json").write_text(json.dumps([single, multi, of_a_system]))
    counts, pairs = taken(tmp_path / "pairs.json")
    assert (counts["pairs"], counts["several turns"], counts["other turns"]) == (1, 1, 1)
    assert texts(pairs) == [("What is it?", "A dog.", "A cat.")]


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_rlhf_v(tmp_path):
    """Parquet with the image's bytes, the texts as JSON in one column."""
    rows = []
    for number, colour in enumerate(("red", "blue")):
        said = {"question": f"What is {number}?", "chosen": "A cup.", "rejected": "A cat."}
        image = {"bytes": picture(colour), "path": f"llava/{number}.jpg"}
        rows.append({"ds_name": "RLHF-V", "image": image, "text": json.dumps(said), "idx": number})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "RLHF-V.parquet")
    counts, pairs = taken(tmp_path / "RLHF-V.parquet")
    assert counts["pairs"] == 2
    assert texts(pairs) == [("What is 0?", "A cup.", "A cat."), ("What is 1?", "A cup.", "A cat.")]
    assert [pair["colour"] for pair in pairs] == [RED, BLUE]


def test_rlhf_v_as_json_lines_with_images_beside_it(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(picture("blue"))
    said = {"question": "What?", "chosen": "A cup.", "rejected": "A cat."}
    rows = [{"image_path": f"images/{number}.png", "text": said} for number in range(2)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts, pairs = taken(tmp_path / "pairs.jsonl")
    assert (counts["pairs"], counts["no picture"]) == (1, 1)
    assert pairs[0]["colour"] == BLUE


def test_rlaif_v_in_several_files(tmp_path):
    folder = tmp_path / "RLAIF-V"
    folder.mkdir()
    for number, colour in enumerate(("red", "blue")):
        row = {
            "image": {"bytes": picture(colour), "path": "0.jpg"},
            "question": f"Number {number}?",
            "chosen": "Yes, a dog.",
            "rejected": "Yes, a dog." if number else "No.",
            "origin_split": "{}",
            "idx": 7,
        }
        table = pyarrow.Table.from_pylist([row])
        pyarrow.parquet.write_table(table, folder / f"RLAIF-V-Dataset_{number:03}.parquet")
    counts, pairs = taken(folder)
    assert (counts["pairs"], counts["equal"]) == (1, 1)
    assert texts(pairs) == [("Number 0?", "Yes, a dog.", "No.")]


def test_ha_dpo_descriptions_and_questions(tmp_path):
    genome = tmp_path / "VG"
    for folder, number in (("VG_100K", 12), ("VG_100K_2", 13)):
        (genome / folder).mkdir(parents=True)
        (genome / folder / f"{number}.jpg").write_bytes(picture("red"))
    described = {
        "12": {"chosen": ["A cup.", "One cup."], "rejected": ["A cup and a cat.", "Cats."]},
        "14": {"chosen": ["A dog."], "rejected": ["A cow."]},
    }
    (tmp_path / "desc_data.json").write_text(json.dumps(described))
    counts, pairs = taken(tmp_path / "desc_data.json", genome)
    assert (counts["pairs"], counts["no picture"]) == (1, 1)
    assert texts(pairs) == [(DESCRIBE[0], "A cup.", "A cup and a cat.")]
    asked = []
    for number, correct in ((13, False), (12, True)):
        asked.append(
            {
                "image_id": number,
                "question": "Is there a cup?",
                "chosen": "Yes, there is.",
                "reject": "No, there is not.",
                "answer": "yes",
                "correct": correct,
            }
        )
    (tmp_path / "pope_data.json").write_text(json.dumps(asked))
    counts, pairs = taken(tmp_path / "pope_data.json", genome)
    assert (counts["pairs"], counts["answered right"]) == (1, 1)
    assert texts(pairs) == [("Is there a cup?", "Yes, there is.", "No, there is not.")]


def rated(text: str, *ratings: int) -> dict:
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    annotations = {}
    for aspect, rating in zip(aspects, ratings, strict=True):
        annotations[aspect] = {"Rating": str(rating), "Rationale": "Because."}
    return {"model": "m", "response": text, "annotations": annotations}


@pytest.mark.parametrize("as_columns", [False, True])
def test_vlfeedback(tmp_path, as_columns):
    """Every two completions with different mean ratings: 5, 4 and 4 give two pairs."""
    (tmp_path / "0.png").write_bytes(picture("blue"))
    completions = [rated("Fair.", 4, 3, 5), rated("Good.", 5, 5, 5), rated("So so.", 3, 4, 5)]
    if as_columns:
        columns = {}
        for name in completions[0]:
            columns[name] = [item[name] for item in completions]
        completions = columns
    row = {"id": "a", "prompt": "Say.", "img_path": "0.png", "completions": completions}
    (tmp_path / "vlfeedback.jsonl").write_text(json.dumps(row) + "\n")
    counts, pairs = taken(tmp_path / "vlfeedback.jsonl")
    assert (counts["pairs"], counts["equal ratings"]) == (2, 1)
    assert texts(pairs) == [("Say.", "Good.", "Fair."), ("Say.", "Good.", "So so.")]
    assert len({pair["id"] for pair in pairs}) == 2


def test_trl_in_each_of_its_forms(tmp_path):
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    def message(role, text):
        return [{"role": role, "content": text}]

    messages = List({"role": Value("string"), "content": Value("string")})
    features = Features({"images": List(ImageFeature()), "prompt": messages})
    features |= {"chosen": messages, "rejected": messages}
    columns = {
        "images": [[Image.new("RGB", (9, 9), "red")]],
        "prompt": [message("user", "What is it?")],
        "chosen": [message("assistant", "A cup.")],
        "rejected": [message("assistant", "A cat.")],
    }
    data = Dataset.from_dict(columns, features=Features(features))
    data.to_parquet(str(tmp_path / "trl.parquet"))
    _, pairs = taken(tmp_path / "trl.parquet")
    assert texts(pairs) == [("What is it?", "A cup.", "A cat.")] and pairs[0]["colour"] == RED

    (tmp_path / "0.png").write_bytes(picture("blue"))
    in_parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    rows = [
        {"image": "0.png", "prompt": "What is it?", "chosen": "A cup.", "rejected": "A cat."},
        {
            "image": "0.png",
            "prompt": [{"role": "user", "content": in_parts}],
            # The prompt once more before each response.
            "chosen": [{"role": "user", "content": in_parts}, *message("assistant", "A cup.")],
            "rejected": [{"role": "user", "content": in_parts}, *message("assistant", "A cat.")],
        },
        {
            "images": ["0.png", "1.png"],
            "prompt": "Which?",
            "chosen": "One.",
            "rejected": "Two.",
        },
    ]
    (tmp_path / "trl.json").write_text(json.dumps(rows))
    counts, pairs = taken(tmp_path / "trl.json")
    assert texts(pairs) == [("What is it?", "A cup.", "A cat.")] * 2
    assert counts["several images"] == 1


def test_a_data_set_of_the_hub_is_downloaded_once(tmp_path):
    """Parquet and pictures come, other files do not; without the hub it is read again."""
    said = {"question": "What?", "chosen": "A cup.", "rejected": "A cat."}
    line = json.dumps({"image_path": "images/0.png", "text": said}).encode()
    files = {
        "data/pairs.jsonl": line,
        "data/images/0.png": picture("blue"),
        "images/0.png": picture("red"),
        "model.safetensors": bytes(10),
    }
    results = []
    with hub_server({("dataset", "us/pairs"): files}) as hub:
        for number in range(2):
            if number:
                hub.fault = "500"
            out = tmp_path / str(number)
            out.mkdir()
            with client_of(hub, tmp_path / "home"):
                settings = Pairs(hub="us/pairs")
                counts = released_pairs.run(settings, {}, out, 0)
                results.append([released_pairs.identity(settings), counts])
        assert not any("model.safetensors" in request for request in hub.requests)
    assert results[0] == results[1] and results[0][1]["pairs"] == 1
    (pair,) = read_lines(tmp_path / "0" / "pairs.jsonl")
    # Paths of images start at the data set's own folder.
    assert read_image(tmp_path / "0" / pair["image"]).getpixel((0, 0)) == RED


@pytest.mark.parametrize("given", [{}, {"path": "a.json", "hub": "us/pairs"}, {"hub": "no name"}])
def test_pairs_have_one_source(given):
    with pytest.raises(ValueError, match=r"give `path`|hub"):
        Pairs(**given)


def test_an_empty_rejected_response_stays_and_an_empty_chosen_one_does_not(tmp_path):
    (tmp_path / "0.png").write_bytes(picture("red"))
    asked = ("human", "<image>\nWhat?")
    rows = []
    for chosen, rejected in (("A cup.", ""), ("", "A cup.")):
        rows.append(row(0, [asked, ("gpt", chosen)], [asked, ("gpt", rejected)]))
    (tmp_path / "povid.json").write_text(json.dumps(rows))
    counts, pairs = taken(tmp_path / "povid.json")
    assert (counts["pairs"], counts["empty"]) == (1, 1)
    assert texts(pairs) == [("What?", "A cup.", "")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[3]",
        "[{}]",
        '[{"prompt": "?", "chosen": 3, "rejected": "b", "image": "0.png"}]',
        '[{"text": "no JSON", "image": "0.png"}]',
        '[{"completions": [{"response": "a"}, {"response": "b"}], "prompt": "?", "image": "0"}]',
    ],
)
def test_what_is_in_no_form_is_told(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(RecipeError, match="not in a released format"):
        list(read_pairs(tmp_path / "bad.json"))


def test_a_folder_without_pairs_is_told(tmp_path):
    with pytest.raises(RecipeError, match="holds no pairs"):
        list(read_pairs(tmp_path))


def test_a_broken_parquet_is_told(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RecipeError, match="not in a released format"):
        list(read_pairs(tmp_path / "bad.parquet"))
