"""Disjoint sets of identities."""

from builder.persons.naming import Identity


class Forest:
    """Disjoint sets with path halving (Tarjan 1975)."""

    def __init__(self) -> None:
        self._parent: dict[Identity, Identity] = {}

    def add(self, node: Identity) -> None:
        """Know a node, alone at first."""
        self._parent.setdefault(node, node)

    def nodes(self) -> list[Identity]:
        """All nodes, sorted."""
        return sorted(self._parent)

    def find(self, node: Identity) -> Identity:
        """The node that stands for the set of this one."""
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, one: Identity, other: Identity) -> Identity | None:
        """Make two sets one; returns ``one``, or None where they were one already."""
        a, b = sorted((self.find(one), self.find(other)))
        if a == b:
            return None
        self._parent[b] = a
        return one
