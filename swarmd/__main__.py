"""`python -m swarmd`."""

from swarmd.cli import program

if __name__ == "__main__":
    program()
