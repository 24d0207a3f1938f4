"""The environment of tests and of the processes that they start, without a user's settings."""

import os

#: The variable that gives a test a runtime directory of its own.
RUNTIME_DIR = "ADSUM_RUNTIME_DIR"


def clean_environment() -> dict[str, str]:
    """The environment without settings of nodes, except the directory that a test has set."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == RUNTIME_DIR or not name.startswith("ADSUM_")
    }
