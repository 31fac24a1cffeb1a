"""Synth-Align Bench: measure how much a vision-language model hallucinates."""

__version__ = "0.1.0"
