"""What sentences claim: asserted, denied, hedged, asked. Every expectation is read by a person."""

from __future__ import annotations

import json
import re

import pytest

from bench.errors import BenchError
from bench.grounding.readers import Response, reader_of
from bench.language.claims import claims_of, object_claim, what_is_asked_to_exist
from bench.language.object_mentions import read_synonyms
from bench.scenes.facts import synonym_lines

SYNONYMS = read_synonyms(synonym_lines())
DOG, CAT, GLASS = (object_claim(name) for name in ("dog", "cat", "wine glass"))


def asked(claim):
    return claim._replace(asked=True)


def no(claim):
    return claim._replace(denied=True)


@pytest.mark.parametrize(
    ("text", "instruction", "claims"),
    [
        (
            "The image shows a dog and two cats in a park.",
            "Describe.",
            [DOG, CAT, object_claim("cat", 2)],
        ),
        ("There are two small dogs and a cat.", "Describe.", [DOG, object_claim("dog", 2), CAT]),
        ("A dog and a cat. There is also a dog.", "Describe.", [DOG, CAT]),
        (
            "A dog and two cats. The dog is brown, the two cats are small.",
            "?",
            [DOG, CAT, object_claim("cat", 2)],
        ),
        ("There is no dog in the image.", "Where is the dog?", [asked(no(DOG))]),
        ("The cat is small. There is no dog.", "?", [CAT, no(DOG)]),
        ("Yes", "Is there a wine glass in the image?", [asked(GLASS)]),
        ("No.", "Is there a wine glass in the image?", [asked(no(GLASS))]),
        ("No.", "Is there a dog in the image?\nAnswer with one word.", [asked(no(DOG))]),
        ("No, but there is a puppy.", "Is there a cat?", [DOG, asked(no(CAT))]),
        ("No, the dog is left of it.", "Is the dog right of the cat?", [asked(DOG)]),
        ("Yes", "Is the dog to the left of the couch?", []),
        ("No", "Is the dog to the left of the couch?", []),
        ("No", "Is there a dog on the couch?", []),
        ("No", "Is there a red car in the image?", []),
        ("No", "Are there a dog and a cat in the image?", []),
        ("Yes", "Does the image show a dog?", [asked(DOG)]),
        ("No", "Can you see any dogs in the picture?", [asked(no(DOG))]),
        ("No", "Is a dog visible in the image?", [asked(no(DOG))]),
        ("Yes", "Is the dog small?", []),
        ("Nothing.", "Is there a cat?", []),
        ("", "Is there a cat?", []),
    ],
)
def test_what_a_response_claims(text, instruction, claims):
    assert claims_of(text, instruction, SYNONYMS) == claims


def test_only_questions_for_an_object_ask_if_it_exists():
    assert what_is_asked_to_exist("Are there any traffic lights in this photo?") == "traffic lights"
    assert what_is_asked_to_exist("How many dogs are there in the image?") is None
    assert what_is_asked_to_exist("Is the dog in the image small or large?") is None
    assert what_is_asked_to_exist("Describe the image.") is None


