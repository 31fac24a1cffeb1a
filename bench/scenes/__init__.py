"""Scenes: a procedural world in COCO's vocabulary, whose every picture knows its facts."""
