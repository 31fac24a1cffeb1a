"""Judges: who rates open answers."""
