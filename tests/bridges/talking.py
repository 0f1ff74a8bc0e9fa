"""What the tests say to Griptape, and a model that answers without being asked anywhere."""

from collections.abc import Iterator
from typing import Any

from attrs import define, field
from griptape.artifacts import TextArtifact
from griptape.common import DeltaMessage, Message, PromptStack, TextDeltaMessageContent
from griptape.drivers.prompt import BasePromptDriver
from griptape.memory.structure import ConversationMemory, Run
from griptape.tokenizers import BaseTokenizer, SimpleTokenizer

from memory import Store
from memory.bridges.griptape import RepositoryConversationMemoryDriver


def said(number: int | str, output: str | None = None, **fields: Any) -> Run:
    return Run(
        id=f"r{number}",
        input=TextArtifact(f"question {number}"),
        output=TextArtifact(output or f"answer {number}"),
        **fields,
    )


def driver_on(store: Store, **options: Any) -> RepositoryConversationMemoryDriver:
    return RepositoryConversationMemoryDriver(store=store, conversation_id="c", **options)


def memory_on(store: Store, max_runs: int | None = None, **options: Any) -> ConversationMemory:
    return ConversationMemory(conversation_memory_driver=driver_on(store, **options), max_runs=max_runs)


def ids(memory: ConversationMemory) -> list[str]:
    return [run.id for run in memory.runs]


def stored_ids(store: Store) -> list[str]:
    with store.begin() as uow:
        return [run.id for run in uow.runs.list("c")]


@define
class AnsweringDriver(BasePromptDriver):
    """Answers each prompt by what ``answer`` makes of its last message; remembers the prompts."""

    model: str = "answering"
    tokenizer: BaseTokenizer = field(
        factory=lambda: SimpleTokenizer(max_input_tokens=100_000, max_output_tokens=1_000, characters_per_token=4)
    )
    prompts: list[list[str]] = field(factory=list)
    fails: bool = False
    max_attempts: int = field(default=1, kw_only=True)

    def try_run(self, prompt_stack: PromptStack) -> Message:
        if self.fails:
            raise ValueError("the model is away")
        self.prompts.append([message.to_text() for message in prompt_stack.messages])
        return Message(
            f"answer to {prompt_stack.messages[-1].to_text()[:40]}", role=Message.ASSISTANT_ROLE, usage=Message.Usage()
        )

    def try_stream(self, prompt_stack: PromptStack) -> Iterator[DeltaMessage]:
        yield DeltaMessage(content=TextDeltaMessageContent(self.try_run(prompt_stack).to_text()))
