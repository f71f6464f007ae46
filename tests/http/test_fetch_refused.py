"""What is refused is never connected to: the corpora of ssrf_corpus.py, watched at connect(2)."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from ipaddress import IPv4Address, ip_address
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maru.http import addresses, fetch
from maru.http.addresses import AllowedHosts, is_public, parse_url
from maru.http.fetch import Fetcher, FetchError, FetchFailed, Posted, UrlRefused

from .ssrf_corpus import CONFUSING, MISSED_BY_IS_PRIVATE, NONSENSE, PUBLIC, SPELLINGS, V4, V6

GOOD = "93.184.215.14"


class Watch:
    """Every address that this process connects to. What is not loopback is stopped before it leaves."""

    def __init__(self) -> None:
        self.connects: list[str] | None = None
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "socket.connect" or self.connects is None or args[0].family == socket.AF_UNIX:
            return
        address = args[1][0]
        self.connects.append(address)
        if address not in ("127.0.0.1", "::1"):
            raise OSError(f"a test was about to connect to {address}")


@pytest.fixture(scope="session")
def audited() -> Watch:
    return Watch()  # an audit hook can't be taken away again, so there is one


@pytest.fixture
def connects(audited: Watch) -> Iterator[list[str]]:
    audited.connects = []
    yield audited.connects
    audited.connects = None


class Sentinel:
    """A server on loopback, IPv4 and (where there is any) IPv6 at one port, that counts who comes."""

    def __init__(self) -> None:
        self.port = 0
        self.addresses = ["127.0.0.1"]
        self.visits = 0
        self._servers = AsyncExitStack()

    async def __aenter__(self) -> Sentinel:
        v4 = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = v4.sockets[0].getsockname()[1]
        await self._servers.enter_async_context(v4)
        with suppress(OSError):
            await self._servers.enter_async_context(await asyncio.start_server(self._answer, "::1", self.port))
            self.addresses.append("::1")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._servers.aclose()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret")
        await writer.drain()
        writer.close()


def answering(*answers: str) -> Callable[[str], Awaitable[Sequence[str]]]:
    async def resolve(host: str) -> Sequence[str]:
        return answers

    return resolve


def open_port(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Make the sentinel's port one of the web's, so that nothing but the rule on addresses protects it."""
    for module in (addresses, fetch):
        monkeypatch.setattr(module, "WEB_PORTS", frozenset({80, 443, port}))


def answers_to_refuse() -> Iterator[tuple[str, ...]]:
    """Each bad address as A and as AAAA, alone and mixed with a good one in both orders."""
    for address in V4:
        high, low = divmod(int(IPv4Address(address)), 1 << 16)
        for form in (address, f"::ffff:{address}", f"64:ff9b::{address}", f"2002:{high:x}:{low:x}::1"):
            yield from ((form,), (GOOD, form), (form, GOOD))
    for address in (*V6, *NONSENSE):
        yield from ((address,), ("2606:4700::1", address), (address, GOOD))


async def let_through(port: int) -> list[tuple[str, ...]]:
    """The answers in the corpus that are not refused."""
    passed = []
    for answers in answers_to_refuse():
        async with Fetcher((), resolver=answering(*answers)) as fetcher:
            try:
                await fetcher.get(f"http://evil.example:{port}/")
            except UrlRefused:
                continue
            except FetchError:
                pass
        passed.append(answers)
    return passed


def test_a_bad_address_is_refused_in_every_form_and_company(
    connects: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({*V4, *V6}) >= 45

    async def main() -> None:
        async with Sentinel() as sentinel:
            open_port(monkeypatch, sentinel.port)
            assert await let_through(sentinel.port) == []
            assert (connects, sentinel.visits) == ([], 0)
            # And the sentinel would have seen them: the same name and answers, opened.
            for address in sentinel.addresses:
                async with Fetcher({"evil.example"}, resolver=answering(address)) as fetcher:
                    assert (await fetcher.get(f"http://evil.example:{sentinel.port}/")).body == b"secret"
            assert connects == sentinel.addresses and sentinel.visits == len(connects)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("rule", "missed"),
    [
        (lambda address: not ip_address(address).is_private, MISSED_BY_IS_PRIVATE),
        (lambda address: ip_address(address).is_global, ("168.63.129.16", "224.0.0.1", "64:ff9b::127.0.0.1")),
        (lambda address: True, ("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254")),
    ],
    ids=["is_private", "is_global", "no rule"],
)
def test_the_corpus_tells_a_wrong_rule(
    connects: list[str],
    monkeypatch: pytest.MonkeyPatch,
    rule: Callable[[str], bool],
    missed: Sequence[str],
) -> None:
    def lenient(address: str) -> bool:
        try:
            return rule(address)
        except ValueError:
            return False

    async def main() -> None:
        monkeypatch.setattr(fetch, "is_public", lenient)
        async with Sentinel() as sentinel:
            open_port(monkeypatch, sentinel.port)
            passed = await let_through(sentinel.port)
        assert {(address,) for address in missed} <= set(passed)
        assert set(missed) <= set(connects)

    asyncio.run(main())


