"""A run: what was asked, how it is made, its files, and how it is read again."""
