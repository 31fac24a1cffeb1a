"""The golden data's download, against a loopback server that has the real files, and liars."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict

import pytest

from bench.errors import DataError
from tests.golden import get_data
from tests.golden.get_data import Source, get, read_sources
from tests.loopback_files import serve


def test_every_file_of_the_shared_data_has_its_source(shared):
    """What is taken as it is has the digest of the table."""
    for source in read_sources():
        content = (shared / source.path).read_bytes()
        if source.derive is None:
            assert get_data._digest(content) == source.sha256, source.path
    paths = {source.path for source in read_sources()}
    folders = ("pope", "mmhal", "chair", "amber", "images", "outputs")
    there = set()
    for folder in folders:
        for file in (shared / folder).rglob("*"):
            if file.is_file():
                there.add(file.relative_to(shared).as_posix())
    assert there == paths


def test_files_are_laid_out_checked_and_not_downloaded_twice(shared, tmp_path, monkeypatch):
    sources = [source for source in read_sources() if source.derive is None]
    files = {}
    for source in sources:
        content = (shared / source.path).read_bytes()
        files[f"{source.repository}/{source.commit}/{source.source}"] = content
    monkeypatch.setattr(get_data, "read_sources", lambda: iter(sources))
    with serve(files) as (url, requested):
        assert get_data.main(["--out", str(tmp_path), "--base", url]) == 0
        assert len(requested) == len(sources)
        assert get_data.main(["--out", str(tmp_path), "--base", url]) == 0
        assert len(requested) == len(sources), "nothing is downloaded twice"
    for source in sources:
        assert (tmp_path / source.path).read_bytes() == (shared / source.path).read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"another content"])
def test_a_missing_or_changed_source_is_told_and_nothing_is_written(tmp_path, content):
    source = Source("a/b.json", "owner/name", "c0", "b.json", "0" * 64, "0" * 64)
    files = {} if content is None else {"owner/name/c0/b.json": content}
    with serve(files) as (url, _), pytest.raises(DataError) as raised:
        get(source, tmp_path, url)
    assert "a/b.json" in raised.value.fact and url in raised.value.reason
    assert list(tmp_path.rglob("*")) == []


def chair_pickle(objects: dict[int, set[str]]) -> bytes:
    """A pickle as chair.py leaves it: an object of a class CHAIR in __main__."""
    chair = get_data._Chair()
    chair.imid_to_objects = defaultdict(list, objects)
    name = f"{get_data._Chair.__module__}\n_Chair\n".encode()
    return pickle.dumps(chair, protocol=2).replace(b"c" + name, b"c__main__\nCHAIR\n")


def test_chairs_ground_truth_is_read_from_its_pickle():
    content = chair_pickle({7: {"dog", "cat"}, 3: {"dog"}})
    assert json.loads(get_data.chair_objects(content)) == {
        "categories": ["cat", "dog"],
        "images": {"3": [1], "7": [0, 1]},
    }


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    hostile = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    with pytest.raises(pickle.UnpicklingError, match=r"os\.system"):
        get_data.chair_objects(hostile)
    assert not (tmp_path / "ran").exists()


def test_account_ids_are_taken_out_of_the_log():
    log = b"key org-AbCdEf0123456789 done org-short"
    assert get_data.without_account_ids(log) == b"key org-REDACTED done org-short"
