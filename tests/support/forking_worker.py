"""A process with one node that forks children, as commands on its standard input ask for.

Each line is a JSON array of a command and its arguments; each is answered by one line. A thread
reads the lines, and the event loop polls them: a child that closes the loop that it inherited
removes the loop's wake-up descriptor from the shared epoll set, and then only timers wake the
parent's loop.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import adsum

#: Seconds that an idle child lives, unless it is killed.
LIFETIME = 60.0
#: Seconds between two looks at a condition.
PAUSE = 0.005
#: Bytes of the result of a child, which a pipe holds before anybody reads.
MAX_RESULT = 65536
#: Seconds that a read may take that has to end at once.
PATIENCE = 1.0

settings = json.loads(sys.argv[1])
if "tls" in settings:
    settings["tls"] = adsum.TLS.from_files(*settings["tls"])
node = adsum.Node(**settings)
presence, pubsub = adsum.Presence(node), adsum.PubSub(node)
#: The handles, watches and subscriptions of the parent, which a child inherits.
handles: list[adsum.Tracked] = []
readers: list[adsum.Watch | adsum.Subscription] = []
reading: list[asyncio.Task[None]] = []
commands: queue.Queue[list[Any]] = queue.Queue()


def say(kind: str, value: Any) -> None:
    print(json.dumps([kind, time.monotonic(), value]), flush=True)


async def poll(condition: Callable[[], object]) -> None:
    """Look until a condition holds; the test that waits for the answer has the deadline."""
    while not condition():  # noqa: ASYNC110  # only timers are sure to wake this loop
        await asyncio.sleep(PAUSE)


def detach_from_test() -> None:
    """Close the pipes to the test in a child: it would keep them open after its parent."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)


def descriptors() -> list[str]:
    """The files that the descriptors of this process refer to."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed the directory
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


def incarnation() -> int:
    return next(member.incarnation for member in node.members() if member.status == "self")


def error_of(action: Callable[[], Any]) -> list[str]:
    """The class and the text of the error that an action raises."""
    try:
        action()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["no error", ""]


# Actions of children.


def idle() -> None:
    time.sleep(LIFETIME)


def look() -> Any:
    """What a child sees of the node of its parent, before it starts it again."""
    uses: list[Callable[[], Any]] = [
        lambda: presence.track("room", "child", owner=None),
        lambda: presence.list("room"),
        lambda: presence.watch("room"),
        lambda: presence.untrack_all(None),
        lambda: pubsub.subscribe("room"),
        lambda: node.name,
        node.members,
        node.stats,
        *[lambda handle=handle: handle.update({}) for handle in handles],
    ]
    return {
        "running": node.running,
        "descriptors": descriptors(),
        "active": [handle.active for handle in handles],
        "uses": [error_of(use) for use in uses],
        "untracks": [error_of(handle.untrack) for handle in handles],
        "reads": asyncio.run(reads()),
        "stop": asyncio.run(node.stop()),
        "uses after stop": [error_of(use) for use in uses],
    }


async def reads() -> list[str]:
    """How reads of the parent's watches and subscriptions end."""
    outcomes = []
    for reader in readers:
        try:
            async with asyncio.timeout(PATIENCE):
                outcomes.append(repr(await anext(reader)))
        except (Exception, StopAsyncIteration) as error:
            outcomes.append(type(error).__name__)
    return outcomes


def live(key: str, others: int) -> Any:
    """Start the node of the parent in this child, track a key, and stop."""

    async def main() -> Any:
        async with node:
            tracked = presence.track("room", key, owner=None)
            watch, subscription = presence.watch("room"), pubsub.subscribe("room")
            seen = set[str]()
            while len(seen) <= others:
                seen.update((await anext(watch)).joins)
            await pubsub.publish("room", {})
            return {
                "name": node.name,
                "incarnation": incarnation(),
                "seen": sorted(seen),
                "active": [handle.active for handle in [*handles, tracked]],
                "sender": (await anext(subscription)).sender,
            }

    return asyncio.run(main())


def bear(members: int) -> Any:
    """Start the node of the parent in this child, and let a child of its own look."""

    async def main() -> Any:
        async with node:
            await poll(lambda: len(node.members()) == members)
            return [node.name, descriptors(), await collect(*fork("look"))]

    return asyncio.run(main())


