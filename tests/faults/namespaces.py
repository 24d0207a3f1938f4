"""Hosts of their own on one machine: network namespaces, which only a switch in this process joins.

Each namespace has one device, a TUN whose other end is a file descriptor here. There is no other
way into it or out of it. When this process dies, the devices go with it.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from .packet_switch import Line, PacketSwitch

_TUN = Path("/dev/net/tun")
_FIRST = IPv4Address("10.77.0.1")
# From linux/if_tun.h.
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
#: What `ip` and `tc` say if the machine does not allow what they should do.
_LACKS = ("not permitted", "not supported", "qdisc kind is unknown")


class Host:
    """A network namespace with one device.

    Attributes:
        address: Its IP address.
        prefix: What to put before a command to run it there.
        port: The file descriptor of its device.
    """

    def __init__(self, name: str, address: IPv4Address) -> None:
        self.name = name
        self.address = address
        # `ip netns exec` would remount /sys, for which the root has to be a mount; in a chroot it
        # is none.
        self.prefix = ("nsenter", f"--net=/run/netns/{name}")
        self.device = f"tun{int(address) & 0xFF}"
        self.port = -1

    def set_up(self) -> None:
        """Make the namespace and its device; to be taken down even if this fails."""
        _run_or_skip("ip", "netns", "add", self.name)
        made = f"tun-{os.getpid()}"  # Until it is there, it must have a name that nobody else has.
        self.port = _open_tun(made)
        _run("ip", "link", "set", made, "netns", self.name, "name", self.device)
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", self.device)
        self.run("ip", "link", "set", self.device, "up")
        self.run("ip", "link", "set", "lo", "up")

    def take_down(self) -> None:
        if self.port >= 0:
            os.close(self.port)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def run(self, *command: str) -> str:
        """Run a command there; returns what it printed."""
        return _run(*self.prefix, *command)


class Network:
    """Some hosts and the switch between them; leaving the block takes everything away."""

    def __init__(self, name: str, count: int, seed: int = 1) -> None:
        self.hosts = [Host(f"{name}-{number}", _FIRST + number) for number in range(count)]
        self._seed = seed
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for host in self.hosts:
                stack.callback(host.take_down)
                host.set_up()
            self.switch = PacketSwitch({host.address: host.port for host in self.hosts}, self._seed)
            self.switch.start()
            stack.callback(self.switch.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def one_way(self, sources: Iterable[Host], targets: Iterable[Host], line: Line) -> None:
        """Decide what happens to packets from each of some hosts to each of some others."""
        listed = list(targets)
        for source in sources:
            for target in listed:
                self.switch.set_line(source.address, target.address, line)

    def both_ways(self, some: Iterable[Host], others: Iterable[Host], line: Line) -> None:
        """Decide what happens to packets between some hosts and some others."""
        first, second = list(some), list(others)
        self.one_way(first, second, line)
        self.one_way(second, first, line)

    def everywhere(self, line: Line) -> None:
        """Decide what happens to all packets."""
        self.one_way(self.hosts, self.hosts, line)

    def let_the_kernel_spoil(self, how: str) -> None:
        """Let `tc netem` spoil what each host sends; skip the test where the kernel has none.

        Args:
            how: As in `man tc-netem`.
        """
        if shutil.which("tc") is None:
            pytest.skip("there is no `tc`: install iproute2")
        for host in self.hosts:
            netem = ("tc", "qdisc", "add", "dev", host.device, "root", "netem", *how.split())
            _run_or_skip(*host.prefix, *netem)

    def heal(self) -> None:
        self.everywhere(Line())


def need_namespaces() -> None:
    """Skip the test where namespaces and TUN devices cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not _TUN.exists():
        pytest.skip(f"there is no {_TUN}: the kernel lacks TUN devices, or they are kept from us")
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip`: install iproute2")


def _open_tun(name: str) -> int:
    port = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(port, _TUNSETIFF, request)
    except OSError as error:
        os.close(port)
        pytest.skip(f"a TUN device cannot be made: {error.strerror}")
    return port


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def _run_or_skip(*command: str) -> None:
    """Run a command; skip the test if it is the machine that does not allow it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and any(lack in done.stderr for lack in _LACKS):
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
