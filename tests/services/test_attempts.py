"""Attempts: a request is repeated on another instance if that is safe, and never without an end."""

import asyncio
from typing import Any

import pytest

import adsum
from adsum.testing import MakeCluster
from tests.support.nodes import run

from .crew import NAME, Crew


def crew_of(cluster: MakeCluster, count: int = 3) -> Crew:
    crew = Crew(cluster(count))
    crew.register_each()
    return crew


class Request:
    """A request whose attempts end with given outcomes, the last one with all further ones."""

    def __init__(self, *outcomes: type[Exception] | None) -> None:
        self.outcomes = outcomes
        #: The instances that were tried.
        self.tried = list[adsum.Instance]()

    def send(self, attempts: adsum.Attempts) -> None:
        for attempt in attempts:
            with attempt as instance:
                self.tried.append(instance)
                outcome = self.outcomes[min(attempt.number, len(self.outcomes)) - 1]
                if outcome is not None:
                    raise outcome(str(attempt.number))


def test_request_that_succeeds_is_sent_once(cluster: MakeCluster) -> None:
    crew, request = crew_of(cluster), Request(None)
    request.send(crew[0].attempts(NAME, idempotent=True))
    assert len(request.tried) == 1


def test_refused_connection_is_repeated_on_another_instance(cluster: MakeCluster) -> None:
    crew, request = crew_of(cluster), Request(ConnectionRefusedError, ConnectionRefusedError, None)
    request.send(crew[0].attempts(NAME))
    assert len(set(request.tried)) == 3
    assert crew.resolved(0) == {request.tried[2].address}  # the two others rest


@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, OSError])
def test_sent_request_is_repeated_only_if_idempotent(
    cluster: MakeCluster, error: type[Exception]
) -> None:
    crew, once = crew_of(cluster), Request(error)
    with pytest.raises(error):
        once.send(crew[0].attempts(NAME))
    assert len(once.tried) == 1
    repeated = Request(error, None)
    repeated.send(crew[0].attempts(NAME, idempotent=True))
    assert len({*once.tried, *repeated.tried}) == 3


def test_error_of_the_application_is_not_repeated_and_is_no_failure(cluster: MakeCluster) -> None:
    crew, request = crew_of(cluster), Request(KeyError)
    attempts = crew[0].attempts(NAME, idempotent=True)
    with pytest.raises(KeyError):
        request.send(attempts)
    assert (len(request.tried), attempts.errors) == (1, ())
    assert len(crew.resolved(0)) == 3


def test_attempts_are_bounded_and_the_last_error_is_raised(cluster: MakeCluster) -> None:
    crew, request = crew_of(cluster, 5), Request(ConnectionRefusedError)
    attempts = crew[0].attempts(NAME, attempts=2)
    with pytest.raises(ConnectionRefusedError, match="2"):
        request.send(attempts)
    assert [str(error) for error in attempts.errors] == ["1", "2"]
    with pytest.raises(StopIteration):
        next(attempts)


def test_no_instance_is_tried_twice(cluster: MakeCluster) -> None:
    crew, request = crew_of(cluster, 2), Request(ConnectionRefusedError)
    with pytest.raises(ConnectionRefusedError):
        request.send(crew[0].attempts(NAME, attempts=9))
    assert len(request.tried) == len(set(request.tried)) == 2


def test_first_attempt_raises_without_an_instance(cluster: MakeCluster) -> None:
    crew = Crew(cluster(1))
    attempts = crew[0].attempts(NAME)
    with pytest.raises(adsum.NoInstanceError, match="0 listed"):
        next(attempts)
    crew[0].register(NAME, "n1:80")
    assert next(attempts).number == 1


class ClientError(Exception):
    """An error of a client, which is no `OSError`."""


class NotConnectedError(ClientError):
    """It could not connect."""


def test_errors_of_a_client_are_classified_by_their_types(cluster: MakeCluster) -> None:
    crew, unsent, sent = crew_of(cluster), Request(NotConnectedError, None), Request(ClientError)
    types: dict[str, Any] = {"unsent": (NotConnectedError,), "failures": (ClientError,)}
    unsent.send(crew[0].attempts(NAME, **types))
    assert len(unsent.tried) == 2
    with pytest.raises(ClientError):
        sent.send(crew[0].attempts(NAME, **types))
    assert len(sent.tried) == 1
    assert len(crew.resolved(0)) == 1


def test_explicit_outcomes_decide_as_the_block_does(cluster: MakeCluster) -> None:
    crew = crew_of(cluster)
    attempts = crew[0].attempts(NAME)
    first = next(attempts)
    assert first.failed(OSError("1"), sent=False)
    assert not first.failed(OSError("again"), sent=False)
    second = next(attempts)
    assert not second.failed(sent=True)
    second.succeeded()
    assert [str(error) for error in attempts.errors] == ["1"]
    assert list(attempts) == []
    assert crew.resolved(0).isdisjoint({first.instance.address, second.instance.address})


def test_attempt_counts_as_a_use_until_its_end(cluster: MakeCluster) -> None:
    crew = crew_of(cluster, 2)
    attempts = crew[0].attempts(NAME)
    held = next(attempts)
    other = crew.resolved(0)
    assert len(other) == 1
    assert held.instance.address not in other
    held.release()
    assert len(crew.resolved(0)) == 2
    left = crew[0].attempts(NAME)
    next(left)
    assert len(crew.resolved(0)) == 1
    assert list(left) == []  # it ends the attempt under way
    assert len(crew.resolved(0)) == 2


def test_only_instances_with_the_tag_are_tried(cluster: MakeCluster) -> None:
    crew = Crew(cluster(1))
    for number in range(6):
        crew[0].register(NAME, f"h{number}", tags=["eu"] if number < 2 else ())
    request = Request(ConnectionRefusedError)
    with pytest.raises(ConnectionRefusedError):
        request.send(crew[0].attempts(NAME, tag="eu", attempts=5))
    assert sorted(one.address for one in request.tried) == ["h0", "h1"]


def test_call_repeats_and_returns_the_result(cluster: MakeCluster) -> None:
    crew = crew_of(cluster)
    tried = list[str]()

    async def ask(instance: adsum.Instance) -> str:
        tried.append(instance.address)
        if len(tried) == 1:
            raise ConnectionRefusedError
        return f"hello from {instance.address}"

    answer = run(crew[0].call(NAME, ask))
    assert answer == f"hello from {tried[1]}"
    assert len(set(tried)) == 2


def test_call_raises_the_last_error_or_that_there_is_no_instance(cluster: MakeCluster) -> None:
    crew = crew_of(cluster, 2)

    async def fail(instance: adsum.Instance) -> None:
        raise ConnectionRefusedError(instance.address)

    with pytest.raises(ConnectionRefusedError, match="80"):
        run(crew[0].call(NAME, fail, attempts=9))
    with pytest.raises(adsum.NoInstanceError):
        run(crew[0].call("mail", fail))


def test_cancelled_call_is_no_failure(cluster: MakeCluster) -> None:
    crew = crew_of(cluster, 2)

    async def main() -> None:
        async def hang(instance: adsum.Instance) -> None:
            await asyncio.Event().wait()

        task = asyncio.create_task(crew[0].call(NAME, hang, idempotent=True))
        await asyncio.sleep(0)
        assert len(crew.resolved(0)) == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert len(crew.resolved(0)) == 2

    run(main())
