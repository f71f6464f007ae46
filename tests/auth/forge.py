"""Making tokens by hand: good ones, and every bad one we could think of."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

NOW = 1_790_000_000
SECRET = "0c9df1b6a5e7428e8f3d2a7b6c5d4e3f-supabase-jwt"
PROJECT = "https://abcdefgh.supabase.test"
ISSUER = f"{PROJECT}/auth/v1"
USER = "123e4567-e89b-12d3-a456-426614174000"

EC = ec.generate_private_key(ec.SECP256R1())
EC_STRANGER = ec.generate_private_key(ec.SECP256R1())
EC_384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
RSA_STRANGER = rsa.generate_private_key(65537, 2048)
RSA_WEAK = rsa.generate_private_key(65537, 1024)
ED = ed25519.Ed25519PrivateKey.generate()
ED_STRANGER = ed25519.Ed25519PrivateKey.generate()
OCT = b"a symmetric key that stands in the key set"

Json = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: Any, kid: str, **more: Any) -> Json:
    """The public key as it stands in a key set."""
    kinds: Json = {"ES256": ec.EllipticCurvePrivateKey, "RS256": rsa.RSAPrivateKey, "EdDSA": type(ED)}
    algorithm = next(name for name, kind in kinds.items() if isinstance(key, kind))
    public = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {**public, "kid": kid, "use": "sig", **more}


def pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def der(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


KEY_SET = {
    "keys": [
        jwk(EC, "ec-1", alg="ES256"),
        jwk(RSA, "rsa-1", alg="RS256"),
        jwk(ED, "ed-1", alg="EdDSA"),
        jwk(RSA_WEAK, "rsa-weak", alg="RS256"),
        jwk(EC_384, "ec-384"),
        jwk(EC, "ec-enc", use="enc"),
        {"kty": "oct", "kid": "oct-1", "alg": "HS256", "k": b64(OCT)},
    ]
}


def claims(**changes: Any) -> Json:
    """What Supabase Auth puts into an access token; a change to `...` leaves the claim out."""
    sound = {
        "iss": ISSUER,
        "aud": "authenticated",
        "exp": NOW + 3600,
        "iat": NOW,
        "sub": USER,
        "email": "user@example.com",
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email_verified": True},
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": NOW}],
        "session_id": "8c4e7a52-16a2-4a36-9b5e-1f5fcf4a2b0e",
        "is_anonymous": False,
    }
    return {name: value for name, value in {**sound, **changes}.items() if value is not ...}


def header(alg: Any = "HS256", **changes: Any) -> Json:
    sound = {"alg": alg, "typ": "JWT"}
    return {name: value for name, value in {**sound, **changes}.items() if value is not ...}


def sign(head: Json | bytes, body: Json | bytes | list[Any], key: Any = None, by: str = "HS256") -> str:
    """A token of that header and those claims, whatever they say, signed with `key` by the algorithm `by`."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, body)]
    signed = ".".join(map(b64, parts))
    key = SECRET.encode() if key is None else key
    return f"{signed}.{b64(get_default_algorithms()[by].sign(signed.encode(), key))}"


def with_signature(token: str, signature: bytes) -> str:
    return token.rsplit(".", 1)[0] + "." + b64(signature)