def execute() -> Any:
    """The files that the descriptors of a program refer to that this child executes."""
    script = """
import json, os
names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
print(json.dumps([os.readlink(name) for name in names if os.path.lexists(name)]))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, close_fds=False, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


ACTIONS: dict[str, Callable[..., Any]] = {
    action.__name__: action for action in (idle, look, live, bear, execute)
}


def act(action: str, *arguments: Any) -> Any:
    return ACTIONS[action](*arguments)


# Ways to make children.


def fork(action: str, *arguments: Any) -> tuple[int, int]:
    """Fork a child; returns its process id, and where its result can be read."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writable)
        return pid, readable
    status = 1
    try:
        detach_from_test()
        os.write(writable, json.dumps(act(action, *arguments)).encode())
        status = 0
    finally:
        os._exit(status)


async def collect(pid: int, readable: int) -> Any:
    """Wait until a child has exited; returns its result."""
    outcomes: list[int] = []

    def exited() -> bool:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            outcomes.append(os.waitstatus_to_exitcode(status))
        return bool(done)

    await poll(exited)
    text = os.read(readable, MAX_RESULT)
    os.close(readable)
    assert outcomes == [0], outcomes
    return json.loads(text)


async def fork_in_thread(action: str) -> int:
    """Fork a child in a thread that is not that of the event loop."""
    children: list[int] = []
    threading.Thread(target=lambda: children.append(fork(action)[0])).start()
    await poll(lambda: children)
    return children[0]


def fork_by_multiprocessing(action: str) -> int | None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=act_detached, args=[action], daemon=True)
    child.start()
    return child.pid


def act_detached(action: str) -> None:
    detach_from_test()
    act(action)


def pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(1, context, initializer=detach_from_test)


async def fork_by_pool(action: str) -> int:
    workers = pool()
    pid = await asyncio.get_running_loop().run_in_executor(workers, os.getpid)
    workers.submit(act, action)
    return pid


async def act_in_pool(action: str, *arguments: Any) -> Any:
    with pool() as workers:
        return await asyncio.get_running_loop().run_in_executor(workers, act, action, *arguments)


async def unwind() -> int:
    """Fork a child that leaves by SystemExit, through all exit handlers of its parent."""
    pid = os.fork()
    if pid == 0:
        detach_from_test()
        sys.exit(0)
    await poll(lambda: os.waitpid(pid, os.WNOHANG)[0])
    return pid


# Commands to the parent.


async def obey(command: str, *arguments: Any) -> Any:  # noqa: C901  # one case for each
    match command:
        case "track":
            handles.append(presence.track("room", *arguments, owner=None))
            return None
        case "read":
            readers.extend([presence.watch("room"), pubsub.subscribe("room")])
            reading.extend(asyncio.create_task(read(reader)) for reader in readers)
            return None
        case "list":
            return sorted(presence.list("room"))
        case "linked":
            others = [m for m in node.members() if m.status != "self"]
            return sorted(m.name for m in others if m.linked)
        case "life":
            return [incarnation(), node.addresses]
        case "descriptors":
            return descriptors()
        case "fork":
            return fork(*arguments)[0]
        case "fork in thread":
            return await fork_in_thread(*arguments)
        case "fork by multiprocessing":
            return fork_by_multiprocessing(*arguments)
        case "fork by pool":
            return await fork_by_pool(*arguments)
        case "in child":
            return await collect(*fork(*arguments))
        case "in pool":
            return await act_in_pool(*arguments)
        case "unwind":
            return await unwind()


async def read(reader: adsum.Watch | adsum.Subscription) -> None:
    async for _ in reader:
        pass


def receive_commands() -> None:
    # Not `sys.stdin`, which `multiprocessing` closes in a child: the thread holds its lock.
    with open(os.dup(0)) as lines:
        for line in lines:
            commands.put(json.loads(line))


async def main() -> None:
    threading.Thread(target=receive_commands, daemon=True).start()
    before = set(descriptors())
    # As a server does: the node stops when its own task is cancelled, and not with this one.
    started = asyncio.Event()
    serving = asyncio.create_task(serve(started))
    await poll(lambda: started.is_set() or serving.done())
    say("ready", [node.name, sorted(before)])
    while not serving.done():
        await poll(lambda: not commands.empty())
        say("answer", await obey(*commands.get()))


async def serve(started: asyncio.Event) -> None:
    async with node:
        started.set()
        await asyncio.Event().wait()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.argv[2] == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks in a process with threads
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
