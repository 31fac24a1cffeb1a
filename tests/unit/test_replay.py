"""Recorded answers: each row goes to the question it was given to, in every layout that people
have, and a file that could be read in two ways is refused."""

from __future__ import annotations

import csv
import json
import pickle
import zipfile

import pytest

from bench.benchmarks.chair import Chair
from bench.benchmarks.mmhal import MMHAL
from bench.benchmarks.pope import COCO
from bench.errors import ModelError
from bench.models.replay import ReplayModel
from bench.types import Request, Sample
from tests.conftest import bench, metrics

DOG, CAT, OX = (f"Is there a {name} in the image?" for name in ("dog", "cat", "ox"))


def pope(subset: str, number: int, image: str, question: str, label: str = "yes") -> Sample:
    return Sample(f"{subset}/{number}", image, question, label, image, subset)


# The first question of each split is the same, as POPE's questions about present objects are.
SPLITS = [
    pope("random", 1, "a.jpg", DOG),
    pope("random", 2, "a.jpg", CAT, "no"),
    pope("popular", 1, "a.jpg", DOG),
    pope("popular", 2, "a.jpg", OX, "no"),
]


def match(file, samples, benchmark=COCO, **options):
    model = ReplayModel(str(file), options)
    subsets, summary = model.match(benchmark, samples)
    requests = []
    for sample in samples:
        requests.append(
            Request(
                sample.id,
                sample.image,
                None,
                sample.question,
                sample.question,
                5,
                True,
                (sample.id,),
            )
        )
    (batch,) = model.answer(requests, frozenset())
    given = {r.key: None if answer.error else answer.text for r, answer in batch}
    return given, subsets, summary


def answers(file, samples, benchmark=COCO, **options) -> dict[str, str | None]:
    return match(file, samples, benchmark, **options)[0]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ALL_FOUR = [
    ("random", DOG, "Yes"),
    ("random", CAT, "No"),
    ("popular", DOG, "No"),
    ("popular", OX, "Yes."),
]
WANTED = {"random/1": "Yes", "random/2": "No", "popular/1": "No", "popular/2": "Yes."}


@pytest.mark.parametrize(
    "fields",
    [
        {"category": "{subset}"},
        {"question_id": "{number}", "subset": "{subset}"},
        {"id": "{subset}/{number}"},
        {},
        {"question_id": "{number}"},
    ],
    ids=["category", "category and id", "id", "order of the splits", "ids of each split"],
)
def test_equal_questions_of_two_splits_keep_their_own_answers(tmp_path, fields):
    rows = []
    for index, (subset, question, text) in enumerate(ALL_FOUR):
        named = {k: v.format(subset=subset, number=index % 2 + 1) for k, v in fields.items()}
        rows.append({"image": "a.jpg", "question": question, "response": text, **named})
    assert answers(write(tmp_path / "a.jsonl", rows), SPLITS) == WANTED
    assert answers(write(tmp_path / "b.jsonl", rows[2:] + rows[:2]), SPLITS) == WANTED


def test_an_answer_to_a_distinct_question_stands_for_all_who_ask_it(tmp_path):
    rows = [
        {"image": "a.jpg", "prompt": question, "text": text}
        for question, text in ((DOG, "Yes"), (CAT, "No"), (OX, "Never"))
    ]
    given = answers(write(tmp_path / "a.jsonl", rows), SPLITS)
    assert given == WANTED | {"popular/1": "Yes", "popular/2": "Never"}


def test_a_split_that_was_not_asked_gets_no_answer(tmp_path):
    rows = [{"image": "a.jpg", "question": q, "response": t} for _, q, t in ALL_FOUR[:2]]
    given, subsets, _ = match(write(tmp_path / "a.jsonl", rows), SPLITS)
    assert subsets == ["random"]
    assert given == {"random/1": "Yes", "random/2": "No", "popular/1": None, "popular/2": None}


