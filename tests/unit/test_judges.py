"""Judges: the rubric, a real HTTP server that misbehaves, recorded reviews, the official reading
of a rating."""

from __future__ import annotations

import json

import pytest

from bench.benchmarks.mmhal import MMHAL
from bench.chat import GIVE_UP
from bench.errors import JudgeError
from bench.judges.openai_api import CONCURRENT, OpenAIJudge
from bench.judges.replay import ReplayJudge, read_reviews
from bench.judges.rubric import Rubric
from bench.metrics.ratings import informativeness, official_rating, ratings_in, rubric_rating
from bench.types import Answer, Sample, Verdict
from tests.loopback_chat import chat_server, completion

HTML = (200, "text/html", b"<html>login</html>")


def samples(count: int) -> list[Sample]:
    contents = {"image_content": ["Vase", "Stool"]}
    return [
        Sample(
            f"s{i}", "a.png", "Which {stool}?", "The left.", "a", "other", contents | {"index": i}
        )
        for i in range(count)
    ]


def judged(url: str, count: int = 4, **options) -> list[Verdict]:
    judge = OpenAIJudge(f"gpt-x@{url}", options)
    items = [(sample, Answer(f"answer to {sample.id}")) for sample in samples(count)]
    verdict_of = {sample.id: verdict for batch in judge.judge(items) for sample, verdict in batch}
    return [verdict_of[sample.id] for sample, _ in items]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The client's own retries, without their full waiting time."""
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.05)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    monkeypatch.setenv("JUDGE_KEY", "judge-key")


def test_every_answer_is_asked_once_at_temperature_0():
    with chat_server(lambda n, body: completion("Fine.\nRating: 6")) as (url, seen):
        assert judged(url, api_key_env="JUDGE_KEY") == [Verdict("Fine.\nRating: 6")] * 4
    assert len(seen) == 4 and {body["temperature"] for body in seen} == {0}
    assert {body["authorization"] for body in seen} == {"Bearer judge-key"}
    prompts = sorted(body["messages"][0]["content"] for body in seen)
    assert all("Vase, Stool" in p and "Which {stool}?" in p and "The left." in p for p in prompts)
    assert ["answer to s0" in p for p in prompts] == [True, False, False, False]


def test_429_and_500_are_retried_until_they_pass():
    def reply(number, body):
        return (
            (429 if number % 3 else 500, "application/json", b"{}")
            if number <= 6
            else completion("Rating: 3")
        )

    with chat_server(reply) as (url, seen):
        assert judged(url) == [Verdict("Rating: 3")] * 4
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (completion(None), "nothing was said"),
        (completion("   "), "nothing was said"),
        (HTML, "not a chat completion"),
        ((200, "application/json", b'{"choices": []}'), "not a chat completion"),
        ((200, "application/json", b'{"choices": [{"mess'), "judge"),
        ((400, "application/json", b'{"error": {"message": "too long"}}'), "too long"),
    ],
)
def test_garbage_html_and_nothing_are_no_verdict(reply, words):
    with chat_server(lambda n, body: reply if "s1" in str(body) else completion("Rating: 5")) as (
        url,
        _,
    ):
        verdicts = judged(url)
    assert [verdict.error is None for verdict in verdicts] == [True, False, True, True]
    assert words in verdicts[1].error


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_stops_at_once(status):
    with (
        chat_server(
            lambda n, body: (status, "application/json", b'{"error": {"message": "bad key"}}')
        ) as (url, _),
        pytest.raises(JudgeError, match=f"{status}.*bad key"),
    ):
        judged(url)


