"""Real nodes that stop: their instances are withdrawn before anything else ends."""

from functools import partial

import adsum
from tests.support.nodes import run, running
from tests.support.waiting import until

from .crew import NAME


def addresses(services: adsum.Services) -> list[str]:
    return [instance.address for instance in services.instances(NAME)]


def test_stop_withdraws_before_the_goodbye_and_presences_linger(cluster_name: str) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name, linger=60.0) as (first, second):
            services = [adsum.Services(node) for node in (first, second)]
            presences = [adsum.Presence(node) for node in (first, second)]
            presences[0].track("room", "ann", owner=None)
            services[0].register(NAME, "one:80")
            await until(lambda: addresses(services[1]) == ["one:80"], "it is registered")
            await until(lambda: presences[1].count("room") == 1)
            await first.stop()
            await until(lambda: addresses(services[1]) == [], "it is withdrawn")
            assert presences[1].count("room") == 1

    run(main())


def test_begin_stop_withdraws_while_the_node_runs(cluster_name: str) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as (first, second):
            services = [adsum.Services(node) for node in (first, second)]
            registration = services[0].register(NAME, "one:80")
            await until(partial(addresses, services[1]), "it is registered")
            first.begin_stop()
            first.begin_stop()
            await until(lambda: addresses(services[1]) == [], "it is withdrawn")
            assert registration.active
            assert first.running
            await first.stop()
            assert not registration.active
            await first.start()
            services[0].register(NAME, "two:80")
            await until(lambda: addresses(services[1]) == ["two:80"], "the next run registers")

    run(main())


def test_resolver_skips_a_node_that_crashed(cluster_name: str) -> None:
    async def main() -> None:
        async with running(3, cluster=cluster_name) as nodes:
            services = [adsum.Services(node) for node in nodes]
            for number, one in enumerate(services):
                one.register(NAME, f"h{number}:80")
            await until(lambda: all(len(addresses(one)) == 3 for one in services))
            run_of_last = nodes[2].driver
            nodes[2].detach()
            run_of_last.abandon()  # as a crash: no goodbye
            await until(
                lambda: {services[0].resolve(NAME).address for _ in range(9)} == {"h0:80", "h1:80"}
            )
            await until(lambda: addresses(services[1]) == ["h0:80", "h1:80"])

    run(main())
