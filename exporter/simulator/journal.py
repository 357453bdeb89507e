"""What the simulator was asked: a bounded list, for tests to look at."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field

NO_KEY = -1


@dataclass(slots=True)
class Seen:
    """One request. The API key itself is never kept.

    `time` is in seconds by the simulator's clock; `key` numbers the keys in the order they were first seen, -1 is none;
    `body` is the parsed JSON, or the text where it is none, or None without a body; `status` is None until answered.
    """

    time: float
    method: str
    path: str
    query: dict[str, str]
    key: int = NO_KEY
    body: object = None
    endpoint: str = "unknown"
    connection_id: str = ""
    status: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return asdict(self)


@dataclass(slots=True)
class Journal:
    """The last `size` requests."""

    size: int
    _requests: deque[Seen] = field(init=False)
    _keys: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._requests = deque(maxlen=self.size)

    def add(self, seen: Seen, key: str) -> None:
        """Keep a request; an empty key is none."""
        if key:
            seen.key = self._keys.setdefault(key, len(self._keys))
        self._requests.append(seen)

    def requests(self, endpoint: str = "") -> list[Seen]:
        """Return the requests, oldest first, of one endpoint or of all."""
        return [seen for seen in self._requests if endpoint in ("", seen.endpoint)]

    def clear(self) -> None:
        """Forget the requests; keys keep their numbers."""
        self._requests.clear()