def test_popes_two_spellings_are_two_questions_unless_only_one_was_asked(tmp_path):
    samples = [
        pope("popular", 1, "a.jpg", "Is there a dog in the imange?"),
        pope("popular", 2, "a.jpg", DOG),
    ]
    rows = [
        {"image": "a.jpg", "question": samples[0].question, "response": "No"},
        {"image": "a.jpg", "question": DOG, "response": "Yes"},
    ]
    both = answers(write(tmp_path / "a.jsonl", rows), samples)
    assert both == {"popular/1": "No", "popular/2": "Yes"}
    one = answers(write(tmp_path / "b.jsonl", rows[1:]), samples)
    assert one == {"popular/1": "Yes", "popular/2": "Yes"}


def test_a_row_without_a_question_answers_no_yes_no_question(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"image": "a.jpg", "response": "Yes"}])
    with pytest.raises(ModelError, match="belongs to this benchmark"):
        match(file, SPLITS)


def test_ids_are_used_if_they_are_unambiguous(tmp_path):
    rows = [{"question_id": 1, "text": "Yes"}, {"question_id": "popular/2", "text": "No"}]
    file = write(tmp_path / "a.jsonl", rows)
    assert answers(file, [SPLITS[0], SPLITS[3]]) == {"random/1": "Yes", "popular/2": "No"}
    with pytest.raises(ModelError, match="belongs to this benchmark"):
        match(file, SPLITS)  # question 1 exists in two subsets


def test_running_numbers_are_no_ids_of_the_benchmark(tmp_path):
    rows = []
    for number, (_, question, text) in enumerate(reversed(ALL_FOUR), start=1):
        row = {"question_id": number, "image": "a.jpg", "prompt": question, "text": text}
        rows.append(row)
    assert answers(write(tmp_path / "a.jsonl", rows), SPLITS) == WANTED


@pytest.mark.parametrize("name", ["questions.jsonl", "../llava_pope_test.jsonl", "mine.jsonl"])
def test_the_questions_beside_above_or_named_say_which_image(tmp_path, name):
    folder = tmp_path / "answers"
    folder.mkdir()
    questions = [
        {"question_id": 7, "image": "a.jpg", "text": f"{OX}\nShort.", "category": "popular"},
        {"question_id": 8, "image": "a.jpg", "text": f"{DOG}\nShort.", "category": "popular"},
    ]
    beside = write(folder / name, questions)
    options = {"questions": beside} if name == "mine.jsonl" else {}
    rows = [{"question_id": 7, "prompt": "?", "text": "No"}]
    file = write(folder / "model.jsonl", [*rows, {"question_id": 8, "prompt": "?", "text": "Yes"}])
    given, subsets, _ = match(file, SPLITS, **options)
    assert (given["popular/1"], given["popular/2"], subsets) == ("Yes", "No", ["popular"])
    assert given["random/1"] is None


QUESTION_FORMS = [
    "<image>\n{}",
    "{} Please answer yes or no.",
    "{}\nAnswer the question using a single word or phrase.",
    "<image>\\n{}\\nAnswer the question using a single word or phrase.",
    "USER: <image>\n{} ASSISTANT:",
]


@pytest.mark.parametrize("form", QUESTION_FORMS)
def test_a_question_is_known_however_it_was_wrapped(tmp_path, form):
    rows = [
        {"image": "val2014/a.jpg", "question": form.format(question), "output": text}
        for question, text in ((DOG, "Yes"), (CAT, "No"))
    ]
    given = answers(write(tmp_path / "a.jsonl", rows), SPLITS[:2])
    assert given == {"random/1": "Yes", "random/2": "No"}


@pytest.mark.parametrize(
    "recorded", ["COCO_val2014_000000000042.jpg", "COCO_val2014_000000000042", "42", 42]
)
def test_coco_images_are_known_by_name_stem_and_number(tmp_path, recorded):
    name = "COCO_val2014_000000000042.jpg"
    file = write(tmp_path / "a.jsonl", [{"image": recorded, "question": DOG, "pred": "Yes"}])
    assert answers(file, [pope("random", 1, name, DOG)]) == {"random/1": "Yes"}
    captions = write(tmp_path / "c.jsonl", [{"image_id": recorded, "caption": "A dog."}])
    assert ReplayModel(str(captions), {}).images == (name,)


