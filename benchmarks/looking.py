"""People and scripts who look: the status page and the JSON API of a fleet, and scrapes beside them."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from benchmarks.scraping import Scraper
from benchmarks.table import Row, at_most, with_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.running import Running

SLOWEST_PAGE: Final = 30.0  # milliseconds, the median
SLOWEST_SAME: Final = 1.0  # milliseconds to say that nothing is new
LOOKS: Final = (
    ("status page, 100 numbers of all", "/"),
    ("status page, filtered, searched and ordered", "/?ready=true&q=1122&sort=-since&page=2"),
    ("100 numbers as JSON", "/api/v1/dids"),
    ("1,000 numbers as JSON", "/api/v1/dids?per_page=1000"),
)
VIEWERS: Final = 3


class Viewer:
    """Looks at one server over one connection."""

    def __init__(self, server: Running) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def look(self, path: str, tag: str = "") -> tuple[float, int, str]:
        """Look; return the milliseconds it took, the status and the tag of what was seen."""
        begun = time.perf_counter()
        self._connection.request("GET", path, headers={"If-None-Match": tag} if tag else {})
        response = self._connection.getresponse()
        response.read()
        return 1000 * (time.perf_counter() - begun), response.status, response.headers.get("ETag", "")


def looks(server: Running, count: int) -> Iterator[Row]:
    """Look at a fleet at rest, so and so often at each of what there is."""
    with closing(Viewer(server)) as viewer:
        for name, path in LOOKS:
            viewer.look(path)  # the first pays for what is loaded and built once
            found = statistics.median(viewer.look(path)[0] for _ in range(count))
            yield at_most(f"{name}, median of {count}", found, SLOWEST_PAGE, "ms")
        seen = [(found, status) for found, status, _ in (_again(viewer) for _ in range(count))]
        same = statistics.median(found for found, status in seen if status == http.client.NOT_MODIFIED)
        yield at_most(f"status page that says nothing new, median of {count}", same, SLOWEST_SAME, "ms")


def _again(viewer: Viewer) -> tuple[float, int, str]:
    return viewer.look("/", viewer.look("/")[2])


def scrapes_beside(server: Running, count: int) -> Row:
    """Scrape while some people reload the page as fast as they can."""
    ended = threading.Event()

    def reload() -> None:
        with closing(Viewer(server)) as viewer:
            while not ended.is_set():
                viewer.look("/")

    viewers = [threading.Thread(target=reload) for _ in range(VIEWERS)]
    for each in viewers:
        each.start()
    try:
        with closing(Scraper(server)) as scraper:
            found = sorted(1000 * scraper.timed() for _ in range(count))
    finally:
        ended.set()
        for each in viewers:
            each.join()
    return Row(
        f"gzip scrape while {VIEWERS} reload the page without pause, median and slowest of {count}",
        f"{with_unit(statistics.median(found), 'ms')}, {with_unit(found[-1], 'ms')}",
    )
