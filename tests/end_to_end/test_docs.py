"""What the documentation shows runs, and its links lead somewhere."""

from __future__ import annotations

import contextlib
import re

import pytest

from bench.models.protocol import Protocol, read_protocol
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_python_page_runs(tmp_path, capsys):
    text = (ROOT / "docs" / "python.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    with contextlib.chdir(tmp_path):
        exec(code, names)  # it is ours
    printed = capsys.readouterr().out
    assert re.search(r"^0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], n = 60$", printed, re.MULTILINE)
    assert re.search(r"^CHAIRs -?0\.\d+ \(-?0\.\d+, -?0\.\d+\) [01]\.\d+$", printed, re.MULTILINE)
    assert len(names["false_objects"]) == 60
    assert any(names["false_objects"].values())


def test_the_protocols_of_their_page_are_protocols(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/protocols.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.yaml").write_text(block)
        read_protocol(str(tmp_path / f"{number}.yaml"))
    table = (ROOT / "docs/protocols.md").read_text().split("| field |")[1]
    fields = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert fields == {"base", *Protocol.model_fields}


def test_importing_the_package_reads_nothing_of_the_api():
    import subprocess
    import sys

    code = "import sys, bench; print(bench.__version__, 'bench.api' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["False", "False"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http", "mailto:")):
            assert (page.parent / target).exists(), target
