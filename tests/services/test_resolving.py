"""Resolving: from this node's memory, without suspects, without those that rest."""

import gc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adsum
from adsum.services import directory
from adsum.services.instance import topic_of
from adsum.services.slot import MAX_REST
from adsum.testing import Cluster, MakeCluster
from adsum.values.jsontext import encode_object
from adsum.values.limits import MAX_META
from adsum.values.names import checked_name
from tests.support.effort import examples
from tests.support.json_values import json_values

from .crew import NAME, Crew, counts

#: Lines of one kind about one node within a minute, see `adsum.sparselog`.
FEW = 8


def test_instance_is_listed_and_resolved_on_all_nodes(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    crew[1].register(NAME, "http://10.0.0.5:8000", tags=["eu", "big"], weight=2, meta={"v": [1]})
    assert [one.node for one in crew[1].instances(NAME)] == ["n2"]
    crew.cluster.settle()
    for services in crew.services:
        (instance,) = services.instances(NAME)
        assert (instance.name, instance.address) == (NAME, "http://10.0.0.5:8000")
        assert (instance.tags, instance.weight) == (("big", "eu"), 2.0)
        assert (instance.node, instance.meta) == ("n2", {"v": [1]})
        assert services.resolve(NAME) == instance
        assert instance == crew[1].instances(NAME)[0]
        assert hash(instance) == hash(crew[1].instances(NAME)[0])
        with pytest.raises(TypeError, match="read-only"):
            instance.meta["v"].append(2)


def test_list_has_the_same_order_on_every_node(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    for number in range(9):
        crew[number % 3].register(NAME, f"h{8 - number}:80")
    crew.cluster.settle()
    lists = [services.instances(NAME) for services in crew.services]
    assert lists[0] == lists[1] == lists[2]
    assert len(lists[0]) == 9


def test_unknown_service_raises_with_name_tag_and_number(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    crew.register_each(tags=["eu"])
    with pytest.raises(adsum.NoInstanceError, match="'mail' accepts requests: 0 listed") as none:
        crew[0].resolve("mail")
    assert (none.value.name, none.value.tag, none.value.listed) == ("mail", None, 0)
    with pytest.raises(adsum.NoInstanceError, match=r"'users' with the tag 'us'.*2 listed, 0 with"):
        crew[0].resolve(NAME, tag="us")
    everyone = crew[0].instances(NAME)
    with pytest.raises(adsum.NoInstanceError, match="2 listed, 2 excluded"):
        crew[0].resolve(NAME, exclude=everyone)
    assert crew[0].instances("mail") == ()


def test_tag_selects_instances(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    for number, tags in enumerate((["eu"], ["us"], ["eu", "us"])):
        crew[number].register(NAME, f"h{number}", tags=tags)
    crew.cluster.settle()
    assert crew.resolved(0, tag="eu") == {"h0", "h2"}
    assert crew.listed(0, tag="us") == ["h1", "h2"]


def test_excluded_instances_are_not_picked(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    crew.register_each()
    first = crew.at(0, "n1:80")
    for strategy in ("least_used", "round_robin", "weight"):
        assert crew.resolved(0, pick=strategy, exclude=[first]) == {"n2:80", "n3:80"}


def test_instance_of_a_killed_node_is_skipped_while_suspect(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    crew.register_each()
    assert crew.resolved(0) == {"n1:80", "n2:80", "n3:80"}
    crew.cluster.kill(1)
    crew.cluster.run(0.01)
    assert [m.status for m in crew.cluster[0].node.members()] == ["self", "suspect", "up"]
    assert crew.listed(0) == ["n1:80", "n2:80", "n3:80"]
    assert crew.resolved(0) == {"n1:80", "n3:80"}
    crew.cluster.settle()
    assert crew.listed(0) == ["n1:80", "n3:80"]


def test_paused_node_is_skipped_and_returns(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    crew.register_each()
    crew.cluster.pause(2)
    crew.cluster.settle()
    assert crew.resolved(0) == {"n1:80", "n2:80"}
    crew.cluster.resume(2)
    crew.cluster.settle()
    assert crew.resolved(0) == {"n1:80", "n2:80", "n3:80"}


def test_partition_resolves_the_own_side_on_each_side(cluster: MakeCluster) -> None:
    crew = Crew(cluster(4))
    crew.register_each()
    crew.cluster.partition([0, 1], [2, 3])
    crew.cluster.settle()
    assert crew.resolved(0) == {"n1:80", "n2:80"}
    assert crew.resolved(3) == {"n3:80", "n4:80"}
    crew.cluster.heal()
    crew.cluster.settle()
    for which in range(4):
        assert crew.resolved(which) == {"n1:80", "n2:80", "n3:80", "n4:80"}


def test_stopped_node_is_not_listed_while_its_presences_linger(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2, linger=60.0))
    crew.register_each()
    crew.cluster[1].presence.track("room", "ann", owner=None)
    crew.cluster.settle()
    crew.cluster.stop(1)
    crew.cluster.run(0.05)
    crew.cluster.assert_online("room", "ann")
    assert crew.listed(0) == ["n1:80"]


def test_node_about_to_stop_withdraws_its_instances(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    _, registration = crew.register_each()
    crew.cluster[1].node.begin_stop()
    crew.cluster.run(0.05)
    assert crew.listed(0) == crew.listed(1) == ["n1:80"]
    assert registration.active
    assert registration.instance is None
    assert crew[1].register(NAME, "late:80").instance is None


def test_restarted_node_is_resolved_again(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    crew.register_each()
    crew.cluster.restart(1)
    crew.cluster.settle()
    assert crew.listed(0) == ["n1:80"]
    crew[1].register(NAME, "new:80")
    crew.cluster.settle()
    assert crew.resolved(0) == {"n1:80", "new:80"}
    assert crew.resolved(1) == {"n1:80", "new:80"}


def test_failed_instance_rests_for_a_time(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2), rest=5.0)
    crew.register_each()
    crew[0].report_failure(crew.at(0, "n1:80"))
    assert crew.resolved(0) == {"n2:80"}
    assert crew.resolved(1) == {"n1:80", "n2:80"}  # the other node has seen no failure
    crew.cluster.run(4.9)
    assert crew.resolved(0) == {"n2:80"}
    crew.cluster.run(0.2)
    assert crew.resolved(0) == {"n1:80", "n2:80"}


def test_rest_doubles_with_each_failure_up_to_a_bound(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2), rest=5.0)
    crew.register_each()
    failing = crew.at(0, "n1:80")
    for rest in (5.0, 10.0, 20.0, 40.0, MAX_REST, MAX_REST):
        crew[0].report_failure(failing)
        crew.cluster.run(rest - 0.1)
        assert crew.resolved(0) == {"n2:80"}
        crew.cluster.run(0.2)
        assert crew.resolved(0) == {"n1:80", "n2:80"}
    crew[0].report_success(failing)
    crew[0].report_failure(failing)
    crew.cluster.run(5.1)
    assert crew.resolved(0) == {"n1:80", "n2:80"}


def test_failures_during_a_rest_do_not_lengthen_it(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2), rest=5.0)
    crew.register_each()
    for _ in range(50):  # all requests that were open when the process was killed
        crew[0].report_failure(crew.at(0, "n1:80"))
    crew.cluster.run(5.1)
    assert crew.resolved(0) == {"n1:80", "n2:80"}


def test_success_ends_a_rest(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    crew.register_each()
    crew[0].report_failure(crew.at(0, "n1:80"))
    crew[0].report_success(crew.at(0, "n1:80"))
    assert crew.resolved(0) == {"n1:80", "n2:80"}


def test_rest_of_zero_skips_nothing(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2), rest=0)
    crew.register_each()
    crew[0].report_failure(crew.at(0, "n1:80"))
    assert crew.resolved(0) == {"n1:80", "n2:80"}


def test_resting_and_suspect_instances_are_picked_if_there_are_no_others(
    cluster: MakeCluster,
) -> None:
    crew = Crew(cluster(3))
    crew[1].register(NAME, "n2:80")
    crew[2].register(NAME, "n3:80")
    crew.cluster.settle()
    crew.cluster.kill(1)
    crew.cluster.run(0.01)
    crew[0].report_failure(crew.at(0, "n3:80"))
    assert crew.resolved(0) == {"n2:80", "n3:80"}
    assert crew.resolved(0, exclude=[crew.at(0, "n3:80")]) == {"n2:80"}


def test_report_on_a_departed_instance_does_nothing(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    crew.register_each()
    gone = crew.at(0, "n2:80")
    crew.cluster.kill(1)
    crew.cluster.settle()
    crew[0].report_failure(gone)
    crew[0].report_success(gone)
    assert crew.resolved(0) == {"n1:80"}


def test_weight_zero_drains_under_every_strategy(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    drained, other = crew.register_each()
    drained.update(weight=0)
    crew.cluster.settle()
    for strategy in ("least_used", "round_robin", "weight"):
        assert crew.resolved(1, pick=strategy) == {"n2:80"}
    assert crew.listed(1) == ["n1:80", "n2:80"]
    other.update(weight=0)
    with pytest.raises(adsum.NoInstanceError, match="2 listed, 2 with weight 0"):
        crew[1].resolve(NAME)


def test_uses_count_until_their_end_and_errors_of_a_connection_are_failures(
    cluster: MakeCluster,
) -> None:
    crew = Crew(cluster(2))
    crew.register_each()
    with crew[0].use(NAME) as first:
        assert crew.resolved(0) == crew.resolved(0, exclude=[first])
        with crew[0].use(NAME) as second:
            assert first != second
            assert crew.resolved(0) == {"n1:80", "n2:80"}
    with pytest.raises(ConnectionResetError), crew[0].use(NAME) as first:
        raise ConnectionResetError
    assert crew.resolved(0) == crew.resolved(0, exclude=[first])
    with pytest.raises(KeyError), crew[0].use(NAME) as second:
        raise KeyError  # an error of the application
    assert second.address in crew.resolved(0)


def test_use_that_nobody_holds_ends(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    crew.register_each()
    for make in (crew[0].use, lambda name: next(crew[0].attempts(name))):
        held = make(NAME)
        assert held.instance.address not in crew.resolved(0)
        del held
        gc.collect()  # an attempt and its attempts refer to each other
        assert crew.resolved(0) == {"n1:80", "n2:80"}


def test_success_of_a_use_ends_a_rest(cluster: MakeCluster) -> None:
    crew = Crew(cluster(1))
    crew.register_each()
    with pytest.raises(TimeoutError), crew[0].use(NAME):
        raise TimeoutError
    crew[0].register(NAME, "other:80")
    assert crew.resolved(0) == {"other:80"}
    with crew[0].use(NAME, exclude=[crew.at(0, "other:80")]):
        pass
    assert crew.resolved(0) == {"n1:80", "other:80"}


def test_update_of_the_meta_keeps_uses_and_rests(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    registration, _ = crew.register_each()
    crew[0].report_failure(crew.at(0, "n1:80"))
    registration.update(meta={"load": 1})
    registration.update(tags=["eu"])
    assert crew.at(0, "n1:80").meta == {"load": 1}
    assert crew.resolved(0) == {"n2:80"}


def test_least_used_spreads_equal_uses_in_rotation(cluster: MakeCluster) -> None:
    crew = Crew(cluster(3))
    crew.register_each()
    assert set(counts(crew.sequence(0, 9)).values()) == {3}
    held = [crew[0].use(NAME) for _ in range(9)]
    assert set(counts(use.instance.address for use in held).values()) == {3}
    held[0].release()
    held[0].release()
    assert crew[0].resolve(NAME) == held[0].instance


def test_change_of_the_members_does_not_begin_the_rotation_again(cluster: MakeCluster) -> None:
    crew = Crew(cluster(4), pick="round_robin")
    crew.register_each()
    first = crew.sequence(0, 2)
    crew.cluster.kill(next(n for n in (1, 2, 3) if f"n{n + 1}:80" not in first))
    crew.cluster.run(0.01)
    assert crew.sequence(0, 1)[0] not in first


def test_tables_are_bounded_by_the_listed_instances(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    for number in range(1000):
        with pytest.raises(adsum.NoInstanceError):
            crew[0].resolve(f"asked-{number}")
        crew[0].instances(f"asked-{number}")
    for number in range(100):
        with crew[1].register(NAME, f"h{number}", tags=[f"t{number}"]):
            crew.cluster.run(0.1)
            crew[0].report_failure(crew[0].resolve(NAME))
            for tag in (f"t{number}", "absent"):
                try:
                    crew[0].resolve(NAME, tag=tag)
                except adsum.NoInstanceError:
                    assert tag == "absent"
        crew.cluster.run(0.1)
    run = crew[0]._current()
    assert run.resolver._directories == {}
    with crew[1].register(NAME, "last", tags=["eu"]):
        crew.cluster.run(0.1)
        crew.resolved(0, tag="eu")
        directory = run.resolver._directories[NAME]
        assert (len(directory), len(directory._pools)) == (1, 1)


def test_second_run_of_a_node_begins_without_registrations(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    _, registration = crew.register_each()
    crew.cluster.restart(1)
    assert not registration.active
    registration.withdraw()
    with pytest.raises(adsum.NotTrackedError, match="has ended"):
        registration.update(weight=2)
    crew[1].register(NAME, "n2:80")
    crew.cluster.settle()
    assert crew.listed(0) == ["n1:80", "n2:80"]


def test_entry_of_another_form_is_not_listed_and_logged_a_few_times(
    cluster: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    crew = Crew(cluster(2))
    driver, topic = crew.cluster[1].node.driver, "\0services/users"
    for number, text in enumerate(
        (
            "{}",
            '{"meta":{},"tags":"eu","weight":1}',
            '{"meta":{},"tags":[1],"weight":1}',
            '{"meta":{},"tags":[],"weight":true}',
            '{"meta":{},"tags":[],"weight":-1}',
            '{"meta":{},"tags":[],"weight":1e99}',
            '{"meta":[],"tags":[],"weight":1}',
        )
    ):
        driver.track(topic, f"h{number}", text)
    driver.track(topic, "huge", f'{{"meta":{{}},"tags":[],"weight":1{"0" * 400}}}')
    driver.track(topic, "x" * 301, '{"meta":{},"tags":[],"weight":1}')
    crew.cluster.settle()
    assert crew.listed(0) == []
    with pytest.raises(adsum.NoInstanceError):
        crew[0].resolve(NAME)
    crew[1].register(NAME, "right:80")
    crew.cluster.settle()
    assert crew.resolved(0) == {"right:80"}
    directory._log.flush()
    assert "a presence of node 'n2' was skipped: " in caplog.text
    assert len(caplog.records) <= FEW


values = json_values()
forms = st.fixed_dictionaries(
    {}, optional={"tags": st.lists(values) | values, "weight": values, "meta": values}
)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=400), forms), max_size=10))
@examples(100)
def test_presences_of_any_form_break_no_resolve(entries: list[tuple[str, Any]]) -> None:
    with Cluster(2) as members:
        crew = Crew(members)
        crew[0].register(NAME, "right:80")
        watch = crew[0].watch(NAME)
        for key, meta in entries:
            with suppress(ValueError):  # no node can send it either
                text = encode_object(meta, "meta", MAX_META)
                members[1].node.driver.track(topic_of(NAME), checked_name(key, "key", 400), text)
        members.settle()
        assert crew.resolved(0)
        assert "right:80" in crew.listed(0)
        assert "right:80" in [one.address for one in watch._take().arrived]


def test_every_member_can_register_every_service(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    crew[0].register(NAME, "right:80")
    crew[1].register(NAME, "evil:80", weight=1000)
    crew.cluster.settle()
    assert crew.resolved(0) == {"right:80", "evil:80"}