# (sentence, asserted, denied); of numbers, "dog=2".
SENTENCES = [
    ("There is no cat on the couch.", "couch", "cat"),
    ("There is no dog sitting on a couch.", "", "dog"),
    ("There is no dog, and the cat sits on the couch.", "cat couch", "dog"),
    ("There is no cat and a dog sleeps.", "dog", "cat"),
    ("There are no cats and dogs in the image.", "", "cat dog"),
    ("There are no cats, dogs, or birds in the image.", "", "cat dog bird"),
    ("There is no dog, cat, or bird on the bed.", "bed", "dog cat bird"),
    ("There are no people or personal items, but a dog.", "dog", "person"),
    ("There is no car, a bus and two trucks.", "bus truck truck=2", "car"),
    ("The image does not show a dog.", "", "dog"),
    ("The image doesn't contain a dog or a cat, but a horse.", "horse", "dog cat"),
    ("I don't see a dog in the image, only a cat.", "cat", "dog"),
    ("There isn't a dog in the picture. There is a cat.", "cat", "dog"),
    ("It is not a dog but a cat.", "cat", "dog"),
    ("Neither a dog nor a cat is in the picture.", "", "dog cat"),
    ("The man is not wearing a tie.", "person", "tie"),
    ("The man without a backpack holds a kite.", "person kite", "backpack"),
    ("A bed without books and a clock.", "bed clock", "book"),
    ("Without a car, the street looks empty; a bicycle stands there.", "bicycle", "car"),
    ("The scene is devoid of any people, focusing on the clock.", "clock", "person"),
    ("The room lacks a tv.", "", "tv"),
    ("The street is free of cars.", "", "car"),
    ("There is nothing on the bed except a cup.", "bed cup", ""),
    ("No people are visible, but a dog is.", "dog", "person"),
    ("While there is no dog, there is a cat.", "cat", "dog"),
    ("There are two dogs, but no cat, on the bed.", "dog dog=2 bed", "cat"),
    # Not denied, though there is a word that denies.
    ("The dog is not brown.", "dog", ""),
    ("The dog is not on the couch.", "dog couch", ""),
    ("The dog is not fully visible.", "dog", ""),
    ("The dog's face is not visible.", "dog", ""),
    ("None of the people are standing.", "person", ""),
    ("Not all of the people are sitting.", "person", ""),
    ("Not only a dog but also a cat is there.", "dog cat", ""),
    ("The man is alone, with no other people around.", "person", ""),
    ("No, the dog is on the couch.", "dog couch", ""),
    ("The sign says 'No dogs' beside a bicycle.", "bicycle", ""),
    ("There's no one on the bed.", "bed", ""),
    # Subjects whose presence is denied behind them.
    ("A dog is not visible in the image.", "", "dog"),
    ("A cat cannot be seen.", "", "cat"),
    ("The dog is absent.", "", "dog"),
    # Hedges and questions claim nothing.
    ("There might be a dog behind the car.", "car", ""),
    ("Perhaps there is a car in the background.", "", ""),
    ("It could be a cat.", "", ""),
    ("There is a dog and possibly a cat.", "dog", ""),
    ("It looks like a dog.", "", ""),
    ("A dog may be present in the image.", "", ""),
    ("A dog may be sleeping on the couch.", "dog couch", ""),
    ("It is unclear whether there is a dog.", "", ""),
    ("If there were a dog, the cat would run.", "cat", ""),
    ("The man uses a laptop rather than a keyboard.", "person laptop", ""),
    ("Is there a dog?", "", ""),
    ("Do you see a cat or a dog? There is a car.", "car", ""),
    # Numbers.
    ("One of the people holds an umbrella.", "person umbrella", ""),
    ("Two of the dogs run.", "dog", ""),
    ("At least two dogs are there.", "dog", ""),
    ("Two or three dogs are there.", "dog", ""),
    ("One dog is on the left and another dog on the right.", "dog", ""),
    ("There is one dog.", "dog dog=1", ""),
    ("A truck is parked next to two dogs.", "truck dog dog=2", ""),
    ("A group of three small dogs.", "dog dog=3", ""),
]


def by_name(claims):
    asserted, denied = set(), set()
    for claim in claims:
        name = claim.subject + (f"={claim.number}" if claim.number else "")
        (denied if claim.denied else asserted).add(name)
    return asserted, denied


@pytest.mark.parametrize(("sentence", "asserted", "denied"), SENTENCES)
def test_what_a_sentence_asserts_and_denies(sentence, asserted, denied):
    claims = claims_of(sentence, "Describe the image.", SYNONYMS)
    assert by_name(claims) == (set(asserted.split()), set(denied.split()))