# The same two answers, wrong ones, in every layout that we know; the label stands there too.
LAYOUTS = {
    "POPE questions with answers": [
        {"question_id": 1, "image": "a.jpg", "text": DOG, "label": "yes", "response": "No"},
        {"question_id": 2, "image": "a.jpg", "text": CAT, "label": "no", "response": "Yes"},
    ],
    "VLMEvalKit predictions": [
        {"index": 0, "image_path": "a.jpg", "question": DOG, "answer": "yes", "prediction": "No"},
        {"index": 1, "image_path": "a.jpg", "question": CAT, "answer": "no", "prediction": "Yes"},
    ],
    "lmms-eval samples": [
        {
            "doc_id": number,
            "doc": {"question_id": str(number + 1), "question": question, "image_source": "a"},
            "target": label,
            "filtered_resps": [text],
            "resps": [[text]],
            "pope_accuracy": {"category": "random", "prediction": text, "ground_truth": label},
        }
        for number, (question, label, text) in enumerate(((DOG, "yes", "No"), (CAT, "no", "Yes")))
    ],
    "fields by name": [
        {"image": "a.jpg", "query": DOG, "answer": "yes", "output": "No"},
        {"image": "a.jpg", "query": CAT, "answer": "no", "output": "Yes"},
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_models_words_are_read_and_not_the_label(tmp_path, layout):
    file = write(tmp_path / "a.jsonl", LAYOUTS[layout])
    given, _, summary = match(file, SPLITS[:2])
    assert given == {"random/1": "No", "random/2": "Yes"}
    assert summary["layout"] == layout
    as_array = tmp_path / "a.json"
    as_array.write_text(json.dumps(LAYOUTS[layout], indent=2))
    assert answers(as_array, SPLITS[:2]) == given


def test_a_table_with_a_header_is_read(tmp_path):
    rows = LAYOUTS["VLMEvalKit predictions"]
    rows = [rows[0] | {"prediction": 'No, "a, b"\nat all'}, rows[1]]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    given = answers(tmp_path / "a.csv", SPLITS[:2])
    assert given == {"random/1": 'No, "a, b"\nat all', "random/2": "Yes"}


def test_vlmevalkits_excel_file_is_read(tmp_path):
    import pandas as pd

    rows = LAYOUTS["VLMEvalKit predictions"]
    rows = [rows[0] | {"prediction": "=No"}, rows[1]]
    pd.DataFrame(rows).to_excel(tmp_path / "a.xlsx", index=False)
    given, _, summary = match(tmp_path / "a.xlsx", SPLITS[:2])
    assert summary["layout"] == "VLMEvalKit predictions"
    # An answer that looks like a formula is a formula to Excel; it has no value and is no answer.
    assert given["random/2"] == "Yes"
    assert given["random/1"] == ""


@pytest.mark.parametrize("damage", ["cut", "empty", "no sheet", "huge"])
def test_a_broken_excel_file_is_one_clear_error(tmp_path, damage, monkeypatch):
    import pandas as pd

    from bench.data import answer_files

    file = tmp_path / "a.xlsx"
    rows = LAYOUTS["VLMEvalKit predictions"]
    pd.DataFrame([] if damage == "empty" else rows).to_excel(file, index=False)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-400])
    if damage == "no sheet":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("xl/workbook.xml", "<a>")
    if damage == "huge":
        monkeypatch.setattr(answer_files, "LARGEST_WORKBOOK", 1000)
    with pytest.raises(ModelError) as refused:
        match(file, SPLITS[:2])
    assert "a.xlsx" in str(refused.value)


def test_popes_own_answers_are_in_the_order_of_its_questions(tmp_path):
    rows = [{"question": OX, "answer": "No"}, {"question": DOG, "answer": "No"}]
    with pytest.raises(ModelError, match="belongs to this benchmark"):
        match(write(tmp_path / "a.jsonl", rows), SPLITS)
    given, subsets, summary = match(write(tmp_path / "b.jsonl", rows[::-1]), SPLITS)
    assert (given["popular/1"], given["popular/2"], subsets) == ("No", "No", ["popular"])
    assert summary["matched_by"] == "position"


