"""Frames that nearly are messages: the codec refuses them as it refuses garbage."""

import pytest

from adsum.errors import ProtocolError
from adsum.replication.codec import decode

DELTA = '[2,"n",1,0,1,1,[1],[0],{topics},{keys},{metas},[0],[],[]]'


@pytest.mark.parametrize("column", ["topics", "keys", "metas"])
@pytest.mark.parametrize("instead", ['"t"', '{"t":1}', '{"{}":1}'])
def test_delta_column_that_is_not_a_list_is_rejected(column: str, instead: str) -> None:
    columns = {"topics": '["t"]', "keys": '["k"]', "metas": '["{}"]'}
    decode(_delta(columns))
    with pytest.raises(ProtocolError):
        decode(_delta({**columns, column: instead}))


@pytest.mark.parametrize("depth", [10, 500, 900, 950, 980, 1000, 100_000])
def test_deeply_nested_message_kind_is_rejected(depth: int) -> None:
    for inner in ("", "1"):
        with pytest.raises(ProtocolError):
            decode(("[" * depth + inner + "]" * depth).encode())


def _delta(columns: dict[str, str]) -> bytes:
    text = DELTA
    for name, value in columns.items():
        text = text.replace("{" + name + "}", value)
    return text.encode()