# Sentences of recorded captions: (image, number of the sentence, asserted, denied).
BEAM = [
    (396608, 6, "", ""),
    (535198, 4, "airplane", "person"),
    (338159, 7, "", "person"),
    (41246, 6, "clock", ""),
    (6306, 5, "", "person"),
    (304817, 5, "snowboard", "person"),
    (53434, 5, "", "person"),
    (202748, 6, "", ""),
    (253557, 3, "airplane", ""),
    (253557, 6, "", ""),
    (344762, 3, "car", ""),
    (67788, 2, "boat", ""),
    (295412, 2, "boat", ""),
    (95063, 2, "traffic light", ""),
    (575406, 8, "", ""),
    (551791, 1, "suitcase", ""),
    (71302, 4, "", ""),
    (476810, 0, "cat", ""),
    (352734, 4, "", ""),
    (490842, 1, "pizza", ""),
    (235130, 4, "skis", ""),
    (451284, 0, "laptop", ""),
    (551737, 1, "", ""),
    (132509, 3, "person", ""),
    (418933, 1, "bench", ""),
    (16025, 2, "cat", ""),
]
SAMPLING = [
    (344762, 3, "", "person"),
    (480280, 4, "", "person"),
    (281019, 7, "", "person"),
    (202748, 6, "", "person"),
    (510230, 4, "", "person"),
    (473623, 5, "", "person"),
    (128842, 5, "", "person"),
    (304817, 4, "", "person"),
    (202748, 5, "", ""),
    (95063, 1, "", ""),
    (270571, 4, "person", ""),
    (357044, 2, "horse", ""),
    (581560, 5, "bear", ""),
    (145488, 0, "", ""),
    (89556, 4, "", ""),
    (418701, 2, "bus car", ""),
]
RECORDED = [("beam-search", *row) for row in BEAM] + [
    ("sampling-decoding", *row) for row in SAMPLING
]


@pytest.mark.parametrize(("decoding", "image", "number", "asserted", "denied"), RECORDED)
def test_what_a_recorded_sentence_asserts_and_denies(
    shared, decoding, image, number, asserted, denied
):
    synonyms = read_synonyms((shared / "chair" / "synonyms_LisaAnne.txt").read_text())
    file = shared / "outputs" / "chair_objhal" / f"{decoding}-eval-chair-300_answer.json"
    rows = json.loads(file.read_text())["sentences"]
    caption = next(row["caption"] for row in rows if row["image_id"] == image)
    sentence = re.split(r"(?<=[.!?;])\s+", caption)[number]
    claims = by_name(claims_of(sentence, "Describe the image.", synonyms))
    # "traffic light" has two words.
    names = {"traffic light"} if asserted == "traffic light" else set(asserted.split())
    assert claims == (names, set(denied.split()))


def test_a_claim_is_a_question_to_a_model():
    claims = (DOG, no(DOG), object_claim("knife", 1), object_claim("knife", 3))
    assert [claim.question for claim in claims] == [
        "Is there a dog in the image?",
        "Is there a dog in the image?",
        "Is there one knife in the image?",
        "Are there three knives in the image?",
    ]


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("Two snowboarders and a skier.", ["person"]),
        ("Ducks swim beside a kayak.", ["bird", "boat"]),
        ("An armchair stands next to the stove.", ["chair", "oven"]),
        # What is done is no thing.
        ("Their feet are planted firmly on the ground.", []),
        ("Her hair is tied back.", []),
        ("The plane bears a flag.", ["airplane"]),
        ("Another plane bearing a flag.", ["airplane"]),
        ("They skied and skateboarded all day.", []),
        # chair.py counts each of these as an object that it is not.
        ("A man is seated on a stool at a desk.", ["person"]),
        ("A computer monitor and a plastic container.", []),
    ],
)
def test_captions_of_photographs_claim_what_they_name_and_nothing_else(text, objects):
    reader = reader_of("coco", BenchError)
    ((_, claims),) = reader.read([Response(text, "Describe this image.")])
    assert sorted({claim.subject for claim in claims if not claim.denied}) == objects
