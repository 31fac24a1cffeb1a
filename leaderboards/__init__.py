"""Runs and published rows side by side, with statistics."""
