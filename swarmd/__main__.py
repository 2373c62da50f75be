"""`python -m swarmd`."""

from swarmd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
