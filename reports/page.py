"""One self-contained HTML page: the verdict, a browser of samples, the board, and every run.

Texts of models are data, never markup: they travel as JSON and are shown as text nodes. The page's
own script is the only one that its content security policy lets run. Nothing is loaded from
anywhere but, if asked for, the pictures in the folder beside the page.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from string import Template
from typing import Any, Literal

from PIL import Image

from bench.data.images import read_image
from bench.errors import DataError
from bench.escaping import in_all_texts, visible
from bench.files import replace_file
from bench.runs.run import Run
from leaderboards.board import Board
from leaderboards.compare import Comparison
from reports.page_data import RunSamples, page_data
from reports.tables import Table

TEMPLATES = Path(__file__).parent / "templates"
Embed = Literal["thumbnails", "full", "none"]
BESIDE = "images"  # the folder of whole pictures beside the page
THUMBNAIL, WHOLE = 240, 1024  # pixels of the longer side
QUALITY = 82
# Characters that could end the script element or a line of JavaScript.
ESCAPED = "<>&\u2028\u2029"


def write_page(
    board: Board,
    runs: Sequence[Run],
    run_samples: Sequence[RunSamples],
    file: Path,
    comparisons: Sequence[Comparison] = (),
    tables: Sequence[Table] = (),
    embed: Embed = "thumbnails",
) -> None:
    """Writes the page.

    Args:
        board: The board.
        runs: The runs.
        run_samples: What they asked; a run that is not among them is in the tables only. Images
            that cannot be read are left grey.
        file: Where it goes.
        comparisons: The first view: what is different from the first model.
        tables: Tables over several runs, shown above the runs' own.
        embed: `thumbnails` puts small pictures into the page and whole ones into a folder beside
            it; `full` puts whole ones into the page; `none` leaves pictures out.
    """
    images: dict[str, Path] = {}
    if embed != "none":
        for item in run_samples:
            images |= item.images
    data = page_data(board, runs, run_samples, comparisons, tables, list(images))
    # Decoding and encoding leave Python's lock.
    with ThreadPoolExecutor() as pool:
        if embed == "thumbnails" and images:
            beside = file.parent / BESIDE
            beside.mkdir(exist_ok=True)
            numbers = range(len(images))
            pictures = pool.map(_beside, numbers, images.values(), repeat(beside))
            data["pictures"] = list(pictures)
        else:
            data["pictures"] = list(pool.map(_embedded, images.values()))
    replace_file(file, page_html(data))


def page_html(data: Mapping[str, Any]) -> str:
    """The page of some data, `pictures` included."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    # The policy names the one script that may run; what a model wrote cannot.
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = Template((TEMPLATES / "page.html").read_text(encoding="utf-8"))
    shown = {}
    for name, value in data.items():
        # Pictures are megabytes of our own making.
        shown[name] = value if name == "pictures" else in_all_texts(value, visible)
    return template.substitute(
        data=_safe_json(shown),
        script=script,
        script_hash=f"sha256-{script_hash}",
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def _safe_json(data: Any) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in ESCAPED:
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _beside(index: int, path: Path, folder: Path) -> list[str] | None:
    """A thumbnail for the page, and the name of the whole picture's file beside it.

    None if the file is no image.
    """
    image = opened(path)
    if image is None:
        return None
    # Named by number: an image's own name may be any text.
    name = f"{index}.jpg"
    (folder / name).write_bytes(jpeg(image))
    return [thumbnail(image), f"{BESIDE}/{name}"]


def _embedded(path: Path) -> list[str] | None:
    """The whole picture for the page; None if the file is no image."""
    image = opened(path)
    return None if image is None else [_data_url(image)]


def opened(path: Path) -> Image.Image | None:
    """A picture no larger than the page shows it; None if the file is no image."""
    try:
        image = read_image(path)
    except DataError:
        return None
    image.thumbnail((WHOLE, WHOLE))
    return image


def thumbnail(image: Image.Image) -> str:
    """The picture as small as it stands beside a question, as a data URL."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return _data_url(small)


def _data_url(image: Image.Image) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(image)).decode()}"


def jpeg(image: Image.Image) -> bytes:
    """The picture's file."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
