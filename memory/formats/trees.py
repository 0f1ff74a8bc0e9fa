"""Trees of messages: the branch that was shown last, and the nodes of the other branches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from memory.formats.builders import Draft
from memory.formats.turns import Message

Parents: TypeAlias = Mapping[str, str | None]
"""The parent of each node, in the order of the file."""

_CHILDREN: Final = ("children", "childrenIds")


def parents_of(nodes: Mapping[str, Any], *names: str) -> dict[str, str | None]:
    """Return the parent of each node: the first of these members that is a string; None for a root.

    A node whose parent does not exist belongs to the node that lists it as a child.

    >>> parents_of({"q": {"parent": None}, "a": {"parent": "q"}}, "parent")
    {'q': None, 'a': 'q'}
    """
    found = {key: node if isinstance(node, dict) else {} for key, node in nodes.items()}
    listed: dict[str, str] = {}
    for key, node in found.items():
        children: list[Any] = next((node[name] for name in _CHILDREN if isinstance(node.get(name), list)), [])
        listed |= {child: key for child in children if isinstance(child, str)}
    parents: dict[str, str | None] = {}
    for key, node in found.items():
        parent = next((node[name] for name in names if isinstance(node.get(name), str)), None)
        is_known = parent in found and parent != key
        parents[key] = parent if is_known else listed.get(key)
    return parents


def path_to(parents: Parents, current: object) -> list[str]:
    """Return the nodes from a root to the current one; if there is no such node, to the last leaf of the deepest branch.

    >>> path_to({"q": None, "old": "q", "new": "q", "q2": "new"}, None)
    ['q', 'new', 'q2']
    """
    if isinstance(current, str) and current in parents:
        return _up(parents, current)
    inner = set(parents.values())
    leaves = [key for key in parents if key not in inner] or list(parents)
    depths = _depths(parents)
    # The last one in the file wins a tie: programs append the newer branch.
    return _up(parents, max(reversed(leaves), key=depths.__getitem__)) if leaves else []


def _up(parents: Parents, current: str) -> list[str]:
    path: dict[str, None] = {}
    above: str | None = current
    while above is not None and above in parents and above not in path:
        path[above] = None
        above = parents[above]
    return list(reversed(path))


def _depths(parents: Parents) -> dict[str, int]:
    """Return the number of nodes above each node; a cycle counts as a root."""
    depths: dict[str, int] = {}
    for key in parents:
        trail: dict[str, None] = {}
        above: str | None = key
        while above is not None and above in parents and above not in depths and above not in trail:
            trail[above] = None
            above = parents[above]
        depth = depths.get(above, 0) if above is not None else 0
        for node in reversed(trail):
            depth = depths[node] = depth + 1
    return depths


def branches_of(parents: Parents, path: Sequence[str], pack: Callable[[str], Any]) -> dict[int, list[Any]]:
    """Return the nodes that are not on the path, by the index in the path where their branch forks off.

    A branch that is not connected to the path belongs to its first node.
    """
    on_path = {key: index for index, key in enumerate(path)}
    homes = dict(on_path)
    branches: dict[int, list[Any]] = {}
    for key in parents:
        trail: dict[str, None] = {}
        above: str | None = key
        while above is not None and above in parents and above not in homes and above not in trail:
            trail[above] = None
            above = parents[above]
        home = homes.get(above, 0) if above is not None else 0
        homes |= dict.fromkeys(trail, home)
        if key not in on_path:
            branches.setdefault(homes[key], []).append(pack(key))
    return branches


def draft_of(
    nodes: Sequence[dict[str, Any]],
    read_message: Callable[[dict[str, Any]], Message],
    *,
    id: str,
    parent: str,
    current: Any,
    draft: Draft,
) -> Draft:
    """Return a draft with the messages of the branch that was shown last, and the other branches.

    Args:
        nodes: the messages, in the order of the file.
        read_message: returns the message for a node.
        id: the member with a message's own id.
        parent: the member with the id of the message that it follows. If no message has one, they follow each other.
        current: the id of the last message shown; by default that of the deepest branch.
        draft: what else is known of the conversation.
    """
    by_id = {str(node.get(id)): node for node in nodes}
    if len(by_id) < len(nodes) or not any(isinstance(node.get(parent), str) for node in nodes):
        return replace(draft, messages=[read_message(node) for node in nodes])
    parents = parents_of(by_id, parent)
    path = path_to(parents, current)
    return replace(
        draft,
        messages=[read_message(by_id[key]) for key in path],
        branches=branches_of(parents, path, by_id.__getitem__),
    )
