"""Combinations of criteria, nested at random: `find` and `count` agree with `Criterion.matches`.

RediSearch 2.10 finds too few by an intersection with a negation inside a union inside an intersection.
"""

import random
from collections.abc import Callable
from functools import reduce
from operator import and_, or_

import pytest

from memory import Conversation, Store, where
from memory.domain.criteria import Criterion
from memory.testing.base import walk
from tests.rounds import rounds

Shape = Callable[[random.Random, Callable[[], Criterion]], Criterion]

KEYS = ("a", "b", "c")
SHAPES: dict[str, Shape] = {
    "A | ~B": lambda _, part: part() | ~part(),
    "(A & B) | ~C": lambda _, part: (part() & part()) | ~part(),
    "(A & B) | (x != 1)": lambda chance, part: (part() & part()) | (where(chance.choice(KEYS)) != 1),
    "~A | ~B": lambda _, part: ~part() | ~part(),
    "(A & ~B) | C": lambda _, part: (part() & ~part()) | part(),
    "~A & ~B": lambda _, part: ~part() & ~part(),
    "~~A": lambda _, part: ~~part(),
    "~(A | ~B) & C": lambda _, part: ~(part() | ~part()) & part(),
    "nothing": lambda _, part: part() | where("a").in_([]) | ~where("b").in_([]),
    "any of some": lambda chance, part: reduce(or_, [part() for _ in range(chance.randint(1, 4))]),
    "all of some": lambda chance, part: reduce(and_, [part() for _ in range(chance.randint(1, 4))]),
}


def leaf(chance: random.Random) -> Criterion:
    term, number = where(chance.choice(KEYS)), chance.randint(0, 3)
    return chance.choice(
        (
            term == number,
            term != number,
            term.in_([number, 3]),
            term.in_([]),
            term >= number,
            term.between(1, number),
            term.exists(),
            where("tags").contains(number),
            where.id > f"c{number}",
            where.id == f"c{number}",
            where.run_count == 0,
            where.run_count > number,
        )
    )


def nested(chance: random.Random, depth: int, shape: Shape) -> Criterion:
    def part() -> Criterion:
        if depth <= 1 or chance.random() < 0.3:
            return leaf(chance)
        return nested(chance, depth - 1, chance.choice([shape, *SHAPES.values()]))

    return shape(chance, part)


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    chance = random.Random(3)
    return [
        Conversation(
            f"c{n}",
            {key: chance.randint(0, 3) for key in KEYS if chance.random() < 0.7}
            | {"tags": [chance.randint(0, 3) for _ in range(chance.randint(0, 2))]},
        )
        for n in range(30)
    ]


def test_combinations_nested_at_random(store: Store, conversations: list[Conversation]) -> None:
    with store.begin() as uow:
        for conversation in conversations:
            uow.conversations.add(conversation)
    stored = store.begin().conversations.find(order="id", limit=100).items
    assert len(stored) == len(conversations)
    chance, wrong = random.Random(5), []
    for name, shape in SHAPES.items():
        for _ in range(rounds(15)):
            criterion = nested(chance, chance.randint(1, 5), shape)
            expected = [one.id for one in stored if criterion.matches(one)]
            found = [one.id for one in walk(store, criterion, order="id", limit=100)]
            if (found, store.begin().conversations.count(criterion)) != (expected, len(expected)):
                wrong.append((name, criterion))
    assert wrong == []


@pytest.mark.parametrize("depth", [16, 19, 24])
def test_criteria_as_deep_as_they_may_be(store: Store, depth: int) -> None:
    """The server's parser gives up at some depth: what is deeper is left to `matches`."""
    with store.begin() as uow:
        uow.conversations.add(Conversation("a", {"a": 1}))
    two = three = where("a") == 1
    for n in range(2, depth + 2):
        two = (two & ~(where("a") == n)) | (where("b") == n)
        three = ~(~three | (where("b") == n)) | ~(where("a") == 1)
    for criterion in (two, three, ~two):
        expected = int(criterion.matches(Conversation("a", {"a": 1})))
        assert store.begin().conversations.count(criterion) == expected
