"""Disjoint sets of identities, or of persons."""

from typing import Generic, TypeVar

from builder.persons.naming import Identity

Node = TypeVar("Node", Identity, str)


class Forest(Generic[Node]):
    """Disjoint sets with path halving (Tarjan 1975)."""

    def __init__(self) -> None:
        self._parent: dict[Node, Node] = {}

    def add(self, node: Node) -> None:
        """Add a node that stands alone at first."""
        self._parent.setdefault(node, node)

    def nodes(self) -> list[Node]:
        """Return all nodes, sorted."""
        return sorted(self._parent)

    def find(self, node: Node) -> Node:
        """Return the node that stands for the set of this one."""
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, one: Node, other: Node) -> Node | None:
        """Make two sets one; returns ``one``, or None where they were one already."""
        a, b = sorted((self.find(one), self.find(other)))
        if a == b:
            return None
        self._parent[b] = a
        return one
