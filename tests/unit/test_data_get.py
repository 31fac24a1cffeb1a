"""`bench data get` against a loopback server with the real files, and liars; CHAIR's own truth."""

from __future__ import annotations

import hashlib
import json

import pytest

from bench.cli.chair_objects import build
from bench.data import get as get_module
from bench.data.get import RECORD, get
from bench.data.source_table import BASE_VARIABLE, chosen, table
from bench.errors import DataError, StoreError, UnknownNameError
from tests.conftest import bench
from tests.loopback_files import serve


def on_the_server(shared, names):
    """The real files of benchmarks, where their repositories have them."""
    files = {}
    for name in names:
        for file in table()[name].files:
            content = (shared / file.path).read_bytes()
            files[f"{file.repository}/{file.commit}/{file.source}"] = content
    return files


def test_files_are_laid_out_recorded_and_not_downloaded_twice(shared, tmp_path, monkeypatch):
    names = ["pope", "repope", "amber", "chair"]
    with serve(on_the_server(shared, names)) as (address, requested):
        monkeypatch.setenv(BASE_VARIABLE, address)
        done = bench("data", "get", *names, "--out", tmp_path / "data")
        assert done.returncode == 0, done.stderr
        assert "pope, left to you: COCO's val2014 images" in done.stdout
        count = len(requested)
        (tmp_path / "data" / "amber" / "relation.json").write_text("{")
        again = bench("data", "get", *names, "--out", tmp_path / "data")
    assert again.returncode == 0 and len(requested) == count + 1, "only what was damaged"
    for name in names:
        for file in table()[name].files:
            content = (shared / file.path).read_bytes()
            assert (tmp_path / "data" / file.path).read_bytes() == content
    record = json.loads((tmp_path / "data" / RECORD).read_text())
    assert record["pope/coco/coco_pope_random.json"]["licence"] == "MIT"
    checked = bench("data", "check", tmp_path / "data", "--suite", "repope")
    assert "repope: 8185 samples" in checked.stdout


@pytest.mark.parametrize("fault", ["another content", "cut off", "gone"])
def test_a_source_that_lies_writes_nothing_and_keeps_the_rest(shared, tmp_path, monkeypatch, fault):
    files = on_the_server(shared, ["repope"])
    last = list(files)[-1]
    announced = 0
    if fault == "another content":
        files[last] += b"\n"
    elif fault == "gone":
        del files[last]
    else:
        announced = 100
    with serve(files, announced) as (address, _):
        monkeypatch.setenv(BASE_VARIABLE, address)
        with pytest.raises(DataError) as error:
            list(get(table()["repope"], tmp_path))
    assert {
        "another content": "is not the file that is meant",
        "cut off": "could not be downloaded",
        "gone": "404",
    }[fault] in str(error.value) or "was cut off" in str(error.value)
    kept = sorted(path.name for path in (tmp_path / "pope" / "repope").glob("*")) if (
        tmp_path / "pope"
    ).exists() else []  # fmt: skip
    assert len(kept) == (0 if fault == "cut off" else 2)
    assert not list(tmp_path.rglob("*.tmp"))


def test_unknown_names_and_a_full_disk_are_told(shared, tmp_path, monkeypatch):
    with pytest.raises(UnknownNameError, match="knows no 'poppe'"):
        chosen(["poppe"])
    assert [benchmark.name for benchmark in chosen(["all", "pope"])] == list(table())

    def full(file, content):
        raise StoreError("no space", "full", "free some")

    monkeypatch.setattr(get_module, "replace_file", full)
    with serve(on_the_server(shared, ["chair"])) as (address, _):
        monkeypatch.setenv(BASE_VARIABLE, address)
        with pytest.raises(StoreError):
            list(get(table()["chair"], tmp_path))


def test_every_pinned_digest_is_that_of_the_shared_data(shared):
    for benchmark in table().values():
        for file in benchmark.files:
            if not file.is_of_hub and (shared / file.path).is_file():
                content = (shared / file.path).read_bytes()
                assert hashlib.sha256(content).hexdigest() == file.sha256, file.path


