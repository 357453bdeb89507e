"""What can be asked for: parameters, checked. The JSON API and the pages read them by the same models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.model import HealState, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_A_PAGE: Final = 1000
A_PAGE: Final = 100
REPEATABLE: Final = frozenset({"label"})
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]  # PostgreSQL takes no NUL
Code = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]
Sort = Literal[
    "number",
    "state",
    "since",
    "changes",
    "connection",
    "name",
    "-number",
    "-state",
    "-since",
    "-changes",
    "-connection",
    "-name",
]


class BadQueryError(ValueError):
    """Parameters that can't be used: `problems` are pairs of the parameter and what is wrong with it."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{field}: {message}" for field, message in self.problems))


class Paged(BaseModel):
    """What every list takes. Unknown parameters are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    page: int = Field(1, ge=1, le=1_000_000_000)
    """The page, from 1. One beyond the last is empty."""
    per_page: int = Field(A_PAGE, ge=1, le=MOST_A_PAGE)
    """How many a page has."""

    @classmethod
    def read(cls, given: Iterable[tuple[str, str]]) -> Self:
        """Read the parameters of a form, in which what is empty wasn't filled in. Raises `BadQueryError`."""
        pairs = [(name, value) for name, value in given if value]
        refuse_repeats(pairs)
        values: dict[str, Any] = {}
        for name, value in pairs:
            values[name] = [*values.get(name, []), value] if name in REPEATABLE else value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise BadQueryError(problems_of(error.errors())) from None


class DidQuery(Paged):
    """Which numbers, in which order."""

    q: Text | None = None
    """Part of the number, its VoiceLink id, friendly name, agent's or bot's name; capitals don't matter."""
    account: Text | None = None
    """The account's name."""
    connection: Text | None = None
    """The connection's id, or `default`."""
    state: Code | None = None
    """The state, as READY or NO_BOT."""
    issue: Code | None = None
    """An issue code that it has."""
    ready: Literal["true", "false"] | None = None
    """Whether it is ready."""
    label: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=", max_length=400)]] = Field(
        default_factory=list, max_length=10
    )
    """`NAME=VALUE`: a label that the configuration gives it. Several have to match all."""
    heal: HealState | None = None
    """Where it is in its heal."""
    sort: Sort | None = None
    """What to order by; `-` before it turns the order round. By number unless said otherwise. `state` puts what is not
    ready first."""


class HealQuery(Paged):
    """Which heals."""

    number: Text | None = None
    """The number, in any spelling, or what it is shown as."""
    account: Text | None = None
    """The account's name."""
    outcome: Outcome | None = None
    """How it ended."""


def refuse_repeats(given: Iterable[tuple[str, str]]) -> None:
    """Raise `BadQueryError` where a parameter that can be given once is given twice."""
    names = [name for name, _ in given if name not in REPEATABLE]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadQueryError((name, "is given more than once") for name in repeated)


def problems_of(errors: Iterable[Any]) -> list[tuple[str, str]]:
    """Return pydantic's findings as pairs of the parameter and what is wrong."""
    return [(_field(error["loc"]), _message(error)) for error in errors]


def _field(loc: tuple[int | str, ...]) -> str:
    names = [part for part in loc if isinstance(part, str) and part not in {"query", "path"}]
    return names[0] if names else ""


def _message(error: Any) -> str:  # noqa: ANN401 - pydantic's
    if error["type"] == "extra_forbidden":
        return "there is no such parameter"
    return str(error["msg"])
