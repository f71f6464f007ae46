"""Fetching over TLS: whose certificate is believed, and for which name."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from maru.http.fetch import Fetcher, FetchFailed, UrlRefused

from .fetch_world import Names, Server, ok, on_each_loop, serving, to


class Authority:
    """A certificate authority, for the length of a test."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign("authority", self._key, self._key, authority=True)

    def _sign(self, name: str, key: Any, issuer: Any, authority: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(issuer, hashes.SHA256())
        )

    def client(self) -> ssl.SSLContext:
        pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)

    def server(self, name: str) -> ssl.SSLContext:
        """A server's context, with a certificate for `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self._sign(name, key, self._key).public_bytes(serialization.Encoding.PEM))
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.flush()
            context.load_cert_chain(file.name)
        return context


@on_each_loop
async def test_tls_is_for_the_name_and_from_an_authority_that_is_trusted() -> None:
    authority = Authority()
    tls = authority.server("a.example")
    asked: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked.append(name)
    server = Server({"/": ok(b"secret")})
    async with serving(server, 443, tls):
        async with Fetcher((), resolver=Names(), tls=authority.client()) as fetcher:
            assert (await fetcher.get("https://a.example/")).body == b"secret"
            assert asked == ["a.example"]
            assert b"\r\nHost: a.example\r\n" in server.requests[0]
            with pytest.raises(FetchFailed, match="URL could not be fetched") as failure:
                await fetcher.get("https://b.example/")
            assert failure.value.reason == "b.example: ClientConnectorCertificateError"
        async with Fetcher((), resolver=Names()) as fetcher:
            with pytest.raises(FetchFailed):
                await fetcher.get("https://a.example/")
    assert len(server.requests) == 1


@on_each_loop
async def test_a_redirect_may_go_to_https_and_not_back() -> None:
    authority = Authority()
    plain = Server({"/": to("https://a.example/"), "/plain": ok(b"plain")})
    secret = Server({"/": ok(b"secret"), "/down": to("http://a.example/plain")})
    async with (
        serving(plain),
        serving(secret, 443, authority.server("a.example")),
        Fetcher((), resolver=Names(), tls=authority.client()) as fetcher,
    ):
        assert (await fetcher.get("http://a.example/")).body == b"secret"
        with pytest.raises(UrlRefused):
            await fetcher.get("https://a.example/down")
    assert len(plain.requests) == 1
