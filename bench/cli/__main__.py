"""`python -m bench.cli`: the `bench` command."""

from bench.cli.main import app

if __name__ == "__main__":
    app(prog_name="bench")
