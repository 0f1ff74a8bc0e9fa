"""The conversations of a store, as a collection: see `memory.core.faces` for the decorators."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, cast

from memory.core.faces import Item, Items, Steps, immediate, iteration, operation
from memory.core.identity_map import check_ids, id_of
from memory.domain.entities import Conversation, M
from memory.errors import ConflictError, InvalidValueError, NotFoundError, State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from memory.core.session import Session
    from memory.domain.criteria import Criterion
    from memory.port.paging import Page, Query

NEWEST_FIRST: Final = "-last_run_at"
_STILL: Final = ("created_at", "id")  # orders in which no conversation moves while others write


class ReadingConversations(Generic[M]):
    """Read conversations. `Store.conversations` and the conversations of a unit of work have these methods in common."""

    def __init__(self, session: Session[M]) -> None:
        self._session = session

    @operation
    def get(self, conversation_id: str, *, if_match: str | None = None) -> Steps[Conversation[M]]:
        """Return the conversation. In a unit of work it is always the same object, and the commit writes changes of it.

        Args:
            conversation_id: its id.
            if_match: the `Conversation.etag` that it must have, for instance from the header ``If-Match``.

        Raises:
            NotFoundError: the conversation does not exist or has expired.
            ConflictError: it has another etag; not ``retryable``.
        """
        conversation = yield from self._get(conversation_id)
        if conversation is None:
            raise NotFoundError(f"there is no conversation {conversation_id!r}", conversation_id=conversation_id)
        if if_match is not None and conversation.etag != if_match:
            raise _has_changed(conversation, if_match)
        return conversation

    @operation
    def exists(self, conversation_id: str) -> Steps[bool]:
        """Return whether the conversation exists and has not expired. It is read as `get` reads it."""
        return (yield from self._get(conversation_id)) is not None

    @operation
    def get_many(self, conversation_ids: Iterable[str]) -> Steps[dict[str, Conversation[M]]]:
        """Return the conversations with these ids, by id, without those that do not exist.

        SQL and Redis read them in one request, as they are at one moment; the other stores in as few requests as they can.
        """
        session = self._session
        yield from session.prepare()
        tracked = {id: session.tracked(id) for id in check_ids(conversation_ids)}
        unread = [id for id, one in tracked.items() if one.conversation is None and not one.is_removed]
        if unread:
            found = yield partial(session.repository.get_many, session.namespace, unread)
            for id in unread:
                tracked[id].read(found.get(id))
        return {id: one.conversation for id, one in tracked.items() if one.conversation is not None}

    @operation
    def find(
        self,
        criterion: Criterion | None = None,
        *,
        order: str = NEWEST_FIRST,
        limit: int = 50,
        after: str | None = None,
    ) -> Steps[Page[Conversation[M]]]:
        """Return a page of the committed conversations that match; pending changes of this unit of work are ignored.

        A conversation that this unit of work read before is returned as the same object, with its pending changes.

        Args:
            criterion: made with `where`; default: all conversations.
            order: ``last_run_at``, ``updated_at``, ``created_at``, ``id``, or a metadata path such as ``metadata.priority``, with
                a ``-`` in front for descending order; ties are broken by id. An order by a path returns only conversations that
                have the path.
            limit: the most conversations in the page, at least 1.
            after: the ``cursor`` of the previous page.

        Raises:
            InvalidValueError: an argument is not valid, or the cursor belongs to another order.
        """
        return self._find(criterion, order, limit, after)

    @operation
    def find_one(
        self, criterion: Criterion | None = None, *, order: str = NEWEST_FIRST
    ) -> Steps[Conversation[M] | None]:
        """Return the first conversation that `find` would return, or None."""
        page = yield from self._find(criterion, order, 1, None)
        return page.items[0] if page.items else None

    @iteration
    def iterate(self, criterion: Criterion | None = None, *, order: str = "id") -> Items[Conversation[M]]:
        """Yield all committed conversations that match, page by page. Each that exists throughout is yielded once.

        The commit writes changes made to a conversation in its step of the loop, and later ones if the application still
        references the object. Otherwise the conversation is released after its step: keep a reference if you edit its runs
        later.

        Args:
            criterion: made with `where`; default: all conversations.
            order: as for `find`. In an order by ``last_run_at``, ``updated_at`` or a metadata path, conversations move while
                others write. All ids are therefore held in memory, and a descending iteration by time ends with the
                conversations that moved to its front. By a path, those that move to where it has been may be missed.

        Raises:
            InvalidValueError: as for `find`.
        """
        parsed = parse_query(criterion, order).order
        if parsed.field in _STILL:
            yield from self._walk(criterion, order, None)
            return
        seen: set[str] = set()
        yield from self._walk(criterion, order, seen)
        if parsed.descending and not parsed.path:
            # Conversations written meanwhile moved behind this walk. An ascending walk cannot miss any.
            yield from self._walk(criterion, parsed.field, seen)

    def _walk(self, criterion: Criterion | None, order: str, seen: set[str] | None) -> Items[Conversation[M]]:
        session, cursor = self._session, None
        limit = session.repository.iterate_page
        while True:
            yield from session.prepare()
            query = parse_query(criterion, order, limit, cursor)
            page = yield partial(session.repository.find, session.namespace, query)
            for found in page.items:
                if seen is not None:
                    if found.id in seen:
                        continue
                    seen.add(found.id)
                is_new = not session.is_tracked(found.id)  # otherwise the version read before must be kept
                yield Item(session.tracked(found.id).found(found))
                if is_new:
                    session.release(found.id)
            if (cursor := page.cursor) is None:
                return

    @operation
    def count(self, criterion: Criterion | None = None) -> Steps[int]:
        """Return the number of committed conversations that match; without a criterion, of all.

        Raises:
            InvalidValueError: the criterion is not valid.
        """
        session = self._session
        yield from session.prepare()
        query = parse_query(criterion, "id")
        count: int = yield partial(session.repository.count, session.namespace, query.criterion)
        return count

    def _find(
        self, criterion: Criterion | None, order: str, limit: int, after: str | None
    ) -> Steps[Page[Conversation[M]]]:
        session = self._session
        yield from session.prepare()
        query = parse_query(criterion, order, limit, after)
        page: Page[Conversation] = yield partial(session.repository.find, session.namespace, query)
        items = tuple([session.tracked(found.id).found(found) for found in page.items])
        following = cast(Any, self).find  # of the face
        return self._page(items, page.cursor, partial(following, criterion, order=order, limit=limit))

    def _page(
        self, items: tuple[Conversation[M], ...], cursor: str | None, following: partial[Any]
    ) -> Page[Conversation[M]]:
        """Return a page of this face."""
        from memory.port.paging import Page

        return Page(items, cursor, following)

    def _get(self, conversation_id: str) -> Steps[Conversation[M] | None]:
        session = self._session
        yield from session.prepare()
        tracked = session.tracked(conversation_id)
        if tracked.conversation is None and not tracked.is_removed:
            tracked.read((yield partial(session.repository.get, session.namespace, conversation_id)))
        return tracked.conversation


class WritingConversations(ReadingConversations[M]):
    """The conversations of a unit of work."""

    @immediate
    def add(self, conversation: Conversation[M]) -> None:
        """Add a new conversation.

        Raises:
            InvalidValueError: its metadata is not JSON, or ``expires_at`` is not an aware ``datetime``.
            AlreadyExistsError: this unit of work has already read or added its id. If only the store has it, the commit raises.
        """
        if type(conversation) is not Conversation:  # a subclass would be read as a Conversation, without its own fields
            raise InvalidValueError(
                f"add() takes a Conversation, not a {type(conversation).__name__}: the application's own fields belong "
                "in the metadata, which can have a type: connect(url, metadata=...)"
            )
        self._session.tracked(conversation.id).add(conversation)

    @operation
    def get_or_create(
        self,
        conversation_id: str,
        metadata: M | None = None,
        expires_at: datetime | None = None,
        *,
        expires_after: timedelta | None = None,
    ) -> Steps[Conversation[M]]:
        """Return the conversation; if it does not exist, add it with these values. `Conversation` has the arguments.

        If somebody else creates it before the commit, the commit raises `ConflictError`, after which `Store.run` retries.

        >>> import memory
        >>> store = memory.connect("memory://")
        >>> for _ in range(2):
        ...     with store.begin() as uow:
        ...         uow.conversations.get_or_create("support-42", {"customer": "ada"}).run_count
        0
        0
        """
        conversation = yield from self._get(conversation_id)
        if conversation is None:
            own = deepcopy(metadata)  # an application passes the same dict for each conversation
            conversation = Conversation(conversation_id, own, expires_at, expires_after=expires_after)
            self._session.tracked(conversation_id).add(conversation)
        return conversation

    @operation
    def remove(self, conversation: Conversation[M] | str | Criterion, *, force: bool = False) -> Steps[None]:
        """Remove a conversation, given as an object or an id, and its runs; or all that match a criterion.

        If this unit of work has read anything of it, the commit raises `ConflictError` if it was changed since, or if a run was
        appended, unless ``force`` is set. The matches of a criterion are read.

        Raises:
            NotFoundError: this unit of work has already removed it. If it is not in the store, the commit raises.
            InvalidValueError: the criterion is not valid.
        """
        if isinstance(conversation, Conversation | str):
            self._remove(conversation, force=force)
            return
        if conversation is None:  # which a search takes for all conversations
            raise InvalidValueError("remove() takes a conversation, an id or a criterion, not None: was nothing found?")
        after: str | None = ""
        while after is not None:
            page = yield from self._find(conversation, "id", 200, after or None)
            for found in page:
                if not self._session.tracked(found.id).is_removed:
                    self._remove(found, force=force)
            after = page.cursor

    def _remove(self, conversation: Conversation[M] | str, *, force: bool) -> None:
        tracked = self._session.tracked(id_of(conversation))
        if isinstance(conversation, Conversation):
            tracked.resolve(conversation)
        tracked.remove(force=force)


def parse_query(criterion: Criterion | None, order: str, limit: int = 1, after: str | None = None) -> Query:
    """Return the checked query of these arguments: see `ReadingConversations.find`."""
    from memory.port.paging import Query  # an application that imports `memory` waits for less

    return Query.parse(criterion, order, limit, after)


def _has_changed(conversation: Conversation[Any], etag: str) -> ConflictError:
    error = ConflictError(
        f"conversation {conversation.id!r} was changed since it was read: its etag is {conversation.etag}, not {etag}",
        conversation_id=conversation.id,
    )
    error.actual = State(conversation.version, conversation.last_position)
    error.retryable = False  # the etag is the client's, who has to read it again
    return error
