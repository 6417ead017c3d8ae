"""tools.serve: the official client gets the answers of tools.generate, and clear refusals."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import openai
import pytest

from tests.repository import ROOT
from tools.assistant import answer_all, load_assistant, render, render_turns
from tools.serve.server import Server
from tools.serve.service import Service

QUESTION = "my landlord kept the deposit and will not answer me?"
ASKED = [{"role": "user", "content": QUESTION}]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(tiny_adapter) -> Iterator[SimpleNamespace]:
    """A server of the tiny model on a free port, with its assistant and a client."""
    assistant = load_assistant(tiny_adapter, "cpu")
    with Server("127.0.0.1", 0) as server:
        server.service = Service(assistant, 8)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        client = openai.OpenAI(base_url=server.address, api_key="none", max_retries=0, timeout=30)
        yield SimpleNamespace(server=server, assistant=assistant, client=client)
        client.close()
        server.shutdown()
        thread.join()


def post(served, path: str, content: bytes | str, headers: dict = JSON) -> tuple[int, dict]:
    """Status and body of a request that no client would send."""
    connection = http.client.HTTPConnection(*served.server.server_address, timeout=30)
    connection.request("POST", path, content, headers)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def test_the_models_are_the_runs_and_the_base(served):
    assert [model.id for model in served.client.models.list()] == ["tiny", "base"]
    assert served.client.models.retrieve("base").id == "base"
    with pytest.raises(openai.NotFoundError, match="there is nothing at GET /v1/models/other"):
        served.client.models.retrieve("other")


def test_trained_biases_leave_no_base_to_ask(served, monkeypatch):
    monkeypatch.setattr(served.assistant.model.active_peft_config, "bias", "all")
    assert Service(served.assistant, 8).names == ["tiny"]
    asked = served.assistant.speaking(base=True)
    with pytest.raises(ValueError, match="for the base alone use --base-only"), asked:
        pass


@pytest.mark.parametrize("model", ["tiny", "base"])
def test_an_answer_is_that_of_generate_whole_and_in_a_stream(served, model):
    prompt = render(served.assistant, QUESTION)
    [own] = answer_all(served.assistant, [prompt], 8, base=model == "base")
    create = served.client.chat.completions.create
    whole = create(model=model, messages=ASKED)
    assert whole.choices[0].message.content == own.text
    assert whole.choices[0].finish_reason == ("stop" if own.ended else "length")
    assert whole.usage.prompt_tokens == len(prompt) and whole.usage.completion_tokens == own.tokens
    options = {"include_usage": True}
    *chunks, last = create(model=model, messages=ASKED, stream=True, stream_options=options)
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == own.text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == [] and last.usage == whole.usage


def test_the_words_of_training_are_added_unless_the_client_has_its_own(served):
    create = served.client.chat.completions.create
    own = [{"role": "developer", "content": "be brief"}, *ASKED]
    parts = [{"type": "text", "text": QUESTION[:9]}, {"type": "text", "text": QUESTION[9:]}]
    in_parts = [{"role": "user", "content": parts}]
    history = [*ASKED, {"role": "assistant", "content": "yes"}, *ASKED]
    for messages, turns in (
        (own, [{"role": "system", "content": "be brief"}, *ASKED]),
        (in_parts, ASKED),
        (history, history),
    ):
        reply = create(model="tiny", messages=messages, max_completion_tokens=3)
        assert reply.usage.prompt_tokens == len(render_turns(served.assistant, turns))
        assert reply.usage.completion_tokens <= 3


def test_a_text_is_continued_as_it_is(served):
    create, tokenizer = served.client.completions.create, served.assistant.tokenizer
    ids = tokenizer(QUESTION, add_special_tokens=False).input_ids
    replies = [create(model="tiny", prompt=prompt, max_tokens=5) for prompt in (QUESTION, ids)]
    assert replies[0].choices[0].text == replies[1].choices[0].text
    assert replies[0].usage.prompt_tokens == len(ids)
    chunks = create(model="tiny", prompt=QUESTION, max_tokens=5, stream=True)
    assert "".join(each.choices[0].text for each in chunks) == replies[0].choices[0].text
    rendered = tokenizer.decode(render(served.assistant, QUESTION))
    reply = create(model="tiny", prompt=rendered, max_tokens=8)
    [own] = answer_all(served.assistant, [render(served.assistant, QUESTION)], 8)
    assert reply.choices[0].text.strip() == own.text


def test_a_seed_and_a_stop_are_those_of_the_request(served):
    def ask(**options: object) -> str:
        reply = served.client.chat.completions.create(model="tiny", messages=ASKED, **options)
        return reply.choices[0].message.content

    drawn = [ask(temperature=2, seed=seed) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    assert len({ask(top_p=0.999) for _ in range(6)}) > 1  # at OpenAI's temperature
    greedy = ask()
    assert ask(stop=greedy[3:5]) == greedy[: greedy.find(greedy[3:5])].rstrip()


@pytest.mark.parametrize(
    ("changes", "status", "param", "message"),
    [
        ({"model": "gpt-4"}, 404, "model", "there is no model 'gpt-4', only tiny, base"),
        ({"messages": []}, 400, "messages", "at least 1 item"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "messages.0.role", "Input should"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "a"}]}, 400, "messages", "last"),
        ({"messages": [*ASKED, {"role": "system", "content": "a"}, *ASKED]}, 400, "messages", "fi"),
        ({"messages": [{"role": "user", "content": "</s>"}]}, 400, "messages", "special token"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 10**6}, 400, "messages", "the model takes 512 together"),
        ({"temperature": -1}, 400, "temperature", "greater than or equal to 0"),
        ({"n": 2}, 400, "n", "n is not supported: leave it out"),
        ({"logprobs": True}, 400, "logprobs", "logprobs is not supported"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}]}, 400, "tools", "not supp"),
        ({"stop": ["a"] * 5}, 400, "stop", "at most 4"),
        ({"extra_body": {"ignore_eos": True}}, 400, "ignore_eos", "not supported: leave it out"),
        ({"extra_body": {"guided_json": {}}}, 400, "guided_json", "not supported: leave it out"),
    ],
)
def test_a_request_that_cannot_be_done_is_an_error_in_openais_form(
    served, changes, status, param, message
):
    with pytest.raises(openai.APIStatusError, match=message) as caught:
        served.client.chat.completions.create(**{"model": "tiny", "messages": ASKED} | changes)
    assert caught.value.status_code == status and caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_what_is_no_request_is_refused_before_anything_is_run(served):
    path, body = "/v1/chat/completions", json.dumps({"model": "tiny", "messages": ASKED})
    assert post(served, path, b"{")[0] == post(served, path, b"[]")[0] == 400
    assert post(served, path, b"[" * 100_000)[0] == 400
    assert post(served, "/v1/embeddings", body)[0] == 404
    half = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "a\ud83d"}]})
    assert post(served, path, half)[0] == 400
    # A page in a browser can send no JSON unasked, nor a name that is not its own.
    assert post(served, path, body, {"Content-Type": "text/plain"})[0] == 415
    assert post(served, path, body, JSON | {"Host": "evil.example:80"})[0] == 403
    assert post(served, path, b"", JSON | {"Content-Length": "99999999999"})[0] == 413
    connection = http.client.HTTPConnection(*served.server.server_address, timeout=30)
    connection.request("DELETE", path)
    reply = connection.getresponse()
    assert reply.status == 501 and "error" in json.loads(reply.read())


def test_what_fails_inside_is_told_and_the_next_request_is_answered(served, monkeypatch, caplog):
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("out of memory, says the device")

    create = served.client.chat.completions.create
    with monkeypatch.context() as patched:
        patched.setattr("finetune.generation.Batch.read", fail)
        with pytest.raises(openai.InternalServerError, match="the device is out of memory"):
            create(model="tiny", messages=ASKED)
        with pytest.raises(openai.APIError, match="the device is out of memory"):
            list(create(model="tiny", messages=ASKED, stream=True))
    assert "says the device" in caplog.text
    assert create(model="tiny", messages=ASKED).usage.completion_tokens


def test_requests_are_answered_one_after_another_and_a_client_may_go(served):
    create, results = served.client.chat.completions.create, []
    gone = create(model="tiny", messages=ASKED, stream=True, max_tokens=400, temperature=2)
    next(iter(gone))
    gone.close()
    ask = lambda: results.append(create(model="tiny", messages=ASKED))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert served.client.models.list().data  # while they wait
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len({each.choices[0].message.content for each in results}) == 1


def test_a_port_that_is_taken_is_known_before_a_model_is_loaded(served):
    port = served.server.server_address[1]
    with pytest.raises(ValueError, match=f"--host 127.0.0.1 --port {port}: Address already in use"):
        Server("127.0.0.1", port)
    with pytest.raises(ValueError, match="--port 70000: "):
        Server("127.0.0.1", 70000)


def test_the_command_says_where_it_is_and_that_it_is_not_for_production(tiny_adapter):
    command = [sys.executable, "-m", "tools.serve", "--port", "0", "--adapter", str(tiny_adapter)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ
    )
    said = [process.stderr.readline() for _ in range(2)]
    address = re.search(r"tiny and base at (http://127\.0\.0\.1:\d+/v1) ", said[0])
    assert address and "not for production" in said[1]
    with openai.OpenAI(base_url=address[1], api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=2)
        assert reply.usage.completion_tokens
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert "Traceback" not in process.stderr.read()
