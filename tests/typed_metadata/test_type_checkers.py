from pathlib import Path

from mypy import api

USER = Path(__file__).with_name("user.py")


def test_a_type_checker_infers_the_type_of_the_metadata_and_refuses_what_does_not_fit() -> None:
    out, err, code = api.run([str(USER)])  # strict, so each `type: ignore` must be needed
    assert (code, err) == (0, ""), out
