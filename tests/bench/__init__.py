"""swarmd's trainer beside GenRL's own; `python -m tests.bench --help` says how to read it."""
