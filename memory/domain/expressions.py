"""Criteria as text, in a subset of Python's syntax. The text is parsed and translated, never evaluated.

    domain == "Restaurants" and party_size >= 4
    1 <= priority <= 5 and not (closed == True or customer.tier in ["gold", "silver"])
    "Hotels_1" in services or startswith(customer.name, "A") or exists(metadata["a.b"])
    created_at >= "2026-01-31" and run_count > 10

A path is a series of names separated by dots, or of subscripts for keys that are no Python names: ``customer.tier``,
``customer["odd key"]``. ``id``, ``created_at``, ``updated_at``, ``last_run_at`` and ``run_count`` are the conversation's own
fields (times as ISO 8601 text, in UTC unless they have a time zone); write ``metadata.id`` or ``metadata["id"]`` for a metadata
key of that name. A value is a string, a number, ``True``, ``False``, ``None`` (or JSON's ``true``, ``false``, ``null``), or a
list or dict of values.

==============================================  =======================================================
``and``  ``or``  ``not``  parentheses           combine conditions
``path == value``, also ``!= < <= > >=``        compare; in either order, and in chains
``path in [a, b]``, ``path not in [a, b]``      the value equals one of these, or none of them
``value in path``, ``value not in path``        the list at the path contains the value, or does not
``contains(path, value)``                       like ``value in path``; also ``path.contains(value)``
``startswith(path, "ab")``                      the string has this prefix; also ``path.startswith("ab")``
``exists(path)``                                the path exists; also ``path.exists()``
==============================================  =======================================================
"""

import ast
from collections.abc import Callable
from itertools import pairwise
from typing import Final, TypeAlias, TypeGuard, get_args

from memory.domain.criteria import AllOf, AnyOf, Criterion, FieldName, FieldTerm, MetadataTerm, Operator, where
from memory.domain.timestamps import parse_timestamp
from memory.domain.values import MAX_DEPTH
from memory.errors import InvalidValueError

LONGEST: Final = 10_000
"""The most characters that an expression may have."""

DEEPEST: Final = 50
"""The most levels that an expression may nest."""

_Term: TypeAlias = MetadataTerm | FieldTerm

_FIELDS: Final[dict[str, FieldTerm]] = {name: getattr(where, name) for name in get_args(FieldName)}
_TIMES: Final = ("created_at", "updated_at", "last_run_at")

_OPERATORS: dict[type[ast.cmpop], Operator] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_MIRRORED: Final[dict[Operator, Operator]] = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_CONSTANTS: Final = {"true": True, "false": False, "null": None}  # as JSON writes them
_FUNCTIONS: Final[dict[str, tuple[int, Callable[..., Criterion]]]] = {  # number of arguments, including the path
    "exists": (1, MetadataTerm.exists),
    "startswith": (2, MetadataTerm.startswith),
    "contains": (2, MetadataTerm.contains),
}


def parse(text: str) -> Criterion:
    """Return the criterion for an expression; the module's docstring describes the syntax.

    Raises:
        InvalidValueError: the expression is not valid; the message says what is wrong, and at which column.

    >>> parse('domain == "Restaurants" and not priority > 2')  # doctest: +NORMALIZE_WHITESPACE
    AllOf(parts=(OneOf(path=('domain',), values=('Restaurants',)),
                 Not(part=Orders(path=('priority',), operator='>', bound=2))))
    >>> parse('__import__("os").system("ls")')
    Traceback (most recent call last):
        ...
    memory.errors.InvalidValueError: there is no function system(), only exists(), startswith(), contains(), at column 1
    """
    if not isinstance(text, str):
        raise InvalidValueError(f"an expression must be a str, not {text!r:.60}")
    if len(text) > LONGEST:
        raise InvalidValueError(f"an expression may have at most {LONGEST:,} characters, not {len(text):,}")
    return _Translation(text).criterion()