def test_public_addresses_are_public() -> None:
    assert [address for address in PUBLIC if not is_public(address)] == []


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_an_address_leads_to_this_machine(
    connects: list[str], monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """With the system's resolver, to which many of these mean 127.0.0.1."""

    async def main() -> None:
        async with Sentinel() as sentinel, Fetcher({"good.example"}) as fetcher:
            open_port(monkeypatch, sentinel.port)
            for url in (f"http://{spelling}:{sentinel.port}/", f"https://{spelling}/"):
                with pytest.raises(UrlRefused):
                    await fetcher.get(url)
            assert (connects, sentinel.visits) == ([], 0)

    asyncio.run(main())


@pytest.mark.parametrize("method", ["get", "post"])
def test_no_url_confuses_the_parser(connects: list[str], monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    async def main() -> None:
        async with Sentinel() as sentinel:
            open_port(monkeypatch, sentinel.port)
            here = f"127.0.0.1:{sentinel.port}"
            async with Fetcher({"good.example"}, resolver=answering("127.0.0.1")) as fetcher:
                for template in CONFUSING:
                    url = template.replace("GOOD", "good.example").replace("EVIL", here)
                    with pytest.raises(UrlRefused):
                        await (fetcher.get(url) if method == "get" else fetcher.post(url, b"", {}))
            assert (connects, sentinel.visits) == ([], 0)

    asyncio.run(main())


def test_what_can_be_read_in_two_ways_is_not_read() -> None:
    readable = []
    for template in CONFUSING:
        with suppress(ValueError):
            readable.append(parse_url(template.replace("GOOD", "good.example").replace("EVIL", "evil.example")))
    assert [url.raw_host for url in readable] == ["evil.example"]  # of http://EVIL?@GOOD/, to everybody


def test_a_port_is_open_only_where_it_was_opened(connects: list[str]) -> None:
    async def main() -> None:
        async with Sentinel() as sentinel:
            port = sentinel.port
            opened = {f"both.example:{port}", "web.example", f"127.0.0.1:{port}", f"[::1]:{port}"}
            async with Fetcher(opened, resolver=answering("127.0.0.1")) as fetcher:
                hosts = ["both.example", "BOTH.example", "127.0.0.1"]
                hosts += ["[::1]", "[0:0::1]"] if "::1" in sentinel.addresses else []
                for host in hosts:
                    assert (await fetcher.get(f"HTTP://{host}:{port}/")).body == b"secret"
                    assert await fetcher.post(f"http://{host}:{port}", b"x", {}) == Posted(200)
                assert sentinel.visits == len(connects) == 2 * len(hosts)
                for refused in (
                    f"http://web.example:{port}/",
                    f"http://sub.both.example:{port}/",
                    f"http://both.example.evil.example:{port}/",
                    f"http://127.0.0.2:{port}/",
                    "http://both.example/",
                    "https://127.0.0.1/",
                    f"http://public.example:{port}/",
                ):
                    with pytest.raises(UrlRefused):
                        await fetcher.get(refused)
                assert sentinel.visits == len(connects) == 2 * len(hosts)

    asyncio.run(main())


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "a,b",
        "http://a.example",
        "a.example/",
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "*",
        "*.example",
        "a.example.",
        "me@a.example",
        "é.example",
        "127.1",
        "10.0.0.0/8",
        "::1",
        "[::1",
    ],
)
def test_a_malformed_allowed_host_stops_the_start_and_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="allowed fetch host") as failure:
        Fetcher({entry})
    assert repr(entry) in str(failure.value)


