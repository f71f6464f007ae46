"""One folder of safetensors in transformers' continuous batching, which answers as llama.cpp's server does, as far as
`exchange` asks. It imports nothing of Maru.

    python -I transformers_worker.py SOCKET OPTIONS

OPTIONS is JSON, see `transformers.Transformers.open`. The key that requests must bear is in LLAMA_API_KEY.
"""

import asyncio
import hmac
import json
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

MISSING, UNREADABLE, TOO_LARGE = 71, 72, 73
PAGE = 32
STALLED_S = 120.0
"""How long nothing may come of requests that are under way before the process ends itself."""


class Refused(Exception):
    """What is answered in place of an answer: a status, and llama.cpp's name of the reason."""

    def __init__(self, status: int, kind: str, message: str, **more: int) -> None:
        super().__init__(message)
        self.status = status
        self.fields = {"code": status, "type": kind, "message": message, **more}


def invalid(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message)


class Choice:
    """How one request's next token is chosen from a row of scores, and what is told of it."""

    def __init__(self, asked: dict[str, Any], defaults: dict[str, float], prompt: list[int]) -> None:
        def given(name: str, default: float) -> float:
            value = asked.get(name)
            return float(defaults.get(name, default) if value is None else value)

        self.temperature = given("temperature", 0.0)
        self.top_k, self.top_p, self.min_p = int(given("top_k", 0)), given("top_p", 1.0), given("min_p", 0.0)
        self.repeat = given("repeat_penalty", 1.0)
        self.presence, self.frequency = given("presence_penalty", 0.0), given("frequency_penalty", 0.0)
        self.bias = [(int(token), float(bias)) for token, bias in asked.get("logit_bias") or ()]
        self.seed = asked.get("seed")
        self.top = asked.get("top_logprobs", asked.get("logprobs") or 0) if asked.get("logprobs") else None
        self.prompt = prompt
        self.told: list[tuple[float, list[tuple[int, float]]]] = []
        penalized = self.repeat != 1.0 or self.presence or self.frequency or self.bias
        self.plain = not (self.temperature > 0 or penalized or self.top is not None)
        """Whether the likeliest token is to be taken, and nothing told of it."""

    def choose(self, scores: Any, generated: list[int]) -> int:
        import torch  # type: ignore[import-not-found]

        scores = self._penalized(torch, scores.float(), generated)
        token = int(self._drawn(torch, scores, len(generated)))
        if self.top is not None:
            logs = torch.log_softmax(scores, -1)
            best = torch.topk(logs, min(self.top, logs.shape[-1]))
            self.told.append((float(logs[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True))))
        return token

    def _penalized(self, torch: Any, scores: Any, generated: list[int]) -> Any:
        scores = scores.clone()
        for token, bias in self.bias:
            if 0 <= token < len(scores):
                scores[token] += bias
        if self.repeat != 1.0:
            seen = torch.tensor(sorted({*self.prompt, *generated}), device=scores.device)
            found = scores[seen]
            scores[seen] = torch.where(found > 0, found / self.repeat, found * self.repeat)
        if (self.presence or self.frequency) and generated:
            tokens, counts = torch.unique(torch.tensor(generated, device=scores.device), return_counts=True)
            scores[tokens] -= self.presence + self.frequency * counts
        return scores

    def _drawn(self, torch: Any, scores: Any, step: int) -> Any:
        if self.temperature <= 0:
            return scores.argmax()
        order = None
        if self.top_k > 0 or self.top_p < 1.0:
            scores, order = torch.topk(scores, min(self.top_k or len(scores), len(scores)))
        odds = torch.softmax(scores / self.temperature, -1)
        if self.top_p < 1.0:
            odds = odds.masked_fill(odds.cumsum(-1) - odds > self.top_p, 0.0)
        if self.min_p > 0:
            odds = odds.masked_fill(odds < self.min_p * odds.max(), 0.0)
        generator = None
        if self.seed is not None:
            generator = torch.Generator(scores.device)
            generator.manual_seed((int(self.seed) << 20) + step)
        drawn = torch.multinomial(odds, 1, generator=generator)
        return drawn if order is None else order[drawn]


