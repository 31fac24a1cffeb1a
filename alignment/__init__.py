"""From prompts to an aligned checkpoint (the Synth-Align method, arXiv 2412.17417)."""
