"""`Resolver`: the directories of one run of a node, each kept while its service has instances."""

from collections.abc import Sequence, Set

from adsum.driver.driver import Driver
from adsum.errors import NoInstanceError
from adsum.replication.entry import Transition

from .availability import Availability
from .directory import Directory
from .instance import PREFIX, Instance, checked_service, shown, topic_of
from .slot import Slot


class Resolver:
    """Finds and picks instances in one run of a node.

    A directory begins at the first question about a service with instances, and is dropped with the
    last instance. So the directories are at most the services of the cluster, whatever is asked.

    Args:
        driver: The run.
        rest: Seconds that an instance rests after its first failure.
    """

    def __init__(self, driver: Driver, rest: float) -> None:
        self.driver = driver
        self._rest = rest
        self._availability = Availability(driver)
        self._directories: dict[str, Directory] = {}

    def instances(self, name: str) -> tuple[Instance, ...]:
        """The listed instances of a service."""
        directory = self._directory(name)
        return () if directory is None else directory.instances

    def pick(self, name: str, tag: str | None, strategy: str, excluded: Set[str]) -> Slot:
        """Pick an instance.

        Raises:
            NoInstanceError: There is none.
        """
        directory = self._directory(name)
        slot = None if directory is None else directory.pick(tag, strategy, excluded)
        if slot is None:
            raise _no_instance(name, tag, self.instances(name), excluded)
        return slot

    def fail(self, instance: Instance) -> None:
        """Let an instance rest after a failure; does nothing if it has departed."""
        directory = self._directory(instance.name)
        slot = None if directory is None else directory.find(instance.id)
        if directory is not None and slot is not None and slot.fail(self.driver.now, self._rest):
            directory.renew()

    def succeed(self, instance: Instance) -> None:
        """Forget the failures of an instance."""
        directory = self._directory(instance.name)
        slot = None if directory is None else directory.find(instance.id)
        if directory is not None and slot is not None and slot.succeed():
            directory.renew()

    def changed(self, topic: str, transitions: Sequence[Transition]) -> None:
        """Apply the changes of a topic."""
        name = topic.removeprefix(PREFIX)
        directory = self._directories.get(name) if topic.startswith(PREFIX) else None
        if directory is not None:
            directory.apply(transitions)
            if not directory:
                del self._directories[name]
                self.driver.unwatch_topic(topic)

    def _directory(self, name: object) -> Directory | None:
        """The directory of a service; None if it has no instances."""
        directory = self._directories.get(name) if isinstance(name, str) else None
        if directory is None:
            service = checked_service(name)
            if self.driver.view.count(topic_of(service)):
                directory = self._begin(service)
        return directory

    def _begin(self, name: str) -> Directory | None:
        topic = topic_of(name)
        self.driver.watch_topic(topic)
        entries = self.driver.view.all_entries(topic)
        directory = Directory(name, self.driver, self._availability, entries)
        if not directory:  # peers have sent entries of another form
            self.driver.unwatch_topic(topic)
            return None
        self._directories[name] = directory
        return directory


def _no_instance(
    name: str, tag: str | None, listed: Sequence[Instance], excluded: Set[str]
) -> NoInstanceError:
    """The error for a service that has no instance to pick; it counts the reasons."""
    tagged = [one for one in listed if tag is None or tag in one.tags]
    drained = [one for one in tagged if not one.weight]
    skipped = [one for one in tagged if one.weight and one.id in excluded]
    counts = [f"{len(listed)} listed"]
    if tag is not None:
        counts.append(f"{len(tagged)} with the tag")
    if drained:
        counts.append(f"{len(drained)} with weight 0")
    if skipped:
        counts.append(f"{len(skipped)} excluded")
    text = f"no instance of {shown(name, tag)} accepts requests: {', '.join(counts)}"
    return NoInstanceError(text, name, tag, len(listed))
