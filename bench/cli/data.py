"""`bench data`: commands that make and check evaluation data; heavy imports stay inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import DataError
from bench.terminal import reports_errors, show

PREVIEWED = 24  # scenes on a contact sheet

app = typer.Typer(no_args_is_help=True, help="Make and check evaluation data.")


@app.command("pope")
@reports_errors
def data_pope(
    objects: Annotated[Path, typer.Option(help="The objects of every image: JSON or JSON lines.")],
    out: Annotated[Path, typer.Option(help="A data folder for `bench run --data`.")],
    seed: Annotated[int, typer.Option(help="Seed of the random negatives.")] = 0,
) -> None:
    """Build POPE questions (random, popular, adversarial) for any images from their objects."""
    from bench.data.pope_questions import build, read_objects, write

    usable, skipped = read_objects(objects)
    for file in write(build(usable, seed), out):
        show(str(file))
    show(f"{len(usable)} images; {skipped} with fewer than three objects left out.")


@app.command("get")
@reports_errors
def data_get(
    names: Annotated[list[str], typer.Argument(help="Benchmarks, or all.")],
    out: Annotated[Path, typer.Option(help="A data folder for `bench run --data`.")],
) -> None:
    """Download benchmarks' official files from their pinned sources, and check every digest.

    What is there already is kept; a benchmark that cannot be had does not stop the others. It ends
    with what it cannot bring.
    """
    from bench.data.get import RECORD, get
    from bench.data.source_table import chosen
    from bench.terminal import note, progress_bar

    benchmarks = chosen(names)
    total = sum(len(benchmark.files) for benchmark in benchmarks)
    lines = []
    faults = []
    with progress_bar("downloading", total) as progress:
        for benchmark in benchmarks:
            try:
                for file, is_new in get(benchmark, out):
                    lines.append(f"{'downloaded' if is_new else 'there already'}: {file.path}")
                    progress(1)
            except DataError as error:  # the others may be had
                faults.append(error)
    if lines:
        show("\n".join(lines))
        show(f"Where they came from: {out / RECORD}")
    for benchmark in benchmarks:
        if benchmark.left:
            show(f"{benchmark.name}, left to you: {benchmark.left}")
    for fault in faults[:-1]:
        note(f"{fault.fact} {fault.reason}")
    if faults:
        raise faults[-1]


@app.command("chair")
@reports_errors
def data_chair(
    coco: Annotated[
        Path, typer.Option(help="COCO's annotations: instances_… and captions_{train,val}2014.json")
    ],
    out: Annotated[Path, typer.Option(help="A data folder that has chair/synonyms_LisaAnne.txt.")],
) -> None:
    """Build CHAIR's ground truth from COCO's own annotations, by the official rule."""
    from bench.cli.chair_objects import build

    file, images, rule = build(coco, out)
    show(f"{file}: the objects of {images} images; captions read by the {rule} words")


@app.command("scenes")
@reports_errors
def data_scenes(
    out: Annotated[Path, typer.Option(help="A new folder; `bench run --data` takes it.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many pictures.")] = 500,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    seed: Annotated[int, typer.Option(help="Another seed, another set of scenes.")] = 0,
    preview: Annotated[
        Path | None, typer.Option(help="A contact sheet of the first 24 as PNG.")
    ] = None,
) -> None:
    """Write pictures of the built-in world with their facts and all benchmarks' questions."""
    from bench.scenes.data import write_new
    from bench.scenes.render import contact_sheet

    scenes = write_new(out, split, seed, n)
    sheet = ""
    if preview is not None:
        contact_sheet(scenes[:PREVIEWED]).save(preview, "PNG")
        sheet = f", contact sheet in {preview}"
    show(f"{len(scenes)} scenes in {out}{sheet}")


@app.command("pairs")
@reports_errors
def data_pairs(
    folder: Annotated[Path, typer.Argument(help="A preferences-… folder that `bench align` made.")],
    out: Annotated[
        Path, typer.Option(help="FILE.json in the released format, or FILE.parquet for trl.")
    ],
) -> None:
    """Write preference pairs for others' training scripts; parquet holds the pictures too."""
    from alignment.export import export

    count, images = export(folder, out)
    show(f"{count} pairs in {out}; pictures in {images}")


@app.command("check")
@reports_errors
def data_check(
    folder: Annotated[Path, typer.Argument(help="A folder of official files.")],
    images: Annotated[
        Path | None, typer.Option(help="Images, if they are not under FOLDER/images.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Only these benchmarks, separated by commas.")
    ] = None,
) -> None:
    """Verify counts, balance and images before a GPU hour is spent.

    Exit code 2 if something is wrong.
    """
    from bench.cli.data_check import check

    if not check(folder, images, suite.split(",") if suite else None):
        raise typer.Exit(2)
