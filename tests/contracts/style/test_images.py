"""Images, however they come, and whatever they are."""

from __future__ import annotations

import base64
import io
import os
import random
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.contracts.style.conftest import Host, eventually, picture

COLORS = ["#2C3E50", "#ECF0F1", "#E74C3C"]


def as_base64(data: bytes, **more: Any) -> dict[str, Any]:
    return {"image_base64": base64.b64encode(data).decode(), **more}


def near(color: str, other: str) -> bool:
    pairs = zip(bytes.fromhex(color[1:]), bytes.fromhex(other[1:]), strict=True)
    return max(abs(one - two) for one, two in pairs) < 6


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_the_three_ways_in_find_the_same(toy, cdn, kind, options) -> None:
    data = picture(kind=kind, **options)
    cdn.files["/a"] = data
    with toy.open() as client:
        answers = [
            client.post("/infer/image", json={"image_url": cdn.url("/a")}),
            client.post("/infer/image", json=as_base64(data)),
            client.post("/infer/image", files={"file": ("room", data)}),
        ]
    assert [answer.status_code for answer in answers] == [200] * 3, answers[2].text
    assert [answer.headers["x-cache"] for answer in answers[1:]] == ["hit", "hit"]
    found = [{name: value for name, value in answer.json().items() if name != "processing_time"} for answer in answers]
    assert found[0] == found[1] == found[2]
    assert all(near(one, two) for one, two in zip(found[0]["colors"], COLORS, strict=True)), found[0]["colors"]
    assert re.search(r"fetch;dur=[\d.]+, decode;dur=[\d.]+, colors;dur=[\d.]+", answers[0].headers["server-timing"])


def test_options(toy) -> None:
    data = picture(kind="PNG")
    with toy.open() as client:
        bare = client.post("/infer/image", json=as_base64(data, options={"extract_features": False}))
        vector = client.post("/infer/image", json=as_base64(data, options={"return_embeddings": True}))
        form = client.post(
            "/infer/image",
            files={"file": data},
            data={"task": "style_analysis", "options": '{"extract_features": false, "return_embeddings": true}'},
        )
    assert "features" not in bare.json() and "embedding" not in bare.json()
    assert vector.json()["embedding"] == [0.5] * 4 and "features" in vector.json()
    assert form.json()["embedding"] == [0.5] * 4 and "features" not in form.json()