def test_no_key_and_no_server_is_a_clear_error(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(JudgeError, match="OPENAI_API_KEY is not set"):
        list(OpenAIJudge("gpt-4o", {}).judge([(samples(1)[0], Answer("x"))]))
    for bad in ("", "model@localhost:8000/v1", "model@host.example/v1", "m@ftp://h/v1"):
        with pytest.raises(JudgeError, match="names no model"):
            OpenAIJudge(bad, {})


def test_no_secret_is_in_the_description():
    description = OpenAIJudge("gpt-4o@http://user:pass@host:1/v1?key=secret-key", {}).describe()
    assert "secret-key" not in json.dumps(description) and "pass" not in json.dumps(description)
    assert description["model"] == "gpt-4o" and len(description["prompt_sha256"]) == 64


def test_a_users_template_names_its_fields_or_has_four_holes(tmp_path):
    sample, answer = samples(1)[0], Answer("{question} {} hi")
    file = tmp_path / "t.txt"
    file.write_text("C {} Q {} R {} A {} end")
    assert (
        Rubric(file).fill(sample, answer)
        == "C Vase, Stool Q Which {stool}? R The left. A {question} {} hi end"
    )
    file.write_text("{answer}|{question}|{reference}|{image_contents}")
    assert (
        Rubric(file).fill(sample, answer) == "{question} {} hi|Which {stool}?|The left.|Vase, Stool"
    )
    file.write_text("{answer} only")
    with pytest.raises(JudgeError, match="does not name its fields"):
        Rubric(file)


@pytest.mark.parametrize(
    ("review", "rating"),
    [
        ("- Rating: 5, very informative", 5),
        ("RATING: 0", 0),
        ("Rating: 4 … or rating: 2", 0),  # two ratings: none
        ("Rating: 7", 0),
        ("I rate it 6", 0),
        ("rating:6", 0),  # the rule wants the space
        ("Rating: 10", 1),  # bug for bug
        ("", 0),
    ],
)
def test_the_official_reading_of_a_rating(review, rating):
    assert official_rating(review) == rating


def test_unrated_official_reviews_are_zero_by_rule_and_counted():
    sample = samples(1)[0]
    score = MMHAL.score(sample, Answer("x"), Verdict("no figure here", official=True))
    expected = {
        "rating": 0,
        "hallucination": True,
        "informativeness": 0,
        "correct": False,
        "unrated": True,
    }
    assert score.values == expected
    assert MMHAL.score(sample, Answer("x"), None).unscored == "not judged"
    assert "no verdict" in MMHAL.score(sample, Answer("x"), Verdict("", "down")).unscored
    assert [informativeness(rating) for rating in range(7)] == [0, 1, 2, 0, 1, 2, 3]
    assert ratings_in("rating: 3 rating: 3") == [3]


def test_recorded_reviews_in_every_form(tmp_path, shared):
    log = (shared / "outputs" / "mmhal_llava-onevision-0.5b" / "reviews.txt").read_text()
    reviews = read_reviews(log)
    assert len(reviews) == 96 and "Average score" not in reviews["95"]
    assert all(len(ratings_in(text)) == 1 for text in reviews.values())
    official = json.dumps(
        [{"choices": [{"message": {"content": text}}]} for text in reviews.values()]
    )
    assert read_reviews(official) == reviews
    ours = "".join(
        json.dumps({"sample": f"s{i}", "text": t, "judge": "x"}) + "\n"
        for i, t in enumerate(["a", "b"])
    )
    assert read_reviews(ours) == {"s0": "a", "s1": "b"}
    lines = '{"sample": "s0", "text": "a\u2028b"}\n{"sample": 1, "text": "c"}\n'
    assert read_reviews(lines) == {"s0": "a\u2028b", "1": "c"}
    array = json.dumps([{"sample": "s0", "text": "a"}, {"sample": "s1", "text": "b"}])
    assert read_reviews(array) == {"s0": "a", "s1": "b"}
    file = tmp_path / "reviews"
    for content in ("", "no numbers", "[", '{"sample": 1}'):
        file.write_text(content)
        with pytest.raises(JudgeError):
            ReplayJudge(str(file), {})


def test_a_missing_review_is_no_verdict(tmp_path):
    file = tmp_path / "r.txt"
    file.write_text("0 Good.\nRating: 6\n")
    (batch,) = ReplayJudge(str(file), {}).judge([(sample, Answer("x")) for sample in samples(2)])
    assert [verdict.error for _, verdict in batch] == [None, "no recorded review"]


@pytest.mark.parametrize(
    ("review", "rating"),
    [
        ("Fine.\nRating: 4", 4),
        ("**Rating:** 4", 4),
        ("**Rating**: 4", 4),
        ("### Rating\n4", 4),
        ("Rating: 4/6", 4),
        ("Rating: 4 out of 6.", 4),
        ("rating 4", 4),
        ("Rating (0-6): 4", 4),
        ("My rating is 0, not informative", 0),
        ('{"explanation": "fits", "rating": 4}', 4),
        ('```json\n{"Rating": "6"}\n```', 6),
        ("Rating: 4. I repeat: rating: 4", 4),
        ("On the rating 0-6 scale.\nRating: 3", 3),
        ("<think>Rating: 2? No.</think>\nRating: 5", 5),
        ("**Rating:** **4**", 4),
        ("**Rating:**\n**4**", 4),
        ("**Rating:** `4`", 4),
        ("Rating: [4]", 4),
        ("Rating: \\boxed{4}", 4),
        ("<rating>4</rating>", 4),
        ("Rating\uff1a4", 4),
        ('{"final_rating": 4}', 4),
        ("Rating: 4 (out of 6)", 4),
        ("Rating: 4, very informative, no hallucination", 4),
        ("Here is my reasoning for the rating:\n\n1. The dog is there.\n2. Fine.\n\nRating: 2", 2),
        ("Rating: 4\n- 2 cats are claimed and there", 4),
        ("A rating of 6 would need more. Rating: 2", 2),
        ("I give it a rating of 4.", 4),
        ("A rating of 6 is not warranted, so I give 2.", None),
        ("**Explanation of the rating**\n1. It claims a cat.\nFinal score: 4", None),
        ("Rating: 4 or 5", None),
        ("Rating: 4 to 5", None),
        ("Rating: 4, 5", None),
        ("Rating: **4**/10", None),
        ("Rating: 4 (out of 10)", None),
        ("Rating: 10", None),
        ("Rating: -1", None),
        ("Rating: 4.5", None),
        ("Rating: 4/10", None),
        ("Rating: 5, or rating: 4", None),
        ("A good answer.", None),
        ("<think>Rating: 5", None),
        ("The operating 4", None),
        ("", None),
    ],
)
def test_a_review_by_our_rubric_has_one_rating_or_none(review, rating):
    assert rubric_rating(review) == rating
    sample = samples(1)[0]
    score = MMHAL.score(sample, Answer("x"), Verdict(review))
    assert score.values.get("rating") == rating
    assert (score.unscored is None) == (rating is not None)


@pytest.mark.parametrize(
    ("text", "finish", "words"),
    [
        ("Rating: 10", "stop", "no single rating"),
        ("Rating: 1 or Rating: 2", "stop", "no single rating"),
        ("It is fine, and I would say", "length", "cut off"),
        ("Rating: 4", "length", "cut off"),
        ("<think>The question asks for", "length", "cut off"),
    ],
)
def test_a_review_without_a_rating_is_no_verdict_and_asked_for_again(text, finish, words):
    with chat_server(lambda n, body: completion(text, finish=finish)) as (url, seen):
        (verdict,) = judged(url, 1, max_tokens=77)
    assert words in verdict.error
    assert seen[0]["max_tokens"] == 77


def test_the_bound_of_a_review_and_its_prompt_are_recorded():
    described = OpenAIJudge("m@http://127.0.0.1:1/v1", {"max_tokens": 77}).describe()
    assert (described["max_tokens"], described["prompt"]) == (77, "ours")
    assert OpenAIJudge("m@http://127.0.0.1:1/v1", {}).describe()["max_tokens"] == 1024


def test_a_dead_judge_is_given_up():
    with chat_server(lambda n, body: (500, "application/json", b"{}")) as (url, _):
        judge = OpenAIJudge(f"m@{url}", {})
        verdicts = []
        with pytest.raises(JudgeError, match="does not answer"):
            for batch in judge.judge([(sample, Answer("x")) for sample in samples(200)]):
                verdicts += batch
    # What was under way is handed over too.
    assert GIVE_UP <= len(verdicts) <= GIVE_UP + CONCURRENT
    assert all(verdict.error for _, verdict in verdicts)


def test_recorded_official_reviews_keep_the_official_reading_and_ours_keep_ours(tmp_path):
    official, ours = tmp_path / "reviews.json", tmp_path / "verdicts.jsonl"
    official.write_text(json.dumps(["**Rating:** 4", "Rating: 4"]))
    rows = [{"sample": f"s{n}", "judge": "j", "text": "**Rating:** 4"} for n in range(2)]
    ours.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ratings = {}
    for file in (official, ours):
        judge = ReplayJudge(str(file), {})
        (batch,) = judge.judge([(sample, Answer("x")) for sample in samples(2)])
        scores = [MMHAL.score(sample, Answer("x"), verdict) for sample, verdict in batch]
        ratings[judge.describe()["reading"]] = [score.values["rating"] for score in scores]
    assert ratings == {"official": [0, 4], "rubric": [4, 4]}
