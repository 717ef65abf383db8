"""A chat whose upstream is down, slow, or talks garbage, or that asks for what there is not: what the caller hears, and that memory stays
whole. What the user said is learned where the model was at fault, and not where the request was."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from ndml.client import ClientOptions, NdmlClient, Retry
from ndml.errors import DeadlinePassed, FieldInvalid, ModelNotConfigured, ModelUnavailable, ModelUnknown, NdmlError
from ndml.testing import Suite, SuiteOptions
from ndml.testing.layout import Role

BOUND_S = 60.0  # of every wait: the machine may be busy
SILENCE_S = 12.0  # that the llm service bears of its upstream
HURRY_S = 6.0  # a deadline well before that, and well after a call has begun on a busy machine
FACT = "My sister is called Maja."

pytestmark = pytest.mark.xdist_group("trouble")


class Upstream(ThreadingHTTPServer):
    """A chat model on loopback that behaves as the last message says: one of WAYS."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Answers)
        self.over, self.left = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


class Line:
    """The upstream's port, with a server behind it or none."""

    def __init__(self) -> None:
        self._server = Upstream()
        self._port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"

    @property
    def left(self) -> threading.Event:
        """Somebody hung up on an answer that goes on and on."""
        return self._server.left

    def cut(self) -> None:
        self._server.close()

    def mend(self) -> None:
        self._server = Upstream(self._port)


class _Answers(BaseHTTPRequestHandler):
    server: Upstream

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.close_connection = True
        WAYS[body["messages"][-1]["content"].rpartition(" ")[2]](self)

    def begin(self, status: int = 200, kind: str = "text/event-stream") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()

    def send(self, *parts: str) -> None:
        for part in parts:
            self.wfile.write(part.encode())
            self.wfile.flush()

    def wait(self) -> None:
        self.server.over.wait(BOUND_S)

    def log_message(self, *_: Any) -> None:
        """Quiet: pytest shows what matters."""


def word(text: str, finish: str | None = None) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': text}, 'finish_reason': finish}]})}\n\n"


def well(answers: _Answers) -> None:
    answers.begin()
    answers.send(word("Well."), word("", "stop"), "data: [DONE]\n\n")


def mute(answers: _Answers) -> None:
    answers.wait()


def stuck(answers: _Answers) -> None:
    answers.begin()
    answers.send(word("So "))
    answers.wait()


def talking(answers: _Answers) -> None:
    answers.begin()
    try:
        while not answers.server.over.wait(0.01):
            answers.send(word("So "))
    except OSError:
        answers.server.left.set()


def cut(answers: _Answers) -> None:
    answers.begin()
    answers.send(word("So "))


def _answers_with(status: int, kind: str, *parts: str) -> Callable[[_Answers], None]:
    def answer(answers: _Answers) -> None:
        answers.begin(status, kind)
        answers.send(*parts)

    return answer


WAYS: dict[str, Callable[[_Answers], None]] = {
    "well": well,
    "mute": mute,
    "stuck": stuck,
    "cut": cut,
    "talking": talking,
    "hangup": lambda _answers: None,
    "failing": _answers_with(500, "application/json", '{"error": {"message": "the GPU is on fire"}}'),
    "busy": _answers_with(429, "application/json", '{"error": {"message": "slow down"}}'),
    "html": _answers_with(200, "text/html", "<html><body>Welcome to the proxy</body></html>"),
    "nojson": _answers_with(200, "text/event-stream", "data: no json\n\n"),
    "nochat": _answers_with(200, "text/event-stream", 'data: {"hello": "world"}\n\n'),
    "binary": _answers_with(200, "text/event-stream", "data: \x00\x01\x02\n\n"),
    "endless": _answers_with(200, "text/event-stream", "data: " + "x" * (2 << 20)),
    "toolong": _answers_with(400, "application/json", '{"error": {"message": "maximum context length is 4096 tokens"}}'),
    "nokey": _answers_with(401, "application/json", '{"error": {"message": "bad key"}}'),
}


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.cut()


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory, line: Line) -> Iterator[Suite]:
    settings: dict[Role, dict[str, str]] = {
        "llm": {
            "CHAT__UPSTREAM_URL": line.url,
            "CHAT__MODEL": "trouble",
            "CHAT__READ_TIMEOUT_S": str(SILENCE_S),
            "CHAT__RETRIES": "1",
        },
        "gateway": {"CHAT__RECALL_TIMEOUT_S": "20"},
    }
    options = SuiteOptions(data_dir=tmp_path_factory.mktemp("trouble"), memory_nodes=1, consensus_nodes=1, settings=settings)
    with Suite(options) as running:
        yield running


def client(suite: Suite, user: str) -> NdmlClient:
    """Tries once: what a caller hears first is what is looked at."""
    return NdmlClient(suite.grpc_address, user=user, timeout_s=BOUND_S, options=ClientOptions(retry=Retry(attempts=1)))


def heard(memory: NdmlClient, text: str, **wishes: Any) -> tuple[str, NdmlError | None]:
    """What came of the answer, and how it failed."""
    answer = memory.chat(text, **wishes)
    try:
        for _ in answer:
            pass
    except NdmlError as error:
        return answer.text, error
    return answer.text, None