BAD = {
    "no image": {},
    "two images": {"image_url": "http://a.example/", "image_base64": "aaaa"},
    "null": {"image_url": None},
    "a number": {"image_url": 5},
    "an empty URL": {"image_url": ""},
    "a URL too long": {"image_url": "http://a.example/" + "a" * 2048},
    "no base64": {"image_base64": "***"},
    "an unknown task": {"image_url": "http://a.example/", "task": "segmentation"},
    "an unknown option": {"image_url": "http://a.example/", "options": {"depth": True}},
    "an option of another type": {"image_url": "http://a.example/", "options": {"extract_features": 1}},
    "a list": [],
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_400(toy, case) -> None:
    with toy.open() as client:
        answer = client.post("/infer/image", json=BAD[case])
    assert answer.status_code == 400 and answer.json()["error"] == "BAD_REQUEST"
    if case == "an unknown task":
        assert "style_analysis" in answer.json()["message"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\ncut off"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n1\r\n" * 2 + b"--x--\r\n",
        ),
        ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\n1\r\n--x--\r\n"),
        ("multipart/form-data; boundary=" + "x" * 2000, b"--x--"),
        ("multipart/form-data; boundary=\xff", b"--\xff--"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 100 + b"\r\n1\r\n--x--\r\n"),
    ],
)
def test_a_bad_form_is_400(toy, content_type, body) -> None:
    with toy.open() as client:
        headers = {"Content-Type": content_type.encode("latin-1")}
        answer = client.post("/infer/image", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"] == "BAD_REQUEST", answer.text


def test_what_a_form_says_beside_the_image_is_checked_too(toy) -> None:
    with toy.open() as client:
        for data, status in (
            ({"task": "other"}, 400),
            ({"options": "{"}, 400),
            ({"options": '{"depth": true}'}, 400),
            ({"image_url": "http://a.example/"}, 400),
            ({"colour": "red"}, 400),
            ({"task": "x" * 5000}, 413),
        ):
            assert client.post("/infer/image", files={"file": picture()}, data=data).status_code == status, data


def test_a_file_too_large(toy, cdn) -> None:
    cdn.files["/large"] = picture() + b"\0" * (10 * 2**20)
    with toy.open() as client:
        upload = client.post("/infer/image", files={"file": cdn.files["/large"]})
        encoded = client.post("/infer/image", json=as_base64(cdn.files["/large"]))
        fetched = client.post("/infer/image", json={"image_url": cdn.url("/large")})
    assert [answer.status_code for answer in (upload, encoded, fetched)] == [413, 413, 502]
    assert upload.json()["error"] == encoded.json()["error"] == "PAYLOAD_TOO_LARGE"


def test_whatever_keeps_an_image_from_being_fetched_looks_alike(toy, cdn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    urls = [
        cdn.url("/missing.jpg"),
        f"http://127.0.0.1:{port}/",
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://nobody.invalid/",
        "ftp://a.example/a.jpg",
        "a.jpg",
    ]
    with toy.open() as client:
        answers = [client.post("/infer/image", json={"image_url": url}) for url in urls]
    told = [answer.json() for answer in answers]
    for one in told:
        one["details"].pop("request_id")
    assert {answer.status_code for answer in answers} == {502} and told[0]["error"] == "IMAGE_FETCH_FAILED"
    assert all(one == told[0] for one in told)


def test_a_redirect_leads_nowhere_that_is_not_open(toy, cdn) -> None:
    other = Host()
    other.files["/a.jpg"] = picture()
    cdn.moved["/moved.jpg"] = other.url("/a.jpg")
    cdn.moved["/within.jpg"] = cdn.url("/room_images/room_123.jpg")
    with toy.open() as client:
        away = client.post("/infer/image", json={"image_url": cdn.url("/moved.jpg")})
        within = client.post("/infer/image", json={"image_url": cdn.url("/within.jpg")})
    other.close()
    assert away.status_code == 502 and not other.asked and within.status_code == 200


def test_what_is_no_image_is_422(toy) -> None:
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "GIF")
    whole = picture()
    with toy.open() as client:
        for data in (b"", b"hello", b"<svg/>", gif.getvalue(), whole[: len(whole) // 2], b"\xff\xd8\xff"):
            answer = client.post("/infer/image", files={"file": data})
            assert answer.status_code == 422 and answer.json()["error"] == "IMAGE_UNREADABLE", data[:8]
            assert answer.json()["details"]["reason"]


def hostile() -> list[bytes]:
    """200 files: cut short, or with bytes that are not what was written."""
    rng = random.Random("hostile")
    whole = [picture(kind="JPEG"), picture(kind="PNG"), picture(kind="WEBP"), picture(kind="JPEG", progressive=True)]
    files = [data[: rng.randrange(1, len(data))] for data in whole for _ in range(20)]
    for data in whole * 30:
        spoilt = bytearray(data)
        for _ in range(rng.choice([1, 4, 64])):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        files.append(bytes(spoilt))
    return files


def test_hostile_images(toy) -> None:
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    files = [*hostile(), bomb.getvalue()]
    with toy.open() as client:
        client.post("/infer/image", files={"file": picture()})
        before = resident(toy.process.pid)
        answers, cost = [], []
        for data in files:
            began = cpu_s(toy.process.pid)
            answers.append(client.post("/infer/image", files={"file": data}))
            cost.append(cpu_s(toy.process.pid) - began)
        after = resident(toy.process.pid)
    assert len(files) == 201 and {answer.status_code for answer in answers} <= {200, 422}
    assert max(cost) < 2
    assert answers[-1].status_code == 422 and after - before < 128 * 2**20
    assert toy.process.poll() is None


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def cpu_s(pid: int) -> float:
    """What a process has had of the processors, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_image_is_written_anywhere(toy, cdn) -> None:
    before = {path for path in toy.home.rglob("*") if path.is_file()}
    opened = Path(f"/proc/{toy.process.pid}/fd")
    with toy.open() as client:
        client.post("/infer/image", files={"file": picture(4000, 3000, "PNG")})
        client.post("/infer/image", json={"image_url": cdn.url("/room_images/room_123.jpg")})
    assert {path for path in toy.home.rglob("*") if path.is_file()} == before
    eventually(lambda: not any("deleted" in str(link) for link in links(opened)))


def links(folder: Path) -> list[str]:
    found = []
    for entry in folder.iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return found
