"""The one accountant of floats sent, read from block shapes and versions."""

from __future__ import annotations

from linattn._typing import IntArray
from linattn.types import Layout


class Traffic:
    """Counts floats sent down: a client fetches the blocks that changed since it last had them.

    From the first frozen round on the kernel is not sent again, except once to every client that
    does not hold its final version yet.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._sizes = {name: s.stop - s.start for name, s in layout.slices.items()}
        self._version = dict.fromkeys(layout.names, 0)
        self._held: dict[int, dict[str, int]] = {}
        self._before: tuple[dict[str, int], dict[int, dict[str, int]]] = ({}, {})

    def mark(self) -> None:
        """Begin a round that `revert` can take back."""
        self._before = dict(self._version), {}

    def revert(self) -> None:
        """Forget everything since `mark`."""
        self._version, held = self._before
        self._held |= held

    def copy(self) -> Traffic:
        """An independent copy."""
        other = Traffic(self.layout)
        other._version = dict(self._version)
        other._held = {client: dict(held) for client, held in self._held.items()}
        return other

    def size(self, names: frozenset[str]) -> int:
        """Floats of some blocks."""
        return sum(self._sizes[name] for name in names)

    def download(self, participants: IntArray, generated: frozenset[str] = frozenset()) -> int:
        """Floats that the participants fetch before a round; generated blocks every time."""
        floats = len(participants) * self.size(generated)
        for client in participants.tolist():
            held = self._held.setdefault(client, {})
            self._before[1].setdefault(client, dict(held))
            for name, version in self._version.items():
                if name not in generated and held.get(name) != version:
                    floats += self._sizes[name]
                    held[name] = version
        return floats

    def publish(self, changed: frozenset[str]) -> None:
        """The server has new values of these blocks."""
        for name in changed:
            self._version[name] += 1

    def repeat(self, participants: IntArray, changed: frozenset[str], times: int) -> list[int]:
        """Floats of each of `times` ≥ 2 rounds in which all fetch, and the server has new values.

        From the second round on the participants fetch the same blocks.
        """
        floats = []
        for _ in range(2):
            floats.append(self.download(participants))
            self.publish(changed)
        for name in changed:
            self._version[name] += times - 2
            for client in participants.tolist():
                self._held[client][name] += times - 2
        return floats + floats[1:] * (times - 2)
