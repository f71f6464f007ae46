"""Fetching a URL that somebody else chose. Nothing else in Maru connects to one."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from maru.http.addresses import WEB_PORTS, AllowedHosts, is_literal, is_public, parse_url

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Looks a name up once: all its addresses, or OSError."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchError(Exception):
    """A fetch that came to nothing. Its text is the same whatever happened, and may be shown to the caller:
    refused, closed and silent look alike, so nobody can map a network with us. `reason` is for the log; it
    may name the host and its address, never a path, a query or credentials."""

    MESSAGE = (
        "the URL could not be fetched: it must be a plain http or https URL, percent-encoded, on port 80 "
        "or 443 of a public host that answers in time, successfully and within the size limit"
    )

    def __init__(self, reason: str) -> None:
        super().__init__(self.MESSAGE)
        self.reason = reason


class UrlRefused(FetchError):
    """The URL, or one it redirects to, is not one we go to. Nothing was sent to that one."""


class FetchFailed(FetchError):
    """The host could not be reached, or did not give what was asked within the limits."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a GET brought. `content_type` is what the host says of it, lower case and without parameters: look
    at the bytes before believing it. `final_host` is the host that answered, after redirects."""

    body: bytes
    content_type: str
    final_host: str


@dataclass(frozen=True, slots=True)
class Posted:
    """How a POST was answered. `retry_after_s` is how long the host asks to be left alone, if it says so."""

    status: int
    retry_after_s: float | None = None


class Fetcher:
    """Fetches URLs that callers or the configuration name, and never anything on a private network.

    A name is looked up once a hop, every address it has must be public, and the connection can only go to
    one of those; each redirect starts again from the first rule. `allowed_hosts` (see `AllowedHosts`) are
    exempt from the rules on addresses and ports. No proxy, cookie or credential of ours is ever used.
    Durations are in seconds: `connect_timeout_s` bounds the look-up and then the connection of each hop,
    `total_timeout_s` everything. `tls` replaces the system's certificate authorities.
    """

    def __init__(
        self,
        allowed_hosts: Iterable[str],
        *,
        resolver: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        connect_timeout_s: float = 5.0,
        total_timeout_s: float = 10.0,
        max_bytes: int = 10 * 2**20,
        max_redirects: int = 3,
        max_concurrent: int = 64,
    ) -> None:
        self._allowed = AllowedHosts(allowed_hosts)
        self._resolve = resolver or self._getaddrinfo
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._total_timeout_s = total_timeout_s
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._slots = asyncio.Semaphore(max_concurrent)
        # Its own threads: callers choose the names, and a name server that never answers must not take the
        # threads in which the rest of the process looks up its database.
        self._lookups = ThreadPoolExecutor(16, "maru-fetch-dns")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def get(self, url: str, *, accept: str = "*/*", max_bytes: int | None = None) -> Fetched:
        """The body at `url`, following redirects. `accept` is sent as it is; checking the bytes is the
        caller's. Raises UrlRefused, or FetchFailed: also for a status other than 200, a compressed body, and
        more than `max_bytes` (the fetcher's own limit by default)."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        async with self._turn():
            target = _parse(url)
            for _ in range(self._max_redirects + 1):
                async with self._exchange("GET", target, {"Accept": accept}) as response:
                    if response.status in _REDIRECTS:
                        target = _redirected(target, response)
                    elif response.status == 200:
                        body = await _body(response, limit)
                        return Fetched(body, response.content_type, target.raw_host or "")
                    else:
                        raise FetchFailed(f"{target.raw_host}: status {response.status}")
            raise FetchFailed(f"{target.raw_host}: more than {self._max_redirects} redirects")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Posted:
        """How `url` answered a POST of `body`. Redirects are not followed, nor is the answer's body read.
        Raises UrlRefused or FetchFailed; after the latter the host may have got it."""
        async with self._turn(), self._exchange("POST", _parse(url), headers, body) as response:
            return Posted(response.status, _seconds(response.headers.get("Retry-After", "")))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._total_timeout_s), self._slots:
                yield
        except TimeoutError:
            raise FetchFailed(f"not done within {self._total_timeout_s:g} s") from None

    @asynccontextmanager
    async def _exchange(
        self, method: str, target: URL, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request and its response, on a connection of its own that can reach nothing but `target`."""
        try:
            connector = _connector_to(await self._vetted(target), self._tls)
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    trust_env=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout_s),
                    headers={"User-Agent": "maru", "Accept-Encoding": "identity"},
                ) as session,
                session.request(method, target, headers=headers, data=body, allow_redirects=False) as response,
            ):
                yield response
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Without its cause, whose text may quote the URL.
            raise FetchFailed(f"{target.raw_host}: {_kind(error)}") from None

    async def _vetted(self, target: URL) -> Sequence[str]:
        """Where a connection for `target` may go: all its addresses, or UrlRefused if one is not allowed."""
        host, port = target.raw_host or "", target.port or 0
        opened = self._allowed.opens(host, port)
        if port not in WEB_PORTS and not opened:
            raise UrlRefused(f"{host}: port {port} is not allowed")
        if is_literal(host):
            addresses: Sequence[str] = [host]
        else:
            async with asyncio.timeout(self._connect_timeout_s):
                addresses = await self._resolve(host)
        if not addresses:
            raise FetchFailed(f"{host}: no address")
        for address in addresses:
            if not (opened or is_public(address)):
                raise UrlRefused(f"{host}: {address} is not a public address")
        return addresses

    async def _getaddrinfo(self, host: str) -> Sequence[str]:
        answers = await asyncio.get_running_loop().run_in_executor(
            self._lookups,
            lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG),
        )
        return [str(sockaddr[0]) for *_, sockaddr in answers]


class _Pinned(AbstractResolver):
    """Answers with addresses that were looked up before."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


def _connector_to(addresses: Sequence[str], tls: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    def create_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        # The last gate: whatever aiohttp makes of the host, it dials only what was vetted.
        family, kind, protocol, _, sockaddr = info
        if sockaddr[0] not in addresses:
            raise UrlRefused(f"{sockaddr[0]} was about to be dialled without having been vetted")
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        resolver=_Pinned(addresses),
        socket_factory=create_socket,
        use_dns_cache=False,
        ssl=tls or True,
    )


def _parse(url: str) -> URL:
    try:
        return parse_url(url)
    except ValueError as error:
        raise UrlRefused(f"bad URL: {error}") from None


def _redirected(current: URL, response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location")
    if location is None:
        raise FetchFailed(f"{current.raw_host}: a redirect to nowhere")
    try:
        target = parse_url(urljoin(str(current), location))
    except ValueError:
        raise UrlRefused(f"{current.raw_host}: redirects to a bad URL") from None
    if current.scheme == "https" and target.scheme != "https":
        raise UrlRefused(f"{current.raw_host}: redirects from https to http")
    return target


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    encodings = response.headers.getall("Content-Encoding", [])
    if any(encoding.strip().lower() != "identity" for encoding in encodings):
        raise FetchFailed(f"{response.url.raw_host}: a compressed body, though none was asked for")
    too_large = FetchFailed(f"{response.url.raw_host}: a body over {limit} bytes")
    if (response.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _seconds(retry_after: str) -> float | None:
    """What Retry-After says (RFC 9110, 10.2.3), as seconds from now; None where it says nothing."""
    given = retry_after.strip()
    if given.isascii() and given.isdecimal():
        return float(given[:9])
    try:
        moment = parsedate_to_datetime(given)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _kind(error: BaseException) -> str:
    number = 0 if isinstance(error, ssl.SSLError) else getattr(error, "errno", None) or 0
    return f"{type(error).__name__} {errno.errorcode.get(number, '')}".rstrip()
