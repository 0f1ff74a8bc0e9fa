"""The contract's OpenAPI document, and whether an answer is one that it allows."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

DOCUMENT = Path(__file__).with_name("openapi.yaml")


@cache
def document() -> dict[str, Any]:
    return yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def check(method: str, path: str, status: int, answer: object) -> None:
    """Raise unless the document allows this answer to this request."""
    responses = _operation(method, path.partition("?")[0])["responses"]
    assert str(status) in responses, f"{method} {path} does not answer {status}"
    content = _resolved(responses[str(status)]).get("content")
    if content is None:
        assert answer is None, f"{method} {path} answers {status} with a body"
        return
    schema = content["application/json"]["schema"] | {"components": document()["components"]}
    Draft202012Validator(schema).validate(answer)


def _operation(method: str, path: str) -> dict[str, Any]:
    for template, operations in document()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return operations[method.lower()]  # type: ignore[no-any-return]
    raise AssertionError(f"the document has no path {path}")


def _resolved(value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        reference = value["$ref"]
        value = document()
        for key in reference.removeprefix("#/").split("/"):
            value = value[key]
    return value
