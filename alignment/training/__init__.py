"""Preference training: trainer, collator, artifacts, several processes."""
