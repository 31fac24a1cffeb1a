"""How llava-tiny is trained: its architecture, its lessons, its card."""
