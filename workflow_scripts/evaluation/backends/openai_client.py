"""A client of servers that speak OpenAI's chat completions, with retries: the one place that calls such a server."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple, Protocol, TypeVar

from workflow_scripts.base import credentials
from workflow_scripts.base.errors import UserError, brief

logger = logging.getLogger(__name__)

MAX_WAIT = 30.0  # seconds before a try, at most, also where the server asks for more
_TRIED_AGAIN = {408, 409, 425, 429, *range(500, 600)}
GIVE_UP_AFTER = 10  # requests in a row to which the server gave no answer

Key = TypeVar("Key")
Reply = TypeVar("Reply")


class Server(Protocol):
    """How a server is asked: where, for which model, with which fields of the request, how many at once.

    `timeout` is in seconds, of one try, after which come at most `retries` others.
    """

    @property
    def url(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def parameters(self) -> dict[str, Any]: ...
    @property
    def concurrent(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...


class Completion(NamedTuple):
    """What a model wrote, why it stopped ("stop", "length", …; "" if unsaid), and the tokens it wrote (0 if unsaid).

    `thought` is what the server has parsed from before the text; `model` is what it says has answered, "" if unsaid;
    `stop` is the token or text that ended it, where vLLM names one.
    """

    text: str
    finish_reason: str
    tokens: int
    thought: str = ""
    model: str = ""
    stop: int | str | None = None


class NoAnswer(Exception):
    """A server that is there has answered none of the tries to this request; the message says how it failed."""


class OpenAIClient:
    """One model at one server. Its methods may be called from many threads at once.

    `url` is the address before `/chat/completions`, such as http://127.0.0.1:8000/v1. The key, where the server wants
    one, is the value of the environment variable `key_variable`. A request that fails is sent again up to `retries`
    times, after one second, two, four and so on; `timeout` is in seconds, of one try.
    """

    def __init__(
        self, url: str, model: str, key_variable: str, timeout: float, retries: int, first_wait: float = 1
    ) -> None:
        import httpx2

        self.url, self.model = url.rstrip("/"), model
        self._key_variable, self._retries, self._first_wait = key_variable, retries, first_wait
        key = os.environ.get(key_variable, "").strip()
        # Redirections are not followed: they would take the key elsewhere.
        self._http = httpx2.Client(
            timeout=timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=None),
        )

    def close(self) -> None:
        self._http.close()

    def complete(self, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> Completion:
        """The first choice for `messages`; `parameters` are further fields of the request, such as max_tokens.

        A NoAnswer where all tries fail; a UserError where no try can succeed: no server there, or it refuses.
        """
        request = {"model": self.model, "messages": list(messages), **parameters}
        for number in range(self._retries + 1):
            try:
                return self._once(request)
            except _Failed as error:
                if number == self._retries:
                    if error.unreachable:
                        raise UserError(
                            f"{self.shown}: {error}; start the server or correct the url"
                        ) from None
                    raise NoAnswer(f"{error}, {number + 1} times") from None
                logger.debug("%s: %s; trying again", self.shown, error)
                time.sleep(min(MAX_WAIT, error.wait or self._first_wait * 2**number))
        raise AssertionError("the last try returns or raises")

    @property
    def shown(self) -> str:
        """The address, as it may be printed."""
        return credentials.without(self.url)

    def _once(self, request: Mapping[str, Any]) -> Completion:
        import httpx2

        try:
            response = self._http.post(f"{self.url}/chat/completions", json=request)
        except httpx2.TimeoutException:
            raise _Failed("no answer in time") from None
        except httpx2.ConnectError as error:
            raise _Failed(f"no server answers ({brief(error)})", unreachable=True) from None
        except httpx2.TransportError as error:
            raise _Failed(f"the connection broke ({brief(error)})") from None
        except (httpx2.InvalidURL, ValueError) as error:
            raise UserError(f"{self.shown}: {brief(error)}; correct the url") from None
        if response.status_code in _TRIED_AGAIN:
            raise _Failed(f"HTTP {response.status_code}", wait=_seconds(response.headers.get("Retry-After")))
        if response.status_code != 200:
            raise UserError(f"{self.shown}: HTTP {response.status_code}: {self._refusal(response)}")
        return _completion(response)

    def _refusal(self, response: Any) -> str:
        """What the server says, and what to do."""
        said = " ".join(response.text.split())[:200]
        advice = {
            401: f"set the environment variable {self._key_variable} to a key of this server",
            403: f"set the environment variable {self._key_variable} to a key that may use {self.model}",
            404: "correct the url (it ends in /v1 on most servers) or the model's name",
        }
        return f"{said}; {advice.get(response.status_code, 'correct the model or the parameters')}"


def replies(
    calls: Mapping[Key, Callable[[], Reply]], concurrent: int, server: str
) -> Iterator[tuple[Key, Reply | NoAnswer]]:
    """(key, what its call returned) as each is done, or the NoAnswer of those whose tries have all failed.

    A UserError where GIVE_UP_AFTER calls in a row have failed. `server` is named in it.
    """
    failed = 0
    pool = ThreadPoolExecutor(concurrent)
    try:
        running = {pool.submit(call): key for key, call in calls.items()}
        for future in as_completed(running):
            try:
                reply = future.result()
            except NoAnswer as error:
                failed += 1
                if failed == GIVE_UP_AFTER:
                    raise UserError(
                        f"{server}: {failed} questions in a row without an answer ({error}); see to the server and start "
                        "again: what it has answered is kept"
                    ) from None
                yield running[future], error
            else:
                failed = 0
                yield running[future], reply
    finally:
        pool.shutdown(cancel_futures=True)


class _Failed(Exception):
    """One try has failed; the next one waits for `wait` seconds, or as usual where it is 0."""

    def __init__(self, message: str, wait: float = 0, unreachable: bool = False) -> None:
        super().__init__(message)
        self.wait, self.unreachable = wait, unreachable


def _completion(response: Any) -> Completion:
    try:
        body = response.json()
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        # `reasoning_content` until vLLM 0.11, and of DeepSeek and SGLang; `reasoning` since then.
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        if not isinstance(text, str) or not isinstance(thought, str):
            raise TypeError(f"content is {type(text).__name__}, the thought {type(thought).__name__}")
        usage = body.get("usage") or {}
        return Completion(
            text,
            str(choice.get("finish_reason") or ""),
            int(usage.get("completion_tokens") or 0),
            thought,
            str(body.get("model") or ""),
            choice.get("stop_reason"),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _Failed(f"what came is no completion ({type(error).__name__}: {brief(error)})") from None


def _seconds(retry_after: str | None) -> float:
    """The header Retry-After in seconds; 0 where there is none, or a date."""
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:
        return 0.0
