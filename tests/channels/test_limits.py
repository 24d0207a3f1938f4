"""Limits: what they may be, and how what happens in an interval is counted."""

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels import Limits
from adsum.channels.flow.ratelimit import RateLimit
from adsum.errors import ConfigurationError
from tests.support.effort import examples


@pytest.mark.parametrize("field", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", None, True])
def test_rate_limit_that_is_not_positive_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits(**{field: value})
    accepted = "a number of seconds above 0" if field == "interval" else "a whole number from 1"
    assert str(caught.value) == f"{field}={value!r}: must be {accepted}"


def test_rate_limit_allows_its_count_in_each_interval() -> None:
    meter = RateLimit(3, 10.0)
    assert [meter.allows(100.0 + n) for n in range(5)] == [True, True, True, False, False]
    assert not meter.allows(109.9)
    assert [meter.allows(110.0), meter.allows(110.0)] == [True, True]


@examples(100)
@given(st.integers(1, 5), st.lists(st.floats(0, 5), max_size=60))
def test_rate_limit_never_allows_twice_its_count_in_an_interval(
    limit: int, pauses: list[float]
) -> None:
    meter, now, allowed = RateLimit(limit, 10.0), 1000.0, list[float]()
    for pause in pauses:
        now += pause
        if meter.allows(now):
            allowed.append(now)
    for begin in allowed:
        assert sum(begin <= at < begin + 10.0 for at in allowed) <= 2 * limit
