"""A GGUF file in llama.cpp, in this process: what verification asks, and what a chat needs.

The wheel ``xllamacpp`` is llama.cpp's own server as a library. Answers come through its calls; ids of a text and the
rendered template only through its web interface, which listens on this machine's loopback address and on no other.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import sys
import tempfile
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from forge.api import Answer, BackendImportError, ExportError, cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Generator as Stream
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray


Message = dict[str, str]


class Generator:
    """A model in llama.cpp.

    Args:
        path: The GGUF file.
        context: The longest conversation in tokens; 0 for what the model was made for, which can take gigabytes.
        exact: Compute as the trained model does, as far as llama.cpp can: keep keys and values in 32 bit and do without
            flash attention. Off for chats, where it would only cost memory and time.
        lora: A GGUF file with an adapter to lay over the model.

    Raises:
        BackendImportError: xllamacpp is not installed or does not load.
        ExportError: llama.cpp cannot load the file.

    Use it in a ``with`` statement: it holds a thread and the model's memory.
    """

    def __init__(self, path: Path, *, context: int = 8192, exact: bool = False, lora: Path | None = None) -> None:
        self.path = path
        self._server = self._start(path, context, exact, lora)
        # Proxies of the environment do not apply to it.
        self._web = http.client.HTTPConnection(urlsplit(self._server.listening_address).netloc, timeout=60)

    @staticmethod
    def _start(path: Path, context: int, exact: bool, lora: Path | None) -> Any:
        try:
            import xllamacpp
        except ImportError as error:
            do = 'pip install "forge-train[gguf]"'
            raise BackendImportError("llama.cpp cannot be used", f"xllamacpp: {error}", do) from error
        if not path.is_file():
            raise ExportError(f"llama.cpp cannot load {path.name}", f"there is no file {path}")
        wish = xllamacpp.CommonParams()
        wish.model.path = str(path)
        wish.n_ctx, wish.n_parallel, wish.offline = context, 1, True
        wish.warmup = wish.ui = wish.fit_params = False
        wish.verbosity = -1
        wish.endpoint_metrics = True  # for close()
        # Its threads spin at each step: as many as there are processors wait for each other as soon as anything else
        # runs. On two shared cores, two threads were fourteen times slower than one.
        for pool in (wish.cpuparams, wish.cpuparams_batch):
            pool.n_threads, pool.poll = max(1, cores() // 2), 0
        if exact:
            wish.n_gpu_layers, wish.cache_ram_mib, wish.swa_full = 0, 0, True
            wish.cache_type_k = wish.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            wish.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if lora is not None:
            wish.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        try:
            with _said() as said:
                return xllamacpp.Server(wish)
        except RuntimeError as error:
            why = next((line for line in reversed(said) if "error" in line.lower()), str(error))
            raise ExportError(f"llama.cpp cannot load {path.name}", why.strip()) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the model's memory back."""
        self._web.close()
        # Its thread must turn before it is told to end: one that begins later never hears it, and is waited for
        # forever. Only what goes through its queue, as this does, is answered by that thread.
        if self._server is not None:
            self._server.handle_metrics()
        self._server = None

    def tokens(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a text; with ``special``, with the tokens that begin and end a text."""
        wish = {"content": text, "add_special": special, "parse_special": True}
        return list(self._ask("/tokenize", wish)["tokens"])

    def begun(self, text: str) -> list[int]:
        """Return the ids of a text with the token that begins a text, where the file says so, and none that ends it."""
        ids, whole = (self.tokens(text, special=special) for special in (False, True))
        starts = range(len(whole) - len(ids) + 1)
        return next((whole[: at + len(ids)] for at in starts if whole[at : at + len(ids)] == ids), ids)

    def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """Return a conversation as llama.cpp renders it with the file's own template, ready for an answer.

        Args:
            messages: ``role`` and ``content`` of each turn.
            variables: Further variables of the template.

        Raises:
            ExportError: The template refuses it.
        """
        wish = {"messages": list(messages), "chat_template_kwargs": dict(variables)}
        return str(self._ask("/apply-template", wish)["prompt"])

    def logits(self, ids: Sequence[int], top: int = 1024) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the most probable next tokens after each prefix of ``ids``.

        Returns:
            Ids and natural logarithms of probabilities, both of shape (len(ids), top), the most probable first.
            llama.cpp's server gives probabilities, not logits; they differ by a constant for each position.
        """
        import numpy as np

        found, chances = [], []
        # The probabilities are those before sampling. The token that is drawn is forced to be a plain letter: behind
        # one that is a part of a character, the server waits for the rest and tells nothing.
        wish = {"n_predict": 1, "n_probs": top, "temperature": 0, "cache_prompt": True, "logit_bias": self._letter()}
        for end in range(1, len(ids) + 1):
            answer = self._complete({"prompt": list(ids[:end]), **wish})
            ranked = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found.append([each["id"] for each in ranked])
            chances.append([each["logprob"] for each in ranked])
        return np.array(found), np.array(chances, np.float32)

    def _letter(self) -> list[list[float]]:
        return [[self.tokens("a", special=False)[-1], 1e6]]

    def continue_from(self, ids: Sequence[int], count: int) -> tuple[list[int], bool]:
        """Return what follows ``ids``, greedily, and whether it ended by itself within ``count`` tokens."""
        answer = self._complete(
            {"prompt": list(ids), "n_predict": count, "temperature": 0, "n_probs": 1, "cache_prompt": True}
        )
        choice = answer["choices"][0]
        return [each["id"] for each in choice["logprobs"]["content"]], choice["finish_reason"] == "stop"

    def answer(self, ids: Sequence[int], **wish: Any) -> Answer:
        """Return what follows ``ids``, by llama.cpp's parameters (``n_predict``, ``temperature``, …)."""
        answer = self._complete({"prompt": list(ids), **wish})
        choice = answer["choices"][0]
        ended = choice["finish_reason"] == "stop"
        return Answer(choice["text"], answer["usage"]["completion_tokens"] - ended, ended)

    def chat(
        self, messages: Sequence[Message], variables: Mapping[str, Any], *, max_tokens: int = 512, **sampling: Any
    ) -> Stream[str, None, Answer]:
        """Yield the answer to a conversation, piece by piece, until the model ends it; return it.

        Args:
            messages: ``role`` and ``content`` of each turn; the file's own template renders them.
            variables: Further variables of the template.
            max_tokens: The longest answer.
            sampling: llama.cpp's sampling parameters (``temperature``, ``top_p``, ``seed``, …); greedy without.

        Raises:
            ExportError: The template or llama.cpp refuses the conversation.
        """
        wish = {"messages": list(messages), "max_tokens": max_tokens, "temperature": 0, **sampling}
        wish["chat_template_kwargs"] = dict(variables)
        return self._spoken(self._server.handle_chat_completions, wish)

    def continued(self, ids: Sequence[int], **wish: Any) -> Stream[str, None, Answer]:
        """Yield what follows ``ids``, piece by piece, by llama.cpp's parameters; return it."""
        return self._spoken(self._server.handle_completions, {"prompt": list(ids), **wish})

    def _spoken(self, handle: Callable[..., Any], wish: Mapping[str, Any]) -> Stream[str, None, Answer]:
        said, count, ended = "", 0, False
        for part in self._streamed(handle, wish):
            choice = part["choices"][0] if part.get("choices") else {}
            words = choice.get("delta", choice)  # of a conversation, or of a text
            text = "".join(words.get(key) or "" for key in ("reasoning_content", "content", "text"))
            count = part.get("timings", {}).get("predicted_n", count)  # the token that ends it among them
            ended = ended or choice.get("finish_reason") == "stop"
            said += text
            if text:
                yield text
        return Answer(said, count - ended, ended)

    def _streamed(self, handle: Callable[..., Any], wish: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the parts of an answer as they come; to stop listening ends it."""
        pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        enough = threading.Event()

        def take(chunk: Any) -> bool:
            pieces.put(chunk)
            return enough.is_set()  # true ends the generation

        def work() -> None:
            try:
                handle({**wish, "stream": True}, take)
            except RuntimeError as error:
                pieces.put({"error": {"message": str(error)}})
            pieces.put(None)

        thread = threading.Thread(target=work, name="llama.cpp", daemon=True)
        thread.start()
        try:
            while (chunk := pieces.get()) is not None:
                for part in chunk if isinstance(chunk, list) else [chunk]:
                    self._refuse(part)
                    yield part
        finally:
            enough.set()
            thread.join()

    def _complete(self, wish: Mapping[str, Any]) -> Any:
        answer = self._server.handle_completions(dict(wish))
        self._refuse(answer)
        return answer

    def _refuse(self, answer: Mapping[str, Any]) -> None:
        if "error" in answer:
            why = answer["error"].get("message", str(answer["error"])) if isinstance(answer["error"], dict) else None
            raise ExportError(f"llama.cpp refuses a request for {self.path.name}", why or str(answer["error"]))

    def _ask(self, path: str, wish: Mapping[str, Any]) -> Any:
        body, kind = json.dumps(wish), {"Content-Type": "application/json"}
        for again in (True, False):
            try:
                self._web.request("POST", path, body, kind)
                answer = json.loads(self._web.getresponse().read())
                break
            except (http.client.HTTPException, OSError) as error:
                self._web.close()
                if again and isinstance(error, http.client.HTTPException | ConnectionError):
                    continue  # it closes a connection after some requests
                why = f"{error}; its loopback address {self._web.host}:{self._web.port} must be open to this process"
                raise ExportError("llama.cpp in this process cannot be asked", why) from error
        self._refuse(answer)
        return answer


@contextmanager
def _said() -> Iterator[list[str]]:
    """Collect what a library writes to the standard error, and pass it on."""
    lines: list[str] = []
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            text = file.read().decode("utf-8", "replace")
            lines.extend(text.splitlines())
            sys.stderr.write(text)
