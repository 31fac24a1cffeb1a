"""Pure functions: answers and references in, numbers out. They import `bench.types` and `bench.stats` only."""