@pytest.mark.parametrize(
    "rows",
    [
        [
            {"image": "a.jpg", "question": DOG, "answer": "yes"},
            {"image": "a.jpg", "question": CAT, "answer": "no"},
        ],
        [
            {"question_id": 1, "image": "a.jpg", "text": DOG, "label": "yes"},
            {"question_id": 2, "image": "a.jpg", "text": CAT, "label": "no"},
        ],
        [
            {"image": "a.jpg", "question": DOG, "response": DOG},
            {"image": "a.jpg", "question": CAT, "response": CAT},
        ],
    ],
    ids=["labels", "questions", "echoes"],
)
def test_questions_and_labels_are_no_answers(tmp_path, rows):
    with pytest.raises(ModelError, match=r"has no answer|holds no model's answer"):
        match(write(tmp_path / "a.jsonl", rows), SPLITS[:2])


def test_two_fields_that_may_be_the_answer_are_named_and_not_guessed(tmp_path):
    rows = [
        {"image": "a.jpg", "question": DOG, "output": "No", "response": "Yes"},
        {"image": "a.jpg", "question": CAT, "output": "No", "response": "Yes"},
    ]
    file = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ModelError, match="response and output may both be the answer"):
        match(file, SPLITS[:2])
    given = answers(file, SPLITS[:2], answer_field="output")
    assert given == {"random/1": "No", "random/2": "No"}
    with pytest.raises(ModelError, match="has no field reply"):
        match(file, SPLITS[:2], answer_field="reply")


def test_a_named_question_field_is_the_question(tmp_path):
    rows = [{"image": "a.jpg", "question": "q1", "asked": DOG, "response": "No"}]
    given = answers(write(tmp_path / "a.jsonl", rows), SPLITS[:1], question_field="asked")
    assert given == {"random/1": "No"}


def caption_samples():
    question = "Please describe this image in detail."
    return [Sample(f"{n}.jpg", f"{n}.jpg", question, ["dog"], f"{n}", "all") for n in range(2)]


def test_captions_belong_to_their_image_whatever_was_asked(tmp_path):
    rows = [
        {"question_id": 1, "image": "0.jpg", "prompt": "Describe it.", "text": "A dog."},
        {"question_id": 2, "image": "1.jpg", "prompt": "Describe it.", "text": "A cat."},
        {"question_id": 3, "image": "9.jpg", "prompt": "Describe it.", "text": "A cow."},
        {"question_id": 4, "image": "1.jpg", "prompt": "Describe it.", "text": "A cat!"},
    ]
    file = write(tmp_path / "a.jsonl", rows)
    given, _, summary = match(file, caption_samples(), Chair())
    assert given == {"0.jpg": "A dog.", "1.jpg": "A cat."}
    assert summary["unmatched"] == {"count": 1, "first": ["item 3 (9.jpg)"]}
    assert summary["duplicates"] == {"count": 1, "first": ["item 4 (1.jpg)"]}


def test_answers_to_several_questions_about_an_image_are_no_captions(tmp_path):
    rows = [{"image": "0.jpg", "question": q, "response": "Yes"} for q in (DOG, CAT)]
    with pytest.raises(ModelError, match="belongs to this benchmark"):
        match(write(tmp_path / "a.jsonl", rows), caption_samples(), Chair())
    rows.append({"image": "0.jpg", "question": caption_samples()[0].question, "response": "A!"})
    given = answers(write(tmp_path / "b.jsonl", rows), caption_samples(), Chair())
    assert given == {"0.jpg": "A!", "1.jpg": None}


def test_captions_in_chairs_own_form_and_mmhals_responses(tmp_path):
    captions = tmp_path / "c.json"
    rows = [{"image_id": "0.jpg", "caption": "A dog."}, {"image_id": "1.jpg", "caption": "Two."}]
    captions.write_text(json.dumps({"overall_metrics": {}, "sentences": rows}))
    assert answers(captions, caption_samples(), Chair()) == {"0.jpg": "A dog.", "1.jpg": "Two."}
    row = {
        "image_src": "https://x/y/z_o.jpg",
        "image_id": "f0",
        "question": "Who?",
        "gt_answer": "A man.",
        "model_answer": "No one.",
    }
    sample = Sample("f0", "z_o.jpg", "Who?", "A man.", "z_o.jpg", "other")
    assert answers(write(tmp_path / "m.jsonl", [row]), [sample], MMHAL) == {"f0": "No one."}


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_only_a_line_feed_ends_a_line(tmp_path, character):
    text = f"Yes.{character}It is on the left."
    rows = [{"image": "a.jpg", "question": DOG, "response": text}]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert answers(file, SPLITS[:1]) == {"random/1": text}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ('["a", "b"]', "item 1 is not a JSON object"),
        ('{"text": "a"', "truncated or corrupt in line 1"),
        ('[{"text": "a"}', "truncated or corrupt"),
        ('{"question_id": 1, "texxt": "a"}', "has no answer"),
        (
            '{"question_id": 1, "text": "a"}\n{"question_id": 1, "text": "b"}',
            "id 1 has two answers",
        ),
        ('{"question_id": 99, "text": "a"}', "belongs to this benchmark"),
        ("\x00\xff", "truncated or corrupt"),
        ("a,b\n1,2,3\n", "no CSV with a header"),
        ('{"question_id": 1, "response": 7}', "has no answer"),
        ('{"question_id": 1, "response": "a"}\n{"question_id": 2, "response": 7}', "not a text"),
    ],
)
def test_bad_files_are_clear_errors(tmp_path, content, words):
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(ModelError) as error:
        match(file, SPLITS[:1])
    assert words in str(error.value)