class _Translation:
    """Translates the text of one expression into a criterion."""

    def __init__(self, text: str) -> None:
        self._text = text.lstrip()
        self._indent = len(text) - len(self._text)

    def criterion(self) -> Criterion:
        return self._condition(self._syntax_tree(), DEEPEST)

    def _syntax_tree(self) -> ast.expr:
        try:
            return ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            if not error.offset:  # the text ended too early
                raise InvalidValueError(f"{error.msg}, at the end") from error
            at_equals = (error.text or "")[error.offset - 1 : error.offset] == "="
            reason = "write == to compare" if at_equals else error.msg
            raise self._error_at(error.lineno or 1, error.offset - 1, reason) from error
        except ValueError as error:  # a NUL or a surrogate
            raise InvalidValueError(f"the expression cannot be read: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise InvalidValueError("the expression nests too deep") from error

    def _condition(self, node: ast.expr, depth: int) -> Criterion:
        if depth == 0:
            raise self._error(node, f"the expression nests deeper than {DEEPEST} levels")
        if isinstance(node, ast.BoolOp):
            parts = tuple([self._condition(value, depth - 1) for value in node.values])
            return AllOf(parts) if isinstance(node.op, ast.And) else AnyOf(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._condition(node.operand, depth - 1)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = [self._pair(left, op, right) for (left, right), op in zip(pairwise(sides), node.ops, strict=True)]
            return pairs[0] if len(pairs) == 1 else AllOf(tuple(pairs))
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            name = ".".join(self._path(node))
            raise self._error(node, f"{name} is a path, not a condition: write {name} == True, or exists({name})")
        if isinstance(node, ast.BinOp | ast.UnaryOp):
            raise self._error(node, "only `and`, `or`, `not` and comparisons are allowed, no other operators")
        raise self._error(
            node, "a condition must compare a path with a value, or call exists(), startswith() or contains()"
        )

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Criterion:
        if isinstance(op, ast.Is | ast.IsNot):
            raise self._error(right, "use == and != instead of `is` and `is not`")
        if _is_path(left) and _is_path(right):
            raise self._error(right, "two paths cannot be compared; write a string in quotes")
        if not _is_path(left) and not _is_path(right):
            raise self._error(left, "two values cannot be compared: one side must be a path")
        if isinstance(op, ast.In | ast.NotIn):
            member = self._is_in(left, right)
            return ~member if isinstance(op, ast.NotIn) else member
        operator = _OPERATORS.get(type(op), "==")
        path, value, operator = (left, right, operator) if _is_path(left) else (right, left, _MIRRORED[operator])
        term, operand = self._term(path), self._operand(path, value)
        compared = self._make(value, lambda: term.compares(operator, operand))
        return ~compared if isinstance(op, ast.NotEq) else compared

    def _is_in(self, left: ast.expr, right: ast.expr) -> Criterion:
        if _is_path(right):
            contains, element = self._metadata_term(right).contains, self._value(left)
            return self._make(left, lambda: contains(element))
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self._error(right, "`in` must be followed by a list of values, or a path")
        term, values = self._term(left), [self._operand(left, value) for value in right.elts]
        return self._make(right, lambda: term.in_(values))

    def _call(self, node: ast.Call) -> Criterion:
        """Translate ``name(path, ...)`` or ``path.name(...)``."""
        arguments = node.args
        if isinstance(node.func, ast.Attribute):
            name, arguments = node.func.attr, [node.func.value, *arguments]
        else:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            known = ", ".join(f"{known}()" for known in _FUNCTIONS)
            raise self._error(node, f"there is no function {name}(), only {known}")
        count, function = _FUNCTIONS[name]
        if len(arguments) != count or node.keywords or any(isinstance(argument, ast.Starred) for argument in arguments):
            raise self._error(node, f"{name}() takes a path" + (" and a value" if count > 1 else ""))
        term, values = self._metadata_term(arguments[0]), [self._value(argument) for argument in arguments[1:]]
        return self._make(arguments[-1], lambda: function(term, *values))

    def _make(self, node: ast.expr, make: Callable[[], Criterion]) -> Criterion:
        try:
            return make()
        except InvalidValueError as error:
            raise self._error(node, str(error)) from error

    def _term(self, node: ast.expr) -> _Term:
        if isinstance(node, ast.Name) and node.id in _FIELDS:
            return _FIELDS[node.id]
        return self._metadata_term(node)

    def _metadata_term(self, node: ast.expr) -> MetadataTerm:
        """Return the term for a path that is not one of the conversation's own fields."""
        path = self._path(node)
        if path[0] in _FIELDS:
            raise self._error(
                node,
                f"{path[0]} is a field of the conversation itself and can only be compared; for the metadata key, write "
                f"metadata.{path[0]}",
            )
        if path[0] == "metadata":
            path = path[1:]
        if not path:
            raise self._error(node, 'metadata alone is not a path: write metadata.name or metadata["name"]')
        return where(path)

    def _path(self, node: ast.expr) -> tuple[str, ...]:
        keys: list[str] = []
        while not isinstance(node, ast.Name):
            if len(keys) == MAX_DEPTH:  # the limit for metadata too
                raise self._error(node, f"a path may have at most {MAX_DEPTH} levels")
            if isinstance(node, ast.Attribute):
                keys.append(self._name(node, node.attr))
            elif isinstance(node, ast.Subscript):
                if not isinstance(node.slice, ast.Constant) or not isinstance(node.slice.value, str):
                    raise self._error(node.slice, "only a string may be used as a subscript in a path")
                keys.append(node.slice.value)
            else:
                raise self._error(node, "a path must begin with a name")
            node = node.value
        keys.append(self._name(node, node.id))
        return tuple(reversed(keys))

    def _name(self, node: ast.expr, name: str) -> str:
        """Return the name if it is written as Python parsed it: the parser replaces some characters by others (NFKC)."""
        end_line, end = (node.end_lineno or 1) - 1, node.end_col_offset
        if not self._lines[end_line][:end].endswith(name.encode()):
            raise self._error(node, f'Python changes characters of this name: write it as a string, metadata["{name}"]')
        return name

    def _operand(self, path: ast.expr, node: ast.expr) -> object:
        """Return the value that a path is compared with: a ``datetime`` for ``created_at`` and the other times."""
        value = self._value(node)
        if isinstance(path, ast.Name) and path.id in _TIMES:
            try:
                return parse_timestamp(value, path.id)
            except InvalidValueError as error:
                raise self._error(node, str(error)) from error
        return value

    def _value(self, node: ast.expr, depth: int = DEEPEST) -> object:
        if depth == 0:
            raise self._error(node, f"the expression nests deeper than {DEEPEST} levels")
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str | int | float)):
            return node.value
        if _is_constant(node):
            return _CONSTANTS[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            number = self._value(node.operand, depth - 1)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number if isinstance(node.op, ast.USub) else number
        if isinstance(node, ast.List):
            return [self._value(item, depth - 1) for item in node.elts]
        if isinstance(node, ast.Dict):
            return {
                self._key(node, key): self._value(item, depth - 1)
                for key, item in zip(node.keys, node.values, strict=True)
            }
        raise self._error(node, "a value must be a string, a number, True, False, None, or a list or dict of values")

    def _key(self, node: ast.Dict, key: ast.expr | None) -> str:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return key.value
        raise self._error(key or node, "the keys of a dict must be strings")

    def _error(self, node: ast.expr, reason: str) -> InvalidValueError:
        characters = self._lines[node.lineno - 1][: node.col_offset].decode()
        return self._error_at(node.lineno, len(characters), reason)

    def _error_at(self, line: int, characters: int, reason: str) -> InvalidValueError:
        before = sum(len(before.decode()) for before in self._lines[: line - 1])
        return InvalidValueError(f"{reason}, at column {self._indent + before + characters + 1}")

    @property
    def _lines(self) -> list[bytes]:
        """The lines as Python's parser counts them, as bytes because it counts columns in UTF-8."""
        return self._text.encode(errors="replace").splitlines(keepends=True)


def _is_path(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not _is_constant(node)


def _is_constant(node: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id in _CONSTANTS
