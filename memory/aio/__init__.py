"""The asynchronous API: the same names, arguments and errors as the synchronous one, to be awaited.

    from memory import Run, aio, where

    async with await aio.connect("sqlite:///conversations.db") as store:
        async with store.begin() as uow:
            conversation = await uow.conversations.get_or_create("support-42", {"customer": "ada"})
            await uow.runs.append(conversation, Run(input="...", output="..."))
        async for conversation in store.conversations.iterate(where("customer") == "ada"):
            ...

Each call of a store runs on a worker thread, so the event loop is never blocked; asyncio and trio both work. It needs the extra:
``pip install 'conversation-memory[async]'``.
"""

from memory.aio.store import Store, connect
from memory.aio.transfer import MirroredStore, Transfer, copy, dump, mirror, restore, verify
from memory.aio.unit_of_work import UnitOfWork

__all__ = [
    "MirroredStore",
    "Store",
    "Transfer",
    "UnitOfWork",
    "connect",
    "copy",
    "dump",
    "mirror",
    "restore",
    "verify",
]
