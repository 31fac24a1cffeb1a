"""How well the grounding reward reads captions of photographs, beside CHAIR's official reading.

    python docs/experiments/claims_on_captions.py ../shared/data/outputs

No panel can be asked here, but a reward that misreads a caption is wrong whatever the panel says.
The captions are of real models, with the objects that CHAIR's own code found in them. CHAIR counts
every object that is named, a claim is one that the caption asserts. Where the two part, the caption
is printed, to be read: "+car" is a claim that CHAIR has not, "car" a mention and no claim.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from bench.errors import BenchError
from bench.grounding.readers import Response, reader_of

INSTRUCTION = "Please describe this image in detail."
FILES = (
    "chair_llava-1.5-7b/chair_seed1_predictions.json",
    "chair_objhal/beam-search-eval-chair-300_answer.json",
    "chair_objhal/sampling-decoding-eval-chair-300_answer.json",
)


def captions(file: Path) -> list[tuple[str, set[str]]]:
    """Captions with the objects that CHAIR's code found."""
    content = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(content, list):
        return [(row["model_answer"], set(row["mentioned_objects"])) for row in content]
    return [(row["caption"], set(row["mscoco_generated_words"])) for row in content["sentences"]]


def main() -> None:
    """Prints a row for each file, then what is mentioned and not claimed."""
    root = Path(sys.argv[1])
    reader = reader_of("coco", BenchError)
    left_out: list[tuple[str, str]] = []
    print("| captions | claims | also CHAIR's | mentions | also claimed | denied | numbers |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in FILES:
        rows = captions(root / name)
        responses = [Response(text, INSTRUCTION) for text, _ in rows]
        counts: Counter[str] = Counter()
        for number, claims in reader.read(responses):
            text, mentioned = rows[number]
            asserted = {c.subject for c in claims if c.kind == "object" and not c.denied}
            counts["claims"] += len(asserted)
            counts["both"] += len(asserted & mentioned)
            counts["mentions"] += len(mentioned)
            counts["denied"] += sum(claim.denied for claim in claims)
            counts["numbers"] += sum(claim.number is not None for claim in claims)
            left_out += [(subject, text) for subject in sorted(mentioned - asserted)]
            left_out += [(f"+{subject}", text) for subject in sorted(asserted - mentioned)]
        print(
            f"| {Path(name).stem} ({len(rows)}) | {counts['claims']:,} "
            f"| {counts['both'] / counts['claims']:.1%} | {counts['mentions']:,} "
            f"| {counts['both'] / counts['mentions']:.1%} "
            f"| {counts['denied']} | {counts['numbers']} |"
        )
    for subject, text in left_out:
        print(f"\n{subject}: {text}")


if __name__ == "__main__":
    main()