def chooser(processors: Any) -> Any:
    """A logits processor that leaves of each row what that row's request chooses."""
    import torch
    from transformers.generation.continuous_batching import cb_logits_processors  # type: ignore[import-not-found]

    class Chooser(cb_logits_processors.ContinuousBatchingLogitsProcessor):  # type: ignore[misc]
        supported_kwargs = {"choice": Choice}  # noqa: RUF012
        ignored_kwargs = ()
        states: list[Any] = []  # noqa: RUF012

        def fill_defaults(self, row: Any) -> None:
            row.fill_(0)

        def prepare_tensor_args(self, requests: list[Any]) -> Any:
            self.states = [request.state for request in requests]
            return torch.zeros(len(requests), dtype=torch.int32)

        def __call__(self, scores: Any, _: Any) -> Any:
            for row, state in enumerate(self.states):
                choice = state.logit_processor_kwargs["choice"]
                if not choice.plain:
                    token = choice.choose(scores[row], state.generated_tokens)
                    scores[row] = float("-inf")
                    scores[row, token] = 0.0
            return scores

    processors.clear()
    processors.logits_processor.append(Chooser())
    processors.tensors_required, processors.do_processing = 1, True
    processors._retrieve_processors_kwargs()


class Text:
    """Tokens as text, whole characters at a time, up to a stop string."""

    def __init__(self, tokenizer: Any, stop: list[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer.backend_tokenizer
        self._decoding = DecodeStream(skip_special_tokens=True)
        self._stop = [each for each in stop if each]
        self._held = ""
        self.stopped = False

    def take(self, token: int) -> str:
        """What can be said now: not what may yet become a stop string."""
        self._held += self._decoding.step(self._tokenizer, token) or ""
        ends = [at for each in self._stop if (at := self._held.find(each)) >= 0]
        if ends:
            self.stopped = True
            said, self._held = self._held[: min(ends)], ""
            return said
        keep = max((self._overlap(each) for each in self._stop), default=0)
        said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return said

    def rest(self) -> str:
        said, self._held = self._held, ""
        return said

    def _overlap(self, stop: str) -> int:
        """How much of the end is the beginning of that stop string."""
        return next((n for n in range(min(len(stop), len(self._held)), 0, -1) if self._held.endswith(stop[:n])), 0)


def loaded(options: dict[str, Any]) -> tuple[Any, Any]:
    """The tokenizer and the model. Nothing is fetched, no pickle is read, no code of the folder is run."""
    import torch
    import transformers  # type: ignore[import-not-found]

    torch.set_num_threads(options["threads"])
    safe = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(options["path"], **safe)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options["path"], dtype="auto", attn_implementation="sdpa", use_safetensors=True, **safe
    )
    return tokenizer, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def managed(model: Any, ends: list[int], options: dict[str, Any]) -> Any:
    """Its continuous batching, with room for a whole context in every slot: where there is none it ends."""
    import transformers

    pages = -(-options["context"] // PAGE) + 1
    manager = model.init_continuous_batching(
        generation_config=transformers.GenerationConfig(do_sample=False, eos_token_id=ends or -1),
        continuous_batching_config=transformers.ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages * (options["slots"] + 1),
            max_batch_tokens=options["batch"],
            max_requests_per_batch=options["slots"],
            allow_block_sharing=False,  # how much was shared could not be told
            use_async_batching=False,
            use_cuda_graph=False,
        ),
    )
    chooser(manager.logit_processor)
    return manager


class Server:
    """One model, and the requests to it. Everything but the generation itself runs on the event loop."""

    def __init__(self, options: dict[str, Any]) -> None:
        from transformers.convert_slow_tokenizer import bytes_to_unicode  # type: ignore[import-not-found]

        self._key = os.environ.pop("LLAMA_API_KEY")
        self._context = options["context"]
        self._free = asyncio.Semaphore(options["slots"])
        self._active = self._count = 0
        self._alphabet = {letter: byte for byte, letter in bytes_to_unicode().items()}
        self.tokenizer, model = loaded(options)
        own, config = model.generation_config, model.config
        ends = own.eos_token_id if own.eos_token_id is not None else config.eos_token_id
        self._ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        self._vocabulary = config.get_text_config().vocab_size
        names = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} if own.do_sample else {}
        self._defaults = {name: getattr(own, name, None) or default for name, default in names.items()}
        self.manager = managed(model, self._ends, options)
        self.manager.start()

    async def watch(self) -> None:
        """End the process when the manager has ended or stalled: it goes on saying that it runs."""
        seen, since = -1, time.monotonic()
        while True:
            await asyncio.sleep(0.25)
            thread, steps = self.manager._generation_thread, getattr(self.manager, "current_batch", 0)
            if thread is None or not thread.is_alive() or self.manager.background_thread_status.fatal_error is not None:
                os._exit(1)
            if not self._active or steps != seen:
                seen, since = steps, time.monotonic()
            elif time.monotonic() - since > STALLED_S:
                os._exit(1)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        try:
            path, body = await self._request(reader)
            if path == "/health":
                return _whole(writer, 200, {"status": "ok"})
            await self._answer(self._prompt(path, body), body, reader, writer)
        except Refused as error:
            _whole(writer, error.status, {"error": error.fields})
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = first.split(" ")[1]
        if path == "/health":
            return path, {}
        if not hmac.compare_digest(headers.get("authorization", ""), f"Bearer {self._key}"):
            raise Refused(401, "authentication_error", "no key")
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        return path, body

    def _prompt(self, path: str, body: dict[str, Any]) -> list[int]:
        if any(body.get(name) for name in ("grammar", "json_schema", "response_format")):
            raise invalid("a grammar or a JSON schema can't be kept to by this model")
        if path == "/v1/chat/completions":
            tokens = self._templated(body)
        elif path == "/v1/completions":
            given = body["prompt"]
            tokens = self.tokenizer.encode(given) if isinstance(given, str) else given
        else:
            raise Refused(404, "not_found_error", "no such path")
        if not all(type(token) is int and 0 <= token < self._vocabulary for token in tokens):
            raise invalid("the prompt contains invalid tokens")
        if not tokens:
            raise invalid("the prompt is empty")
        if len(tokens) >= self._context:  # one that is too long ends the manager, and so everybody's answers
            sizes = {"n_prompt_tokens": len(tokens), "n_ctx": self._context}
            raise Refused(400, "exceed_context_size_error", "the prompt is too long", **sizes)
        return list(tokens)

    def _templated(self, body: dict[str, Any]) -> list[int]:
        try:
            text = self.tokenizer.apply_chat_template(
                body["messages"], tools=body.get("tools"), add_generation_prompt=True, tokenize=False
            )
        except Exception as error:
            raise Refused(500, "server_error", type(error).__name__) from None
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    async def _answer(
        self, prompt: list[int], body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The events, until the last or until the reader has left."""
        try:
            choice = Choice(body, self._defaults, prompt)
        except (TypeError, ValueError):
            raise invalid("a sampling parameter is of the wrong type") from None
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        answering = asyncio.current_task()
        leaving = asyncio.ensure_future(reader.read(1))
        leaving.add_done_callback(lambda left: answering.cancel() if answering and not left.cancelled() else None)
        try:
            async for event in self._events(prompt, choice, body):
                _chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")
                await writer.drain()
            _chunk(writer, b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
        except asyncio.CancelledError:
            pass
        finally:
            leaving.cancel()

    async def _events(self, prompt: list[int], choice: Choice, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        most = self._context - len(prompt)
        limit = most if body.get("max_tokens") is None else max(1, min(most, int(body["max_tokens"])))
        text = Text(self.tokenizer, body.get("stop") or [])
        began = time.perf_counter()
        yield {"choices": [], "prompt_progress": {"total": len(prompt), "cache": 0, "processed": 0}}
        first = count = 0.0
        last = -1
        async for token in self._tokens(prompt, choice, limit, bool(body.get("ignore_eos"))):
            if not count:
                first = time.perf_counter()
                progress = {"total": len(prompt), "cache": 0, "processed": len(prompt)}
                yield {"choices": [], "prompt_progress": progress}
            count, last = count + 1, token
            ended = token in self._ends and not body.get("ignore_eos")
            said = "" if ended else text.take(token)
            told = self._told(choice, int(count) - 1, token) if choice.top is not None and not ended else None
            if said or told:
                yield {"choices": [{"text": said, "logprobs": told, "finish_reason": None}]}
            if text.stopped:
                break
        if rest := text.rest():
            yield {"choices": [{"text": rest, "finish_reason": None}]}
        ended = text.stopped or (last in self._ends and not body.get("ignore_eos"))
        now = time.perf_counter()
        yield {
            "choices": [{"text": "", "finish_reason": "stop" if ended else "length"}],
            "usage": {"prompt_tokens": len(prompt), "completion_tokens": int(count)},
            "timings": {"prompt_ms": (first - began) * 1e3, "predicted_ms": (now - first) * 1e3},
        }

    async def _tokens(self, prompt: list[int], choice: Choice, limit: int, endless: bool) -> AsyncIterator[int]:
        """The tokens as they are generated. Leaving cancels the request."""
        async with self._free:
            self._active += 1
            self._count += 1
            name = f"request {self._count}"
            outputs: asyncio.Queue[Any] = asyncio.Queue()
            self.manager.register_result_handler(name, outputs.put_nowait)
            ends = -1 if endless else self._ends or -1
            done = False
            try:
                taken = self.manager.add_request(
                    prompt, request_id=name, max_new_tokens=limit, streaming=True, eos_token_id=ends, choice=choice
                )
                if taken is None:
                    os._exit(1)
                given = 0
                while not done:
                    output = await outputs.get()
                    done = output.is_finished()
                    if output.error is not None:
                        os._exit(1)
                    for token in output.generated_tokens[given:]:
                        given += 1
                        yield token
            finally:
                self._active -= 1
                if not done:
                    self.manager.cancel_request(name)
                    self.manager.output_router.result_handlers.pop(name, None)

    def _text_of(self, token: int) -> tuple[str, bytes]:
        """A token alone, and its bytes, which need not be whole characters."""
        text = self.tokenizer.decode([token])
        if "\ufffd" not in text:
            return text, text.encode()
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if len(piece) == 6 and piece.startswith("<0x"):
            return text, bytes([int(piece[3:5], 16)])
        return text, bytes(self._alphabet.get(letter, 0x3F) for letter in piece)

    def _told(self, choice: Choice, index: int, token: int) -> dict[str, Any]:
        logprob, best = choice.told[index]

        def shown(token: int, logprob: float) -> dict[str, Any]:
            text, content = self._text_of(token)
            return {"id": token, "token": text, "bytes": list(content), "logprob": logprob}

        return {"content": [{**shown(token, logprob), "top_logprobs": [shown(*each) for each in best]}]}


def _chunk(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(content), content))


def _whole(writer: asyncio.StreamWriter, status: int, fields: dict[str, Any]) -> None:
    content = json.dumps(fields).encode()
    writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content))


def leave(socket: str) -> None:
    """End when the pipe from the process that started this one does, leaving nothing behind."""
    sys.stdin.buffer.read()
    shutil.rmtree(Path(socket).parent, ignore_errors=True)
    os._exit(0)


async def serve(socket: str, options: dict[str, Any]) -> None:
    try:
        server = Server(options)
    except MemoryError:
        os._exit(TOO_LARGE)
    except Exception as error:
        os._exit(TOO_LARGE if type(error).__name__ == "OutOfMemoryError" else UNREADABLE)
    watching = asyncio.ensure_future(server.watch())
    async with await asyncio.start_unix_server(server.handle, socket, limit=1 << 20):
        await watching


def main(socket: str, options: dict[str, Any]) -> None:
    threading.Thread(target=leave, args=(socket,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what a crash would leave holds what people wrote
    try:
        import psutil  # type: ignore[import-untyped]  # noqa: F401  # transformers asks for it too late
        import tokenizers  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError:
        os._exit(MISSING)
    if not hasattr(transformers, "ContinuousBatchingConfig"):
        os._exit(MISSING)
    asyncio.run(serve(socket, options))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