def coco_files(folder, year=2014):
    """Small annotation files in COCO's form: two images of train, one of val."""
    folder.mkdir()
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    info = {"year": year}
    content = {
        "instances_train2014.json": {
            "images": [{"id": 9}, {"id": 25}],
            "annotations": [{"image_id": 9, "category_id": 18}, {"image_id": 9, "category_id": 1}],
            "categories": categories,
        },
        "instances_val2014.json": {
            "images": [{"id": 42}],
            "annotations": [{"image_id": 42, "category_id": 1}],
            "categories": categories,
        },
        "captions_train2014.json": {
            "annotations": [{"image_id": 25, "caption": "Two puppies and a toilet seat."}]
        },
        "captions_val2014.json": {
            "annotations": [{"image_id": 42, "caption": "A woman rides a bike."}]
        },
    }
    for name, value in content.items():
        (folder / name).write_text(json.dumps({"info": info} | value))
    return folder


def test_chairs_truth_is_built_from_cocos_own_annotations(shared, tmp_path):
    out = tmp_path / "data"
    (out / "chair").mkdir(parents=True)
    coco = coco_files(tmp_path / "coco")
    done = bench("data", "chair", "--coco", coco, "--out", out)
    assert done.returncode == 2 and "bench data get chair" in done.stderr
    (out / "chair" / "synonyms_LisaAnne.txt").write_bytes(
        (shared / "chair" / "synonyms_LisaAnne.txt").read_bytes()
    )
    done = bench("data", "chair", "--coco", coco, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "the objects of 3 images" in done.stdout
    (file,) = (out / "chair").glob("coco2014*.json")
    truth = json.loads(file.read_text())
    objects = {
        image: {truth["categories"][index] for index in indices}
        for image, indices in truth["images"].items()
    }
    # A toilet's seat is no chair; puppies, a woman and a bike are dogs, a person and a bicycle.
    assert objects == {"9": {"dog", "person"}, "25": {"dog", "toilet"}, "42": {"person", "bicycle"}}


def test_real_images_get_the_objects_that_they_have(shared, tmp_path):
    """From annotations alone, the objects listed beside COCO's pictures; captions add the others."""
    objects = json.loads((shared / "images" / "coco" / "objects.json").read_text())
    truth_file = shared / "chair" / "coco2014_chair_gt__wordnet_pos_lemma.json"
    official = json.loads(truth_file.read_text())
    out = tmp_path / "data"
    (out / "chair").mkdir(parents=True)
    synonyms = "synonyms_LisaAnne.txt"
    (out / "chair" / synonyms).write_bytes((shared / "chair" / synonyms).read_bytes())
    coco = coco_files(tmp_path / "coco")
    names = official["categories"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    images, annotations = [], []
    for file, present in objects.items():
        number = int(file[-16:-4])
        images.append({"id": number})
        for name in present:
            row = {"image_id": number, "category_id": 1 + names.index(name)}
            annotations.append(row)
    content = {"images": images, "annotations": annotations, "categories": categories}
    content["info"] = {"year": 2014}
    (coco / "instances_val2014.json").write_text(json.dumps(content))
    (coco / "captions_val2014.json").write_text('{"info": {"year": 2014}, "annotations": []}')
    file, _, _ = build(coco, out)
    truth = json.loads(file.read_text())
    for name, present in objects.items():
        number = str(int(name[-16:-4]))
        built = {truth["categories"][index] for index in truth["images"][number]}
        assert built == set(present)
        assert built <= {names[index] for index in official["images"][number]}


def test_annotations_of_another_year_or_form_are_told(shared, tmp_path):
    out = tmp_path / "data"
    (out / "chair").mkdir(parents=True)
    (out / "chair" / "synonyms_LisaAnne.txt").write_text("person, woman\ndog\n")
    with pytest.raises(DataError, match="It is of 2017"):
        build(coco_files(tmp_path / "2017", 2017), out)
    with pytest.raises(DataError, match="cannot be read"):
        build(tmp_path / "nothing", out)
    coco = coco_files(tmp_path / "coco")
    (coco / "captions_val2014.json").write_text('{"annotations": [{"image_id": 1}]}')
    with pytest.raises(DataError, match="Field required: caption of 1 of annotations"):
        build(coco, out)
    caption = {"image_id": 1, "caption": {"text": "A dog."}}
    (coco / "captions_val2014.json").write_text(json.dumps({"annotations": [caption]}))
    with pytest.raises(DataError, match="caption of 1 of annotations is"):
        build(coco, out)
    (coco / "instances_val2014.json").write_text('{"images": [')
    with pytest.raises(DataError, match="truncated or corrupt"):
        build(coco, out)