def loose_end(token: str) -> str:
    """The same signature in base64 that is not canonical: a lenient reader sees no difference."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def raw(text: str) -> bytes:
    """Claims as JSON text in which `@` stands for the sound ones."""
    return text.replace("@", json.dumps(claims())[1:-1]).encode()


def _forged() -> dict[str, str]:
    good, hs = claims(), header()
    es, rs, ed = header("ES256", kid="ec-1"), header("RS256", kid="rsa-1"), header("EdDSA", kid="ed-1")
    own = jwk(EC_STRANGER, "ec-1")
    signed = sign(hs, good)
    mac = base64.urlsafe_b64decode(signed[-43:] + "=")
    signature: dict[str, str] = {
        "no signature, alg none": with_signature(sign(header("none"), good), b""),
        "no signature": with_signature(signed, b""),
        "alg None with a signature": sign(header("None"), good),
        "alg nOnE": sign(header("nOnE"), good),
        "alg missing": sign(header(...), good),
        "alg null": sign(header(None), good),
        "alg a list": sign(header(["HS256"]), good),
        "alg a number": sign(header(256), good),
        "alg in lower case": sign(header("hs256"), good),
        "alg empty": sign(header(""), good),
        "alg unheard of": sign(header("XX999"), good),
        "another secret": sign(hs, good, b"x" * 40),
        "the empty secret": sign(hs, good, b""),
        "the secret's prefix": sign(hs, good, SECRET.encode()[:32]),
        "signature cut": signed[:-4],
        "signature of another token": with_signature(signed, b"\x00" * 32),
        "another first byte of the signature": with_signature(signed, bytes([(mac[0] + 1) % 256]) + mac[1:]),
        "one letter of the claims": signed.replace(".eyJpc3MiOi", ".eyJpc3NiOi"),
        "loose base64 at the end": loose_end(signed),
        "HS384 with our secret": sign(header("HS384"), good, by="HS384"),
        "HS512 with our secret": sign(header("HS512"), good, by="HS512"),
        "HS256 said, HS512 done": sign(hs, good, by="HS512"),
    }
    confusion = {
        "HS256 with the EC key's PEM": sign(header(kid="ec-1"), good, pem(EC)),
        "HS256 with the EC key's DER": sign(header(kid="ec-1"), good, der(EC)),
        "HS256 with the EC key's JWK": sign(header(kid="ec-1"), good, json.dumps(jwk(EC, "ec-1")).encode()),
        "HS256 with the RSA key's PEM": sign(header(kid="rsa-1"), good, pem(RSA)),
        "HS256 with the oct key of the set": sign(header(kid="oct-1"), good, OCT),
        "ES256 by a stranger": sign(es, good, EC_STRANGER, "ES256"),
        "RS256 by a stranger": sign(rs, good, RSA_STRANGER, "RS256"),
        "EdDSA by a stranger": sign(ed, good, ED_STRANGER, "EdDSA"),
        "RS256 with the EC key's id": sign(header("RS256", kid="ec-1"), good, RSA, "RS256"),
        "ES256 with the RSA key's id": sign(header("ES256", kid="rsa-1"), good, EC, "ES256"),
        "PS256 with the RSA key": sign(header("PS256", kid="rsa-1"), good, RSA, "PS256"),
        "RS512 with the RSA key": sign(header("RS512", kid="rsa-1"), good, RSA, "RS512"),
        "RS256 said, RS512 done": sign(rs, good, RSA, "RS512"),
        "a weak RSA key": sign(header("RS256", kid="rsa-weak"), good, RSA_WEAK, "RS256"),
        "a curve that is not ours": sign(header("ES384", kid="ec-384"), good, EC_384, "ES384"),
        "a key for encryption": sign(header("ES256", kid="ec-enc"), good, EC, "ES256"),
        "ES256 with our secret": sign(es, good),
        "ES256 with a signature of zeros": with_signature(sign(es, good), bytes(64)),
        "ES256 with a DER signature": with_signature(sign(es, good), EC.sign(b"x", ec.ECDSA(SHA256()))),
        "ES256 without a key id": sign(header("ES256"), good, EC, "ES256"),
        "ES256 with an unknown key id": sign(header("ES256", kid="ec-2"), good, EC, "ES256"),
    }
    headers = {
        "kid a path": sign(header(kid="../../../dev/null"), good),
        "kid SQL": sign(header(kid="' OR 1=1 --"), good),
        "kid too long": sign(header(kid="k" * 65), good),
        "kid empty": sign(header(kid=""), good),
        "kid null": sign(header(kid=None), good),
        "kid a number": sign(header(kid=1), good),
        "kid a list": sign(header(kid=["ec-1"]), good),
        "kid with a line's end": sign(header(kid="ec-1\n"), good),
        "jku": sign(header(jku="https://evil.test/jwks.json"), good),
        "x5u": sign(header(x5u="https://evil.test/x.pem"), good),
        "jwk, signed with it": sign({**es, "jwk": own}, good, EC_STRANGER, "ES256"),
        "x5c": sign(header(x5c=["MIIB"]), good),
        "crit": sign(header(crit=["exp"], exp=1), good),
        "crit empty": sign(header(crit=[]), good),
        "crit b64": sign(header(crit=["b64"], b64=False), good),
        "b64 false": sign(header(b64=False), good),
        "zip": sign(header(zip="DEF"), good),
        "cty": sign(header(cty="JWT"), good),
        "typ missing": sign(header(typ=...), good),
        "typ of a refresh token": sign(header(typ="rt+jwt"), good),
        "typ of a proof": sign(header(typ="dpop+jwt"), good),
        "typ empty": sign(header(typ=""), good),
        "typ a list": sign(header(typ=["JWT"]), good),
        "alg given twice": sign(b'{"alg":"none","typ":"JWT","alg":"HS256"}', good),
        "header a list": sign(b'["HS256"]', good),
        "header not JSON": sign(b"HS256", good),
    }
    bad_claims: dict[str, Json] = {
        "exp missing": {"exp": ...},
        "exp past": {"exp": NOW - 11, "iat": NOW - 100},
        "exp long past": {"exp": 1, "iat": 0},
        "exp a string": {"exp": str(NOW + 3600)},
        "exp true": {"exp": True},
        "exp null": {"exp": None},
        "exp a list": {"exp": [NOW + 3600]},
        "exp of a thousand digits": {"exp": 10**1000},
        "exp negative": {"exp": -NOW},
        "a life of years": {"exp": NOW + 10**8},
        "a life of years without iat": {"exp": NOW + 10**8, "iat": ...},
        "nbf to come": {"nbf": NOW + 60},
        "nbf a string": {"nbf": str(NOW)},
        "nbf true": {"nbf": True},
        "nbf null": {"nbf": None},
        "iat to come": {"iat": NOW + 60},
        "iat a string": {"iat": str(NOW)},
        "iat false": {"iat": False},
        "aud missing": {"aud": ...},
        "aud another": {"aud": "other"},
        "aud in capitals": {"aud": "AUTHENTICATED"},
        "aud a part": {"aud": "authenticated-not"},
        "aud null": {"aud": None},
        "aud true": {"aud": True},
        "aud an object": {"aud": {"authenticated": True}},
        "aud a list without us": {"aud": ["other"]},
        "aud an empty list": {"aud": []},
        "aud a list of more than names": {"aud": ["authenticated", 1]},
        "role missing": {"role": ...},
        "role anon": {"role": "anon"},
        "role service_role": {"role": "service_role"},
        "role a list": {"role": ["authenticated"]},
        "iss missing": {"iss": ...},
        "iss another": {"iss": "https://evil.test/auth/v1"},
        "iss longer": {"iss": ISSUER + ".evil.test"},
        "iss with a slash": {"iss": ISSUER + "/"},
        "iss shorter": {"iss": PROJECT},
        "iss a list": {"iss": [ISSUER]},
        "iss in capitals": {"iss": ISSUER.upper()},
        "sub missing": {"sub": ...},
        "sub empty": {"sub": ""},
        "sub null": {"sub": None},
        "sub a number": {"sub": 1},
        "sub with a line's end": {"sub": USER + "\n"},
        "sub with a space": {"sub": "a b"},
        "sub too long": {"sub": "s" * 256},
        "sub not ASCII": {"sub": "사용자"},
        "sub a lone surrogate": {"sub": "\ud800"},
        "an anonymous user": {"is_anonymous": True},
        "is_anonymous a string": {"is_anonymous": "false"},
        "is_anonymous null": {"is_anonymous": None},
        "is_anonymous 0": {"is_anonymous": 0},
        "the anon key": {"iss": "supabase", "aud": ..., "sub": ..., "role": "anon"},
        "the service key": {"iss": "supabase", "aud": ..., "sub": ..., "role": "service_role"},
    }
    shapes = {
        "claims a list": sign(hs, [good]),
        "claims a string": sign(hs, b'"claims"'),
        "claims empty": sign(hs, {}),
        "sub given twice": sign(hs, raw('{"sub":"other",@}')),
        "aud given twice": sign(hs, raw('{@,"aud":"authenticated"}')),
        "twins further in": sign(hs, raw('{@,"x":[{"a":1,"a":1}]}')),
        "NaN where nobody looks": sign(hs, raw('{@,"x":NaN}')),
        "Infinity where nobody looks": sign(hs, raw('{@,"x":[-Infinity]}')),
        "exp NaN": sign(hs, raw("{@}").replace(str(NOW + 3600).encode(), b"NaN")),
        "exp Infinity": sign(hs, raw("{@}").replace(str(NOW + 3600).encode(), b"Infinity")),
        "exp 1e999": sign(hs, raw("{@}").replace(str(NOW + 3600).encode(), b"1e999")),
        "UTF-16": sign(hs, json.dumps(good).encode("utf-16")),
        "a byte order mark": sign(hs, b"\xef\xbb\xbf" + json.dumps(good).encode()),
        "not UTF-8": sign(hs, json.dumps(good).encode()[:-1] + b',"x":"\xff"}'),
        "nested to the bottom": sign(hs, raw('{@,"x":' + "[" * 2500 + "]" * 2500 + "}")),
        "something after the claims": sign(hs, json.dumps(good).encode() + b"{}"),
        "two parts": signed.rsplit(".", 1)[0],
        "four parts": signed + ".AAAA",
        "five parts": "A.B.C.D.E",
        "padded": signed + "=",
        "padded further in": signed.replace(".", "=.", 1),
        "the other base64": signed[:-2] + "+/",
        "dots": "..",
        "one word": "token",
        "JSON": '{"payload":"e30","signatures":[]}',
        "too long": sign(hs, {**good, "x": "x" * 8192}),
    }
    claimed = {name: sign(hs, claims(**changes)) for name, changes in bad_claims.items()}
    return {**signature, **confusion, **headers, **claimed, **shapes}


FORGED = _forged()

GOOD = {
    "as Supabase makes them": sign(header(), claims()),
    "HS256 with a key id": sign(header(kid="8c4e7a52-16a2-4a36-9b5e-1f5fcf4a2b0e"), claims()),
    "ES256": sign(header("ES256", kid="ec-1"), claims(), EC, "ES256"),
    "RS256": sign(header("RS256", kid="rsa-1"), claims(), RSA, "RS256"),
    "EdDSA": sign(header("EdDSA", kid="ed-1"), claims(), ED, "EdDSA"),
    "typ at+jwt": sign(header(typ="at+jwt"), claims()),
    "aud a list": sign(header(), claims(aud=["authenticated"])),
    "aud a list of several": sign(header(), claims(aud=["other", "authenticated"])),
    "without iat": sign(header(), claims(iat=...)),
    "without is_anonymous": sign(header(), claims(is_anonymous=...)),
    "exp with a fraction": sign(header(), claims(exp=NOW + 3600.5)),
    "nbf now": sign(header(), claims(nbf=NOW)),
    "iat and exp within the leeway": sign(header(), claims(iat=NOW + 9, exp=NOW + 60)),
    "just expired, within the leeway": sign(header(), claims(exp=NOW - 9)),
    "a life of a week": sign(header(), claims(exp=NOW + 604_800)),
    "jti and custom claims": sign(header(), claims(jti="x", plan={"name": "pro"})),
}
