"""Tunnels' devices in the kernel: what is there, and making it what is wanted. Blocking, well below a millisecond a request."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from felix.kernel.devices import (
    LinkState,
    add_address,
    change_link,
    create_device,
    delete_address,
    delete_link,
    dump_addresses_of,
    get_link,
    read_link,
    set_up,
    vxlan_attributes,
)
from felix.kernel.links import RTM_NEWADDR, RTM_NEWLINK, address_text, decode_address, dump_links
from felix.kernel.neighbours import (
    RTM_NEWNEIGH,
    delete_neighbour,
    dump_fdb,
    dump_neighbours,
    put_neighbour,
    read_neighbour,
)
from felix.kernel.netlink import KernelError
from felix.kernel.sockets import RequestSocket, steadily
from felix.ports import Failure
from felix.sync.devices import FdbEntry, Neighbour, WantedDevice, stale_addresses

Entry = Neighbour | FdbEntry
BATCH = 500
GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)


@dataclass(slots=True)
class Made:
    """What became of a wish. `link` is None if the device is not there. `changes` in words, for people."""

    link: LinkState | None = None
    changes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


class KernelDevices:
    """In the network namespace in which it was made. Every method may raise OSError if the kernel does not answer."""

    def __init__(self) -> None:
        self._socket = RequestSocket()

    def close(self) -> None:
        self._socket.close()

    # --- reading

    def link(self, name: str) -> LinkState | None:
        try:
            for data, answers in self._socket.dump(lambda sequence: get_link(sequence, name)):
                for kind, _, _, _, start, end in answers:
                    if kind == RTM_NEWLINK:
                        return read_link(data, start, end)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        return None

    def links(self) -> list[LinkState]:
        return steadily(self._links)

    def _links(self) -> list[LinkState]:
        found = []
        for data, answers in self._socket.dump(dump_links):
            found += [read_link(data, start, end) for kind, _, _, _, start, end in answers if kind == RTM_NEWLINK]
        return found

    def addresses(self, index: int, version: int) -> set[str]:
        """With their length."""
        return steadily(lambda: self._addresses(index, version))

    def _addresses(self, index: int, version: int) -> set[str]:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        found = set()
        for data, answers in self._socket.dump(lambda sequence: dump_addresses_of(sequence, family, index)):
            for kind, _, _, _, start, end in answers:
                decoded = decode_address(data, start, end) if kind == RTM_NEWADDR else None
                if decoded is not None and decoded[0].ifindex == index:
                    address = decoded[0]
                    found.add(f"{address_text(address.address)}/{address.bits}")
        return found

    def entries(self, index: int, version: int) -> set[Entry]:
        """The permanent neighbours of a device, and its forwarding entries."""
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        neighbours = steadily(lambda: self._entries(index, lambda seq: dump_neighbours(seq, family, index)))
        return neighbours | steadily(lambda: self._entries(index, lambda seq: dump_fdb(seq, index)))

    def _entries(self, index: int, request: Callable[[int], bytes]) -> set[Entry]:
        found: set[Entry] = set()
        for data, answers in self._socket.dump(request):
            for kind, _, _, _, start, end in answers:
                read = read_neighbour(data, start, end) if kind == RTM_NEWNEIGH else None
                if read is not None and read[0] == index:
                    found.add(read[1])
        return found

    # --- writing

    def make(self, wanted: WantedDevice) -> Made:
        """The device, up, with its addresses. One of another kind, or with other parameters, is replaced."""
        made = Made(self.link(wanted.name))
        link = made.link
        if link is not None and (link.kind, link.vxlan) != (wanted.kind, wanted.vxlan):
            was = str(link.vxlan) if link.vxlan else link.kind or "something else"
            self._do(made, f"deleted, it was {was}", wanted.name, lambda seq: delete_link(seq, wanted.name))
            made.link = self.link(wanted.name)
        if made.failures:
            return made
        if made.link is None:
            self._create(made, wanted)
        if made.link is not None:
            self._adjust(made, made.link, wanted)
        return made

    def _create(self, made: Made, wanted: WantedDevice) -> None:
        parameters = vxlan_attributes(wanted.vxlan) if wanted.vxlan is not None else b""
        error = self._do(
            made, "made", wanted.name,
            lambda seq: create_device(seq, wanted.name, wanted.kind, wanted.mtu, wanted.mac, parameters),
            (errno.EEXIST,),
        )  # fmt: skip
        made.link = self.link(wanted.name)
        if made.link is None and error is not None:
            made.failures.append(Failure(f"device {wanted.name}", f"not made: {error}"))
        # Else loading the kernel's module has made it, as it does tunl0.

    def _adjust(self, made: Made, link: LinkState, wanted: WantedDevice) -> None:
        name, index = wanted.name, link.index
        if wanted.mac and link.mac != wanted.mac.lower():
            self._do(made, f"MAC address {wanted.mac}", name, lambda seq: change_link(seq, index, mac=wanted.mac))
        if wanted.mtu and link.mtu != wanted.mtu:
            self._do(made, f"MTU {wanted.mtu}", name, lambda seq: change_link(seq, index, mtu=wanted.mtu))
        there = self.addresses(index, wanted.version)
        for address in sorted(wanted.addresses - there):
            self._do(made, f"address {address}", name, lambda seq: add_address(seq, index, address), (errno.EEXIST,))  # noqa: B023
        for address in sorted(stale_addresses(wanted, there)):
            self._do(made, f"no address {address}", name, lambda seq: delete_address(seq, index, address), GONE)  # noqa: B023
        if not link.is_up:
            self._do(made, "up", name, lambda seq: set_up(seq, index))

    def remove(self, name: str, kind: str) -> Made:
        """Unless it is of another kind: then it is somebody else's."""
        made = Made(self.link(name))
        if made.link is not None and made.link.kind == kind:
            self._do(made, "deleted", name, lambda seq: delete_link(seq, name), GONE)
            made.link = None
        return made

    def forget_addresses(self, name: str, version: int) -> Made:
        """For a device that cannot be deleted."""
        made = Made(self.link(name))
        index = made.link.index if made.link is not None else 0
        for address in sorted(self.addresses(index, version)) if index else ():
            self._do(made, f"no address {address}", name, lambda seq: delete_address(seq, index, address), GONE)  # noqa: B023
        return made

    def write_entries(self, index: int, puts: Iterable[Entry], deletes: Iterable[Entry]) -> list[Failure]:
        """A put replaces what stands at the same address or MAC."""
        failures: list[Failure] = []
        gone = list(deletes)
        for at in range(0, len(gone), BATCH):
            some = gone[at : at + BATCH]
            errors = self._send([lambda seq, one=one: delete_neighbour(seq, index, one) for one in some])  # type: ignore[misc]
            failures += [
                _failed("remains", some[place], error) for place, error in errors.items() if error.code not in GONE
            ]
        new = list(puts)
        for at in range(0, len(new), BATCH):
            some = new[at : at + BATCH]
            errors = self._send([lambda seq, one=one: put_neighbour(seq, index, one) for one in some])  # type: ignore[misc]
            failures += [_failed("lacks", some[place], error) for place, error in errors.items()]
        return failures

    def _send(self, makers: Sequence[Callable[[int], bytes]]) -> dict[int, KernelError]:
        first = self._socket.sequences(len(makers))
        return self._socket.write([make(sequence) for sequence, make in enumerate(makers, start=first)], first)

    def _do(
        self, made: Made, change: str, name: str, maker: Callable[[int], bytes], ignored: Sequence[int] = ()
    ) -> KernelError | None:
        """One request. Noted as a change if it was done, as a failure unless the errno is among the ignored ones."""
        error = self._send([maker]).get(0)
        if error is None:
            made.changes.append(f"{name}: {change}")
        elif error.code not in ignored:
            made.failures.append(Failure(f"device {name}", f"{change}: {error}"))
        return error


def _failed(how: str, one: Entry, error: KernelError) -> Failure:
    what = f"forwarding entry {one.mac} → {one.node}" if isinstance(one, FdbEntry) else f"neighbour {one.address}"
    return Failure(what, f"{how}: {error}")
