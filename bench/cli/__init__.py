"""The `bench` command: it composes everything below it."""