def test_files_of_other_kinds_are_called_what_they_are(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1], protocol=4))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("sheet", "")
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(20))
    for name, words in (("a.pkl", "pickle"), ("a.zip", "zip archive"), ("a.parquet", "parquet")):
        with pytest.raises(ModelError, match=words):
            ReplayModel(str(tmp_path / name), {})
    with pytest.raises(ModelError, match="There is no file"):
        ReplayModel(str(tmp_path / "no.jsonl"), {})


def test_one_split_alone_is_scored_and_recorded_row_by_row(tmp_path):
    """Through the command: a data folder that holds one split, and a file that answers one."""
    folder = tmp_path / "data" / "pope" / "coco"
    folder.mkdir(parents=True)
    for subset in ("random", "popular", "adversarial"):
        rows = []
        for number, (question, label) in enumerate(((DOG, "yes"), (f"{subset} cat?", "no"))):
            row = {"question_id": number, "image": "a.jpg", "text": question, "label": label}
            rows.append(row)
        write(folder / f"coco_pope_{subset}.json", rows)
    rows = [
        {"image": "a.jpg", "question": DOG, "response": "No"},
        {"image": "a.jpg", "question": "popular cat?", "response": "No"},
    ]
    file = write(tmp_path / "answers.jsonl", rows)
    command = ("run", "--model", f"replay:{file}", "--suite", "pope", "--data", tmp_path / "data")
    done = bench(*command, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    values = metrics(tmp_path / "out" / "pope")
    assert {subset for _, subset in values} == {"popular", "all", "mean"}
    assert values["accuracy", "all"]["n"] == 2
    assert (values["tp", "all"]["value"], values["fn", "all"]["value"]) == (0, 1)
    record = json.loads((tmp_path / "out" / "pope" / "run.json").read_text())
    assert record["subsets"] == ["popular"]
    assert record["recorded"]["answer_field"] == "response"
    before = (tmp_path / "out" / "pope" / "metrics.json").read_text()
    assert bench("score", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "pope" / "metrics.json").read_text() == before
    (folder / "coco_pope_random.json").unlink()
    refused = bench(*command, "--out", tmp_path / "b")
    assert refused.returncode == 2 and "--subset" in refused.stderr
    assert bench(*command, "--subset", "popular", "--out", tmp_path / "c").returncode == 0
    unknown = bench(*command, "--subset", "rndom", "--out", tmp_path / "d")
    assert unknown.returncode == 2


def test_a_rows_own_question_counts_and_not_that_of_a_file_beside_it(tmp_path):
    """LLaVA's questions have running ids that VCD's and others' answers have too."""
    questions = [
        {"question_id": 1, "image": "a.jpg", "text": OX, "category": "popular"},
        {"question_id": 2, "image": "a.jpg", "text": DOG, "category": "popular"},
    ]
    write(tmp_path / "llava_pope_test.jsonl", questions)
    rows = [
        {"question_id": 1, "image": "a.jpg", "prompt": DOG, "text": "Yes"},
        {"question_id": 2, "image": "a.jpg", "prompt": CAT, "text": "No"},
    ]
    file = write(tmp_path / "answers" / "random.jsonl", rows)
    given, subsets, _ = match(file, SPLITS)
    assert subsets == ["random"] and (given["random/1"], given["random/2"]) == ("Yes", "No")
    with pytest.raises(ModelError, match="are not the questions of"):
        match(file, SPLITS, questions=tmp_path / "llava_pope_test.jsonl")
    (tmp_path / "answers" / "questions.jsonl").write_text('{"q": 1}\n')
    assert answers(file, SPLITS) == given, "a file of that name may be something else"


@pytest.mark.parametrize("suffix", ["", "\nAnswer the question using a single word or phrase."])
def test_a_question_that_stands_in_text_beside_prompt_and_response_is_no_answer(tmp_path, suffix):
    rows = []
    for number, (question, text) in enumerate(((DOG, "No"), (CAT, "Yes")), start=1):
        row = {"question_id": number, "image": "a.jpg", "text": question + suffix}
        row |= {"prompt": f"A chat. USER: <image>\n{question} ASSISTANT:", "response": text}
        rows.append(row)
    given = answers(write(tmp_path / "a.jsonl", rows), SPLITS[:2])
    assert given == {"random/1": "No", "random/2": "Yes"}


def test_lists_by_part_and_rows_by_id_are_all_read(tmp_path):
    rows = {"random": [], "popular": []}
    for subset, question, text in ALL_FOUR:
        rows[subset].append({"image": "a.jpg", "question": question, "response": text})
    file = tmp_path / "parts.json"
    file.write_text(json.dumps(rows))
    assert answers(file, SPLITS) == WANTED
    by_id = {f"{subset}/{n}": row for subset in rows for n, row in enumerate(rows[subset], 1)}
    file.write_text(json.dumps(by_id, indent=1))
    assert answers(file, SPLITS) == WANTED
    file.write_text(json.dumps({"configs": [{"model": "m"}], "logs": rows["random"]}))
    assert answers(file, SPLITS[:2])["random/1"] == "Yes"


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_row_without_an_answer_is_unscored_and_the_label_never_takes_its_place(tmp_path, nothing):
    samples = SPLITS[:2] + [pope("random", n, f"{n}.jpg", DOG) for n in range(3, 9)]
    rows = []
    for sample in samples:
        row = {"image": sample.image, "question": sample.question, "answer": sample.reference}
        rows.append(row | {"response": "No."})
    rows[3]["response"] = nothing
    given = answers(write(tmp_path / "a.jsonl", rows), samples)
    assert given.pop("random/4") is None and set(given.values()) == {"No."}


def test_an_empty_answer_is_an_answer(tmp_path):
    (tmp_path / "a.csv").write_text(f"image,question,response\na.jpg,{DOG},\na.jpg,{CAT},No\n")
    assert answers(tmp_path / "a.csv", SPLITS[:2]) == {"random/1": "", "random/2": "No"}


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_tables_with_other_delimiters_are_read(tmp_path, delimiter):
    lines = [["image", "question", "response"], ["a.jpg", DOG, "No, not"], ["a.jpg", CAT, "Yes"]]
    text = "".join(delimiter.join(line) + "\r\n" for line in lines)
    (tmp_path / "a.tsv").write_text(text)
    assert answers(tmp_path / "a.tsv", SPLITS[:2]) == {"random/1": "No, not", "random/2": "Yes"}


def test_running_ids_that_begin_like_the_benchmarks_are_none(tmp_path):
    """Rows 1 to 4 over two splits with questions 1 and 2 each."""
    rows = []
    for number, (_, question, text) in enumerate(ALL_FOUR, start=1):
        row = {"question_id": number, "image": "a.jpg", "question": question, "response": text}
        rows.append(row)
    assert answers(write(tmp_path / "a.jsonl", rows), SPLITS) == WANTED


@pytest.mark.parametrize("form", ["{}", "{}".title(), "coco_pope_{}", " {} "])
@pytest.mark.parametrize("field", ["category", "split", "type"])
def test_categories_are_known_in_their_usual_spellings(tmp_path, form, field):
    rows = []
    for subset, question, text in (ALL_FOUR[i] for i in (2, 1, 3, 0)):  # no order to go by
        named = form.format(subset).title() if form == "{}" else form.format(subset)
        row = {"image": "a.jpg", "question": question, "response": text, field: named}
        rows.append(row | ({"category": "food"} if field == "split" else {}))
    assert answers(write(tmp_path / "a.jsonl", rows), SPLITS) == WANTED


def test_a_list_of_categories_and_unknown_ones_exclude_nothing(tmp_path):
    rows = [
        {"image": "a.jpg", "question": DOG, "response": "Yes", "category": "random,popular"},
        {"image": "a.jpg", "question": CAT, "response": "No", "category": "random"},
        {"image": "a.jpg", "question": OX, "response": "Never", "category": "animal"},
    ]
    given = answers(write(tmp_path / "a.jsonl", rows), SPLITS)
    assert given == {
        "random/1": "Yes",
        "popular/1": "Yes",
        "random/2": "No",
        "popular/2": "Never",
    }


@pytest.mark.parametrize("p_yes", ["0.9", float("nan"), None, ""])
def test_a_probability_that_is_none_is_left_out(tmp_path, p_yes):
    row = {"image": "a.jpg", "question": DOG, "response": "Yes", "p_yes": p_yes, "p_no": 0.1}
    model = ReplayModel(str(write(tmp_path / "a.jsonl", [row])), {})
    (record,) = model.answers.records
    assert record.p_yes == (0.9 if p_yes == "0.9" else None) and record.p_no == 0.1


def test_two_candidates_beside_a_known_layout_are_refused(tmp_path):
    rows = [{"image_id": "0.jpg", "caption": "A human's.", "response": "A model's."}]
    with pytest.raises(ModelError, match="caption and response may both be the answer"):
        match(write(tmp_path / "a.jsonl", rows), caption_samples(), Chair())


@pytest.mark.parametrize(
    "rows",
    [
        {"339761": "A dog."},
        [{"id": 339761, "caption": "A dog."}],
        [{"images": ["val2014/COCO_val2014_000000339761.JPG"], "response": "A dog."}],
        [{"images": [{"path": "000000339761.jpg"}], "response": "A dog."}],
    ],
)
def test_captions_name_their_image_in_many_ways(tmp_path, rows):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(rows))
    name = "COCO_val2014_000000339761.jpg"
    assert ReplayModel(str(file), {}).images == (name,)
    sample = Sample(name, name, "Please describe this image in detail.", ["dog"], name, "all")
    assert answers(file, [sample], Chair()) == {name: "A dog."}


