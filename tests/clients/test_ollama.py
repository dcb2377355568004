"""The ollama package, as it comes."""

import json

import ollama
import pytest
from conftest import wait_until

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def client(server):
    return ollama.Client(host=server.url)


def test_chat_answers(client):
    reply = client.chat("large", QUESTION)
    assert "42" in reply.message.content and reply.done and reply.done_reason == "stop"
    assert reply.eval_count > 0 and reply.prompt_eval_count > 0 and reply.total_duration > 0


def test_a_stream_is_the_answer_in_pieces(client):
    whole = client.chat("large", QUESTION).message.content
    pieces = list(client.chat("large", QUESTION, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == whole
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_generate_uses_the_template_unless_raw(client):
    assert "42" in client.generate("large", "What is 17 + 25?").response
    assert client.generate("large", "17 + 25 =", raw=True, options={"num_predict": 2}).eval_count == 2


def test_options_are_obeyed(client):
    cut = client.chat("large", QUESTION, options={"num_predict": 2})
    assert cut.eval_count == 2 and cut.done_reason == "length"
    stopped = client.chat("large", QUESTION, options={"stop": ["42"]})
    assert "42" not in stopped.message.content


def test_a_format_is_kept(client):
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    reply = client.chat("large", QUESTION, format=schema)
    assert isinstance(json.loads(reply.message.content)["answer"], int)


def test_models_are_listed_and_shown(client):
    names = [model.model for model in client.list().models]
    assert "large" in names or "large:latest" in names
    shown = client.show("large")
    assert shown.details.format == "gguf" and "completion" in shown.capabilities
    client.chat("large", QUESTION)
    running = client.ps().models
    assert [model for model in running if model.model.startswith("large") and model.size > 0]
    assert "42" in client.chat("large:latest", QUESTION).message.content


def test_errors_carry_their_status(client):
    with pytest.raises(ollama.ResponseError) as unknown:
        client.chat("nobody", QUESTION)
    assert unknown.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as alone:
        client.chat("alone", QUESTION)
    assert alone.value.status_code in (500, 503)


def test_a_client_that_leaves_frees_its_slot(client, server):
    stream = client.chat("large", [{"role": "user", "content": "Count from 1 to 40."}], stream=True, options={"temperature": 1.0})
    next(stream)
    stream.close()
    assert wait_until(lambda: server.active() == 0)


def test_embed_gives_vectors(client, server):
    if not server.embedder:
        pytest.skip("DOWNSHIFT_TEST_EMBEDDER names no embedding model")
    reply = client.embed("embedder", ["a cat", "a kitten"])
    assert len(reply.embeddings) == 2 and len(reply.embeddings[0]) == len(reply.embeddings[1]) > 0