def until(memory: NdmlClient, *texts: str) -> None:
    """Wait until just these are known."""
    ends = time.monotonic() + BOUND_S
    while sorted(found := [m.text for m in memory.list()]) != sorted(texts):
        assert time.monotonic() < ends, f"{found}, not {texts}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("way", "before"),
    [
        *((way, "") for way in ("mute", "hangup", "failing", "busy", "html", "nojson", "nochat", "binary", "endless")),
        ("stuck", "So "),
        ("cut", "So "),
    ],
)
def test_an_upstream_in_trouble_is_a_clear_error_and_what_was_said_is_kept(troubled: Suite, way: str, before: str) -> None:
    with client(troubled, f"user-{way}") as memory:
        memory.add("I live in Oslo.", speaker="user")
        text, error = heard(memory, f"{FACT} Please be {way}")
        assert isinstance(error, ModelUnavailable) and "the upstream at" in error.message and text == before
        until(memory, "I live in Oslo.", FACT)
        assert heard(memory, "Please be well", learning="off") == ("Well.", None)


def test_a_deadline_that_passes_while_the_upstream_is_silent_is_the_callers(troubled: Suite) -> None:
    with client(troubled, "hurried") as memory:
        assert heard(memory, "Please be well", learning="off") == ("Well.", None), "connected, and warm"
        assert isinstance(heard(memory, f"{FACT} Please be stuck", timeout_s=HURRY_S)[1], DeadlinePassed)
        until(memory, FACT)


@pytest.mark.parametrize(
    ("way", "wishes", "error", "says"),
    [
        ("toolong", {}, FieldInvalid, "maximum context length is 4096 tokens"),
        ("nokey", {}, ModelNotConfigured, "chat.api_key"),
        ("well", {"model": "gpt-9"}, ModelUnknown, "trouble"),
        ("well", {"fusion": "state"}, NdmlError, "FUSION_WAY_PROMPT"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why_and_leaves_nothing(
    troubled: Suite, way: str, wishes: dict[str, Any], error: type[NdmlError], says: str
) -> None:
    with client(troubled, f"refused-{way}-{'-'.join(wishes)}") as memory:
        memory.add("I live in Oslo.", speaker="user")
        text, failure = heard(memory, f"{FACT} Please be {way}", **wishes)
        assert isinstance(failure, error) and says in failure.message and not text, failure
        assert heard(memory, "I like tea. Please be well", learning="wait") == ("Well.", None)
        assert sorted(m.text for m in memory.list()) == ["I like tea.", "I live in Oslo."]


def test_an_upstream_that_is_not_there_comes_back_and_nothing_was_lost(troubled: Suite, line: Line) -> None:
    """The port refuses connections; then another server listens on it."""
    line.cut()
    with client(troubled, "patient") as memory:
        try:
            text, error = heard(memory, f"{FACT} Please be well")
            assert isinstance(error, ModelUnavailable) and not text and error.retry_after_s
            until(memory, FACT)
        finally:
            line.mend()
        assert heard(memory, "Please be well", learning="off") == ("Well.", None)


def test_a_client_that_goes_away_stops_the_model_and_has_been_heard(troubled: Suite, line: Line) -> None:
    with client(troubled, "leaver") as memory:
        answer = memory.chat(f"{FACT} Please be talking")
        assert next(answer) == "So "
        answer.close()
        assert line.left.wait(BOUND_S), "the model goes on for nobody"
        until(memory, FACT)
        line.left.clear()
        with openai.OpenAI(base_url=f"{troubled.rest_url}/v1", api_key="any", max_retries=0, timeout=BOUND_S) as door:
            asked: Any = [{"role": "user", "content": "I like tea. Please be talking"}]
            stream = door.chat.completions.create(model="trouble", user="leaver", messages=asked, stream=True)
            assert next(chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content) == "So "
            stream.close()
        assert line.left.wait(BOUND_S), "the model goes on for nobody"
        until(memory, FACT, "I like tea.")


def test_over_openais_route_trouble_is_what_its_client_raises(troubled: Suite) -> None:
    def asks(text: str) -> Any:
        return {"model": "trouble", "user": "door", "messages": [{"role": "user", "content": text}]}

    with openai.OpenAI(base_url=f"{troubled.rest_url}/v1", api_key="any", max_retries=0, timeout=BOUND_S) as door:
        with pytest.raises(openai.InternalServerError) as failed:
            door.chat.completions.create(**asks(f"{FACT} Please be nojson"))
        assert (failed.value.status_code, failed.value.code) == (503, "model_unavailable")
        with pytest.raises(openai.BadRequestError, match="maximum context length") as refused:
            door.chat.completions.create(**asks("Please be toolong"))
        assert refused.value.param == "messages"
        pieces: list[str] = []
        with pytest.raises(openai.APIError, match="upstream"):
            for chunk in door.chat.completions.create(**asks("I like tea. Please be cut"), stream=True):
                pieces += [choice.delta.content or "" for choice in chunk.choices]
        assert "".join(pieces) == "So "
    with client(troubled, "door") as memory:
        until(memory, FACT, "I like tea.")
