"""One file a benchmark: its samples, its prompt, the official scoring rule and its figures."""
