"""Runs the command line as ``python -m adsum.cli``, where the script is not on the path."""

import sys

from adsum.cli import main

if __name__ == "__main__":
    sys.exit(main())
