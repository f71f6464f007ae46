"""A model, and the requests that it generates for, in transformers' continuous batching."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

import torch  # type: ignore[import-not-found]
import transformers  # type: ignore[import-not-found]

from .choice import Choice, Chooser

PAGE = 32


class Generation:
    """Made by loading the folder: nothing is fetched, no pickle is read, no code of the folder is run. `tokens` is for
    the event loop; transformers' manager has a thread of its own."""

    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        safe = {"local_files_only": True, "trust_remote_code": False}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(options["path"], **safe)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            options["path"], dtype="auto", attn_implementation="sdpa", use_safetensors=True, **safe
        )
        own, config = model.generation_config, model.config
        ends = own.eos_token_id if own.eos_token_id is not None else config.eos_token_id
        self.ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        names = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} if own.do_sample else {}
        self.defaults = {name: getattr(own, name, None) or default for name, default in names.items()}
        self.vocabulary = config.get_text_config().vocab_size
        self.context = options["context"]
        self._free = asyncio.Semaphore(options["slots"])
        self._active = self._count = 0
        self.manager = self._managed(model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), options)
        self.manager.start()
        while not hasattr(self.manager, "current_batch"):  # until its thread has the memory it needs
            if (error := self.manager.background_thread_status.fatal_error) is not None:
                raise error
            time.sleep(0.01)

    def _managed(self, model: Any, options: dict[str, Any]) -> Any:
        """Its continuous batching, with room for a whole context in every slot: where there is none it ends."""
        pages = -(-self.context // PAGE) + 1
        manager = model.init_continuous_batching(
            generation_config=transformers.GenerationConfig(do_sample=False, eos_token_id=self.ends or -1),
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
        Chooser.install(manager.logit_processor)
        return manager

    def busy(self) -> bool:
        return self._active > 0

    async def tokens(self, prompt: list[int], choice: Choice, limit: int, ends: list[int]) -> AsyncGenerator[int, None]:
        """The tokens as they are generated, once a slot is free. Leaving cancels the request."""
        async with self._free:
            self._active += 1
            self._count += 1
            name = f"request {self._count}"
            outputs: asyncio.Queue[Any] = asyncio.Queue()
            self.manager.register_result_handler(name, outputs.put_nowait)
            given, done = 0, False
            try:
                taken = self.manager.add_request(
                    prompt,
                    request_id=name,
                    max_new_tokens=limit,
                    streaming=True,
                    eos_token_id=ends or -1,
                    choice=choice,
                )
                if taken is None:
                    os._exit(1)
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
