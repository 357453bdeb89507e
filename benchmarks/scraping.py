"""Scrapes over HTTP, as Prometheus makes them: gzip accepted, the connection kept where the server keeps it."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import time
import zlib
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.running import Running

_BUFFER: Final = 1 << 26  # bytes; no gzipped answer is longer
_GZIP: Final = 16 + zlib.MAX_WBITS
_RATE: Final = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer, gzipped as it came. `seconds` from sending the request to the answer's last byte."""

    seconds: float
    body: bytes

    @property
    def text(self) -> str:
        """What it says."""
        return zlib.decompress(self.body, _GZIP).decode()


class Scraper:
    """Scrapes one server."""

    def __init__(self, server: Running) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        self._buffer = memoryview(bytearray(_BUFFER))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def timed(self) -> float:
        """Scrape; return the seconds it took."""
        return self._read()[0]

    def scrape(self) -> Scrape:
        """Scrape; return the answer as well."""
        seconds, length = self._read()
        return Scrape(seconds, bytes(self._buffer[:length]))

    def _read(self) -> tuple[float, int]:
        begun = time.perf_counter()
        self._connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        response = self._connection.getresponse()
        length = 0
        while read := response.readinto(self._buffer[length:]):
            length += read
        seconds = time.perf_counter() - begun
        if response.status != http.client.OK or response.headers["Content-Encoding"] != "gzip":
            raise RuntimeError(f"answered {response.status}, {response.headers['Content-Encoding']}")
        return seconds, length


def rate(server: Running, seconds: float) -> float:
    """Return how many gzip scrapes a second it answers, asked by wrk, or one after the other without it."""
    wrk = shutil.which("wrk")
    if not wrk:
        with closing(Scraper(server)) as scraper:
            count, begun = 0, time.perf_counter()
            while (passed := time.perf_counter() - begun) < seconds:
                scraper.timed()
                count += 1
            return count / passed
    words = [wrk, "-t1", "-c4", f"-d{max(1, round(seconds))}s", "-H", "Accept-Encoding: gzip"]
    url = f"http://127.0.0.1:{server.port}/metrics"
    done = subprocess.run([*words, url], capture_output=True, text=True, check=True)
    found = _RATE.search(done.stdout)
    if not found:
        raise RuntimeError("wrk said nothing of requests a second")
    return float(found[1])


def value(text: str, series: str) -> float:
    """Return the sum of the samples whose lines begin so."""
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series))
