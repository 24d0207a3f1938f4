"""The collector is paused while a large list is rendered, and enabled after it."""

import gc
import os
import signal
from collections.abc import Iterator

import pytest

from adsum.collector import CollectorPause
from adsum.replication.view import View


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    yield
    gc.enable()


def test_pause_ends_also_after_an_error() -> None:
    with pytest.raises(RuntimeError), CollectorPause():
        raise RuntimeError
    assert gc.isenabled()


def test_collector_does_not_run_in_a_pause() -> None:
    with CollectorPause():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_disabled_collector_stays_disabled() -> None:
    gc.disable()
    with CollectorPause():
        pass
    assert not gc.isenabled()


def test_overlapping_pauses_end_with_the_collector_enabled() -> None:
    first, second = CollectorPause(), CollectorPause()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_child_forked_in_a_pause_has_its_collector_enabled() -> None:
    with CollectorPause():
        child = os.fork()
        if not child:
            try:
                os._exit(0 if gc.isenabled() else 1)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == 0
        assert not gc.isenabled()


def test_no_collection_runs_while_a_large_list_is_rendered() -> None:
    view = View()
    for id in range(1, 3001):
        view.change(None, (id, id, "room", f"user {id}", '{"a":1}', None, "a", 1))
    collections = list[str]()
    gc.callbacks.append(lambda phase, _: collections.append(phase))
    try:
        gc.collect()
        collections.clear()
        answer = view.topics["room"]._render(list(view.topics["room"].keys))
        assert not collections
    finally:
        gc.callbacks.pop()
    assert len(answer) == 3000
    assert gc.isenabled()
