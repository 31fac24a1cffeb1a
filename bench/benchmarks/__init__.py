"""One file per benchmark: its samples, its prompt, the official scoring rule and the figures beside it."""
