"""Pure functions: answers and references in, numbers out."""
