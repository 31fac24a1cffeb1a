"""The bench inside other tools, and other tools inside the bench."""
