"""Pictures from phones, scanners and the web: shown as they are, by one rule for all models."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from bench.data.folder import Folder
from bench.data.images import peculiarities, read_image
from bench.errors import DataError
from bench.models.hf import HFModel
from bench.models.openai_api import data_url
from bench.types import Request
from tests.conftest import bench, draw
from tests.unit.test_shared_image import answers_of

RAMP = np.linspace(0, 65535, 9600).round().reshape(80, 120)
TOP_RED = np.zeros((40, 20, 3), np.uint8)  # taller than wide, red above blue
TOP_RED[:20, :, 0] = TOP_RED[20:, :, 2] = 255


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "wide.tif"])
def test_deep_grey_is_scaled(tmp_path, name):
    """Of 16 bits, and of 32 bits that hold 16."""
    dtype = np.int32 if name == "wide.tif" else np.uint16
    Image.fromarray(RAMP.astype(dtype)).save(tmp_path / name)
    pixels = np.asarray(read_image(tmp_path / name))
    assert pixels.shape == (80, 120, 3) and len(np.unique(pixels)) == 256
    assert np.abs(pixels[..., 0] - RAMP / 257).max() <= 0.5 + 1e-9
    assert any("16-bit grey" in text for text in peculiarities(tmp_path / name))


@pytest.mark.parametrize("values", [RAMP - 9, RAMP * 9])
def test_a_depth_without_a_scale_is_refused(tmp_path, values):
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="its values run from"):
        read_image(tmp_path / "a.tif")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="its values run from"):
        read_image(tmp_path / "b.tif")


def photograph(file: Path, orientation: int) -> Path:
    """A JPEG as a phone writes it: turned, with the turn in EXIF."""
    turns = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(TOP_RED)
    if turns[orientation] is not None:
        stored = stored.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(file, exif=exif, quality=95)
    return file


def is_red_on_top(image: Image.Image) -> bool:
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return image.height > image.width and pixels[2, 10, 0] > 200 and pixels[-3, 10, 2] > 200


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_stand_upright_for_local_models_and_servers(tmp_path, orientation):
    file = photograph(tmp_path / "a.jpg", orientation)
    assert is_red_on_top(read_image(file))
    assert is_red_on_top(read_image(file, upright=False)) == (orientation == 1)
    head, _, content = data_url(file).partition(",")
    sent = Image.open(io.BytesIO(base64.b64decode(content)))
    assert is_red_on_top(sent) and sent.getexif().get(0x0112, 1) == 1
    # The file's own bytes, where nothing has to be done.
    assert head.startswith("data:image/jpeg") == (orientation == 1)


def test_the_protocol_llava_takes_pixels_as_llava_does(tiny, tmp_path):
    turned = photograph(tmp_path / "turned.jpg", 6)
    stored = tmp_path / "stored.png"
    with Image.open(turned) as image:
        image.convert("RGB").save(stored)
    upright = tmp_path / "upright.png"
    read_image(turned).save(upright)
    requests = [
        Request(path.name, path.name, path, "Q?", "Q?", 8, False, ())
        for path in (turned, stored, upright)
    ]
    llava = answers_of(HFModel(str(tiny("llava")), {"protocol": "llava"}), requests)
    native = answers_of(HFModel(str(tiny("llava")), {"protocol": "native"}), requests)
    assert llava["turned.jpg"].text == llava["stored.png"].text != llava["upright.png"].text
    assert native["turned.jpg"].text == native["upright.png"].text != native["stored.png"].text
    described = HFModel(str(tiny("llava")), {"protocol": "llava"}).describe()["protocol"]
    assert described["orientation"] == "stored"


def saved(folder: Path, kind: str) -> Path:
    image = Image.fromarray(TOP_RED)
    if kind == "animation":
        file = folder / "a.gif"
        image.save(file, save_all=True, append_images=[Image.new("RGB", image.size, "green")])
    elif kind == "pages":
        file = folder / "a.tif"
        image.save(file, save_all=True, append_images=[Image.new("RGB", image.size, "green")])
    elif kind == "cmyk":
        file = folder / "a.jpg"
        image.convert("CMYK").save(file, quality=95)
    elif kind == "palette":
        file = folder / "a.png"
        image.quantize(8).save(file)
    elif kind == "transparent":
        file = folder / "a.png"
        image.putalpha(Image.new("L", image.size, 128))
        image.save(file)
    else:
        file = folder / f"a.{kind}"
        image.save(file)
    return file


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("animation", "the first is shown"),
        ("pages", "the first is shown"),
        ("cmyk", "CMYK"),
        ("palette", "palette"),
        ("transparent", "transparent in parts"),
        ("tif", "TIFF, sent to servers as PNG"),
        ("avif", "AVIF, sent to servers as PNG"),
    ],
)
def test_other_kinds_of_pictures_follow_a_stated_rule(tmp_path, kind, said):
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    file = saved(tmp_path, kind)
    assert is_red_on_top(read_image(file))
    assert any(said in text for text in peculiarities(file))
    head, _, content = data_url(file).partition(",")
    sent = Image.open(io.BytesIO(base64.b64decode(content)))
    assert getattr(sent, "n_frames", 1) == 1 and is_red_on_top(sent)
    if kind not in ("palette", "transparent"):
        assert head == "data:image/png;base64"


def test_a_plain_picture_has_nothing_peculiar(tmp_path):
    file = draw(tmp_path / "a.png", 1)
    assert peculiarities(file) == []


@pytest.mark.parametrize("size", [(60_000, 10), (10, 20_000)])
def test_a_strip_is_not_padded_to_gigabytes(tiny, tmp_path, size):
    Image.new("RGB", size, "red").save(tmp_path / "strip.png")
    good = draw(tmp_path / "good.png", 1)
    requests = [
        Request(path.name, path.name, path, "Q?", "Q?", 4, True, ())
        for path in (tmp_path / "strip.png", good)
    ]
    answers = answers_of(HFModel(str(tiny("llava")), {"protocol": "llava"}), requests)
    assert "cannot be padded to a square" in answers["strip.png"].error
    assert answers["good.png"].error is None


@pytest.mark.parametrize("size", [(10001, 5000), (20000, 20000)])
def test_a_picture_of_kilobytes_that_takes_gigabytes_is_refused(tmp_path, size):
    Image.new("1", size).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(DataError, match=r"bomb\.png cannot be read") as refusal:
        read_image(tmp_path / "bomb.png")
    assert "pixels" in refusal.value.reason


def test_data_check_tells_what_is_peculiar(pictures, tmp_path):
    import shutil

    data = Path(shutil.copytree(pictures, tmp_path / "data"))
    images = sorted((data / "images").rglob("*.png"))
    with Image.open(images[0]) as image:
        image.quantize(8).save(images[0])
    grey = np.linspace(0, 65535, 5400).reshape(60, 90).astype(np.uint16)
    Image.fromarray(grey).save(images[1])
    done = bench("data", "check", data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"1 of {len(images)} images: 16-bit grey, scaled to 8 bits; the first is" in done.stdout
    assert f"1 of {len(images)} images: of a palette, converted to RGB" in done.stdout


def test_links_to_folders_above_are_not_followed_for_ever_and_others_are(tmp_path):
    images = tmp_path / "data" / "images"
    elsewhere = tmp_path / "elsewhere" / "VD" / "figure"
    for folder in (images / "coco", elsewhere):
        folder.mkdir(parents=True)
    draw(images / "coco" / "a.png", 1)
    draw(elsewhere / "b.png", 2)
    for number in range(8):
        (images / f"loop{number}").symlink_to(".")
        (images / "coco" / f"up{number}").symlink_to("../..")
    for name in ("first", "hallusion_bench"):
        (images / name).symlink_to(tmp_path / "elsewhere")
    data = Folder(tmp_path / "data")
    assert data.image("a.png", "coco") == images / "coco" / "a.png"
    assert (
        data.image("VD/figure/b.png", "hallusion_bench").read_bytes()
        == (elsewhere / "b.png").read_bytes()
    )
    assert data.image("c.png", "coco") is None
