"""Which URLs may be fetched at all, and which addresses they may lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from yarl import URL

WEB_PORTS = frozenset({80, 443})
MAX_URL_LENGTH = 2048

_AUTHORITY = r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
_ALLOWED = re.compile(_AUTHORITY, re.IGNORECASE)
_URL = re.compile(rf"(?P<scheme>https?)://{_AUTHORITY}(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?", re.IGNORECASE)
_VISIBLE = re.compile(r"[!-\[\]-~]*")  # visible ASCII but the backslash
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Written out, because `ipaddress`'s is_private and is_global leave gaps (shared address space, multicast,
# IPv4 inside IPv6, cloud services) and change between patch releases of Python.
_NOT_PUBLIC_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a carrier's customers; Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's wire server
        "169.254.0.0/16",  # link-local; the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved; broadcast
    )
)
# Public IPv6 is inside global unicast: so loopback, link-local, site-local, unique local, multicast, and IPv4
# mapped, compatible or behind NAT64 are out without being named.
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


def is_public(address: str) -> bool:
    """Whether this is the address of a host on the public internet. What is not an address is not public."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_V4)
    if ip.scope_id is not None or ip not in _GLOBAL_UNICAST_V6:
        return False
    return not any(ip in network for network in _NOT_PUBLIC_V6)


def is_literal(host: str) -> bool:
    """Whether a host of a parsed URL is an address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def parse_url(text: str) -> URL:
    """The URL that `text` is, or ValueError saying why it is none we fetch; its message quotes nothing of it.

    The grammar is narrower than any browser's, so that there is nothing two parsers could read differently:
    visible ASCII, http or https, a name or a canonical address, a port if need be, path and query. A path
    outside ASCII must come percent-encoded and a name as its A-label. Path and query are kept byte for byte.
    """
    if len(text) > MAX_URL_LENGTH:
        raise ValueError(f"longer than {MAX_URL_LENGTH} characters")
    if not _VISIBLE.fullmatch(text):
        raise ValueError("a space, a control character, a backslash or a character outside ASCII")
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("not http(s)://host[:port][/path][?query]")
    host, port = _host_and_port(match)
    return URL.build(
        scheme=match["scheme"].lower(),
        host=f"[{host}]" if ":" in host else host,
        port=port,
        path=match["path"] or "/",
        query_string=match["query"] or "",
        encoded=True,
    )


def _host_and_port(match: re.Match[str]) -> tuple[str, int | None]:
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > 65535:
        raise ValueError("no such port")
    return _canonical(match["host"].lower()), port


def _canonical(host: str) -> str:
    if host.startswith("["):
        return _literal(IPv6Address, host[1:-1])
    labels = host.split(".")
    # As in browsers, a host that ends in a number is an address: getaddrinfo would read `127.1`, `0x7f.1` and
    # `2130706433` as 127.0.0.1, so any but the canonical spelling is refused.
    if _NUMBER.fullmatch(labels[-1]):
        return _literal(IPv4Address, host)
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("not a host name")
    return host


def _literal(kind: type[IPv4Address] | type[IPv6Address], host: str) -> str:
    try:
        return str(kind(host))
    except ValueError:
        raise ValueError("not the canonical spelling of an address") from None


class AllowedHosts:
    """Hosts that the operator has opened by exact name, wherever they are: `host` opens its ports 80 and 443,
    `host:port` that port alone. A malformed entry raises ValueError, which names it."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._opened = frozenset(self._parse(entry) for entry in entries)

    @staticmethod
    def _parse(entry: str) -> tuple[str, int | None]:
        match = _ALLOWED.fullmatch(entry)
        try:
            if match is None:
                raise ValueError("not host or host:port")
            return _host_and_port(match)
        except ValueError as error:
            raise ValueError(f"allowed fetch host {entry!r}: {error}") from None

    def opens(self, host: str, port: int) -> bool:
        """Whether that port of that host was opened."""
        return (host, port) in self._opened or (port in WEB_PORTS and (host, None) in self._opened)