def test_mmhals_responses_are_known_by_the_questions_id_alone(tmp_path):
    rows = [{"image_id": "f0", "question": "Who?", "model_answer": "No one."}]
    sample = Sample("f0", "z_o.jpg", "Who?", "A man.", "z_o.jpg", "other")
    assert answers(write(tmp_path / "m.jsonl", rows), [sample], MMHAL) == {"f0": "No one."}


def test_a_few_second_rows_do_not_take_the_answers_of_others(tmp_path):
    samples = []
    for n in range(6):
        for subset in ("random", "popular"):
            samples.append(pope(subset, n, f"{n}.jpg", DOG))
        samples.append(pope("random", 10 + n, f"{n}.jpg", CAT, "no"))
        samples.append(pope("popular", 10 + n, f"{n}.jpg", OX, "no"))
    rows = []
    for n in range(6):
        for question in (DOG, CAT, OX):
            rows.append({"image": f"{n}.jpg", "question": question, "response": "Yes"})
    rows.append(rows[0] | {"response": "No"})
    given, _, summary = match(write(tmp_path / "a.jsonl", rows), samples)
    assert set(given.values()) == {"Yes"} and summary["duplicates"]["count"] == 1


def test_one_object_without_answers_is_not_called_corrupt(tmp_path):
    file = tmp_path / "figures.json"
    file.write_text(json.dumps({"chair_s": 0.5, "predictions_file": "x.jsonl"}, indent=2))
    with pytest.raises(ModelError, match="holds no list of answers") as raised:
        answers(file, SPLITS)
    assert "chair_s, predictions_file" in raised.value.reason


def test_an_empty_list_holds_no_answer(tmp_path):
    file = tmp_path / "empty.json"
    file.write_text('{"predictions": []}')
    with pytest.raises(ModelError, match=r"holds no answer|has no answer"):
        answers(file, SPLITS)
