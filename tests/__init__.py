"""The tests. A failing `assert` shows both of its sides, in modules that tests import as well."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{path.stem}" for path in Path(__path__[0]).iterdir()))
