"""Type checkers refuse what raises at run time: to alter an answer, in any part that is shared.

The functions below alter answers. Each altering line must raise `TypeError`, and carries the error
of the checker that it is expected to cause: `mypy` is strict in this project, so it fails for an
ignored error that it does not find. Lines without an ignore are accepted, and do not raise.
"""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import adsum
from adsum import PresenceEntry

ROOT = Path(__file__).parents[2]


def set_in_listed(presence: adsum.Presence) -> None:
    presence.list("room")["ann"]["colour"] = "red"  # type: ignore[index]


def delete_in_listed(presence: adsum.Presence) -> None:
    del presence.list("room")["ann"]["metas"]  # type: ignore[attr-defined]


def update_listed(presence: adsum.Presence) -> None:
    presence.list("room")["ann"].update(colour="red")  # type: ignore[attr-defined]


def append_to_metas(presence: adsum.Presence) -> None:
    presence.list("room")["ann"]["metas"].append({})  # type: ignore[attr-defined]


def replace_meta(presence: adsum.Presence) -> None:
    presence.list("room")["ann"]["metas"][0] = {}  # type: ignore[index]


def set_in_meta_of_list(presence: adsum.Presence) -> None:
    presence.list("room")["ann"]["metas"][0]["away"] = True  # type: ignore[index]


def set_in_meta_of_get(presence: adsum.Presence) -> None:
    presence.get("room", "ann")[0]["away"] = True  # type: ignore[index]


def pop_from_meta_of_get(presence: adsum.Presence) -> None:
    presence.get("room", "ann")[0].pop("phx_ref")  # type: ignore[attr-defined]


ALTERING = [
    set_in_listed,
    delete_in_listed,
    update_listed,
    append_to_metas,
    replace_meta,
    set_in_meta_of_list,
    set_in_meta_of_get,
    pop_from_meta_of_get,
]


async def alter_diff(presence: adsum.Presence) -> None:
    diff = await anext(presence.watch("room"))
    diff.joins["ann"]["metas"][0]["away"] = True  # type: ignore[index]


async def alter_fetched(presence: adsum.Presence) -> None:
    (await presence.fetch("room"))["ann"]["colour"] = "red"  # type: ignore[index]


async def alter_message(presence: adsum.Presence) -> None:
    pubsub = adsum.PubSub(presence.node)
    with pubsub.subscribe("room") as messages:
        await pubsub.publish("room", {"text": "hi"})
        (await anext(messages)).payload["text"] = "ho"


async def with_ann(use: Callable[[adsum.Presence], Any]) -> None:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)
    async with node:
        presence.track("room", "ann", {"device": "phone"})
        result = use(presence)
        if asyncio.iscoroutine(result):
            await result


@pytest.mark.parametrize("alter", [*ALTERING, alter_diff, alter_fetched, alter_message])
def test_mutation_of_shared_values_raises(alter: Callable[[adsum.Presence], Any]) -> None:
    async def main() -> None:
        with pytest.raises((TypeError, AttributeError)):
            await with_ann(alter)

    asyncio.run(main())


def test_mutation_of_the_callers_own_values_is_allowed() -> None:
    async def use(presence: adsum.Presence) -> None:
        entries: dict[str, PresenceEntry] = presence.list("room")
        metas: list[Mapping[str, Any]] = presence.get("room", "ann")
        assert metas[0]["device"] == entries["ann"]["metas"][0]["device"] == "phone"
        assert isinstance(entries["ann"], PresenceEntry)
        json.dumps(entries)
        del entries["ann"]
        metas.append({"device": "own"})
        mine: Any = copy.deepcopy(presence.list("room"))
        mine["ann"]["colour"] = "red"

    async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {key: {"seen": True} for key in entries}

    async def main() -> None:
        await with_ann(use)
        node = adsum.Node(siblings=False)
        async with node:
            presence = adsum.Presence(node, fetch=fetch)
            presence.track("room", "ann")
            assert (await presence.fetch("room"))["ann"]["seen"] is True

    asyncio.run(main())


@pytest.mark.slow
def test_mypy_finds_exactly_the_expected_errors(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), "--strict", __file__]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_copies_of_answers_can_be_altered(copied: Callable[[Any], Any]) -> None:
    async def use(presence: adsum.Presence) -> None:
        entry = presence.list("room")["ann"]
        mine, metas = copied(entry), copied(entry["metas"])
        mine["colour"] = "red"
        metas.append({"device": "own"})
        assert "colour" not in entry
        assert len(entry["metas"]) == 1

    asyncio.run(with_ann(use))
