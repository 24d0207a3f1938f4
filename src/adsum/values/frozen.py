"""Read-only dicts and lists, for answers that many readers share.

They are real dicts and lists, so comparing, encoding and type-checking them works as usual; any
method that would alter them raises `TypeError`. A copy, a deep copy or a pickle of one is an
ordinary, mutable dict or list.
"""

from typing import Any, NoReturn


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError(f"{type(self).__name__} is read-only; copy.deepcopy() returns a mutable copy")


class FrozenDict(dict[str, Any]):
    """A dict that cannot be altered."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, _: object) -> dict[str, Any]:
        return {key: thaw(value) for key, value in self.items()}

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (thaw(self),)


class FrozenList(list[Any]):
    """A list that cannot be altered."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, _: object) -> list[Any]:
        return [thaw(value) for value in self]

    def __reduce__(self) -> tuple[object, ...]:
        return list, (thaw(self),)


def freeze(value: Any) -> Any:
    """A JSON value in which no dict and no list can be altered."""
    if isinstance(value, dict):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list):
        return FrozenList(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """An ordinary, mutable copy of a JSON value."""
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list):
        return [thaw(item) for item in value]
    return value