def test_an_opened_host_is_matched_exactly() -> None:
    hosts = AllowedHosts(["CDN.example", "api.example:8443", "[::ffff:1.2.3.4]"])
    assert hosts.opens("cdn.example", 80) and hosts.opens("cdn.example", 443)
    assert hosts.opens("api.example", 8443) and hosts.opens("::ffff:102:304", 80)
    assert not any((hosts.opens("cdn.example", 8080), hosts.opens("api.example", 443)))
    assert not any((hosts.opens("xcdn.example", 80), hosts.opens("a.cdn.example", 80)))


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTPS://CDN.Example", "https://cdn.example/"),
        ("http://a.example:8080?x=%41&y=%2F", "http://a.example:8080/?x=%41&y=%2F"),
        ("https://b.example/a%2Fb/../c//d?sig=a+b/c==", "https://b.example/a%2Fb/../c//d?sig=a+b/c=="),
        ("http://xn--bj0bj06e.kr/%EC%86%8C%ED%8C%8C.jpg", "http://xn--bj0bj06e.kr/%EC%86%8C%ED%8C%8C.jpg"),
        ("http://1.2.3.4/", "http://1.2.3.4/"),
        ("http://[2606:4700::0001]:443/@:@", "http://[2606:4700::1]:443/@:@"),
    ],
)
def test_a_good_url_is_kept_byte_for_byte(url: str, canonical: str) -> None:
    """A signed URL must arrive as it was signed."""
    assert str(parse_url(url)) == canonical


def test_the_caller_learns_nothing_and_the_log_no_secret(connects: list[str]) -> None:
    """Blocked, closed, unknown and malformed read alike; the reason names the host and no more of the URL."""

    def unknown(host: str) -> Awaitable[Sequence[str]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            failures = []
            for authority, resolver in (
                (f"open.example:{port}", answering("127.0.0.1")),
                ("blocked.example", answering("10.0.0.1")),
                ("unknown.example", unknown),
                ("empty.example", answering()),
                ("open.example:1", answering("127.0.0.1")),
                ("user:hunter2@open.example", answering("127.0.0.1")),
                ("open.example\\", answering("127.0.0.1")),
            ):
                async with Fetcher({f"open.example:{port}"}, resolver=resolver) as fetcher:
                    with pytest.raises(FetchError) as raised:
                        await fetcher.get(f"http://{authority}/hunter2?token=hunter2")
                    failures.append(raised.value)
        assert len({str(failure) for failure in failures}) == 1
        assert [type(failure) for failure in failures].count(FetchFailed) == 3
        for failure in failures:
            assert "hunter2" not in failure.reason + repr(failure)
            assert failure.__cause__ is None and (failure.__context__ is None or failure.__suppress_context__)
        assert failures[0].reason == "open.example: ClientConnectorError ECONNREFUSED"
        assert failures[1].reason == "blocked.example: 10.0.0.1 is not a public address"

    asyncio.run(main())


def test_the_environment_names_no_proxy(connects: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Sentinel() as sentinel:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{sentinel.port}")
            async with Fetcher((), resolver=answering(GOOD)) as fetcher:
                with pytest.raises(FetchFailed):
                    await fetcher.get("http://good.example/")
            assert (connects, sentinel.visits) == ([GOOD], 0)

    asyncio.run(main())


def test_what_was_not_vetted_is_not_dialled(connects: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if aiohttp came to read a host in its own way."""

    async def astray(self: object, host: str, port: int, **_: object) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 0, "proto": 0, "flags": 0}]

    async def main() -> None:
        monkeypatch.setattr(aiohttp.TCPConnector, "_resolve_host", astray)
        async with Fetcher((), resolver=answering(GOOD)) as fetcher:
            with pytest.raises(UrlRefused):
                await fetcher.get("http://good.example/")
        assert connects == []

    asyncio.run(main())


HOSTS = st.one_of(
    st.sampled_from([*SPELLINGS, *V4, *(f"[{address}]" for address in V6), "evil.example"]),
    st.text(max_size=20),
    st.from_regex(r"[a-z0-9.:\[\]%_-]{1,20}", fullmatch=True),
)
URLS = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}{}{}{}{}".format,
        st.sampled_from(["http://", "https://", "HTTP://", "http:", "//", "file://", "http:\\\\", ""]),
        st.sampled_from(["", "", "", "a@", "a:b@", "good.example\\@", "good.example#@"]),
        HOSTS,
        st.just("") | st.integers(-1, 70000).map(":{}".format) | st.text(max_size=3).map(":{}".format),
        st.just("/") | st.text(max_size=30).map("/{}".format) | st.text(max_size=10),
    ),
)


@settings(max_examples=1500, deadline=None)
@given(url=URLS, answer=st.sampled_from([*V4, *V6, *NONSENSE, ""]))
def test_whatever_the_url_it_is_refused_and_nothing_else_is_raised(audited: Watch, url: str, answer: str) -> None:
    async def main() -> None:
        async with Fetcher((), resolver=answering(answer)) as fetcher:
            with pytest.raises(FetchError):
                await fetcher.get(url)

    audited.connects = []
    try:
        asyncio.run(main())
        # A host that is itself a public address is no mistake; the watch has stopped it on its way.
        assert [address for address in audited.connects if not is_public(address)] == []
    finally:
        audited.connects = None
