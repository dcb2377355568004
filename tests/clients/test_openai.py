"""The openai package, as it comes."""

import base64
import json
import struct

import openai
import pytest
from conftest import wait_until
from pydantic import BaseModel

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
LONG = [{"role": "user", "content": "Count from 1 to 40."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["c", "f"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat_answers(client):
    reply = client.chat.completions.create(model="large", messages=QUESTION)
    assert "42" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == "large"
    assert reply.usage.prompt_tokens > 0 and reply.usage.completion_tokens > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_an_alias_names_the_model(client):
    assert client.chat.completions.create(model="gpt-4o", messages=QUESTION).model == "large"


def test_a_stream_is_the_answer_in_pieces(client):
    whole = client.chat.completions.create(model="large", messages=QUESTION).choices[0].message.content
    stream = client.chat.completions.create(
        model="large", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "" not in deltas
    assert "".join(delta for delta in deltas if delta) == whole
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


def test_several_choices(client):
    reply = client.chat.completions.create(model="large", messages=QUESTION, n=3)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert all("42" in choice.message.content for choice in reply.choices)


def test_a_stop_string_is_not_shown(client):
    reply = client.chat.completions.create(model="large", messages=QUESTION, stop=["42"])
    assert "42" not in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"


def test_max_tokens_ends_for_length(client):
    reply = client.chat.completions.create(model="large", messages=LONG, max_completion_tokens=3)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 3


def test_logprobs_come_with_their_tokens(client):
    reply = client.chat.completions.create(model="large", messages=QUESTION, logprobs=True, top_logprobs=2)
    entries = reply.choices[0].logprobs.content
    assert "".join(entry.token for entry in entries).strip() == reply.choices[0].message.content.strip()
    for entry in entries:
        assert len(entry.top_logprobs) == 2
        assert entry.logprob <= 0 and entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob


def test_a_seed_repeats_an_answer(client):
    def ask(seed):
        reply = client.chat.completions.create(model="large", messages=LONG, temperature=2.0, seed=seed, max_tokens=30)
        return reply.choices[0].message.content

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(6)}) > 1


class Sum(BaseModel):
    """What the model must fill in."""

    answer: int
    certain: bool


def test_parse_gives_an_object_of_the_schema(client):
    reply = client.chat.completions.parse(model="large", messages=QUESTION, response_format=Sum)
    assert isinstance(reply.choices[0].message.parsed, Sum)


def test_a_json_object_is_one(client):
    reply = client.chat.completions.create(
        model="large", messages=QUESTION, response_format={"type": "json_object"}, max_tokens=200
    )
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content), dict)


def test_a_required_tool_is_called(client):
    reply = client.chat.completions.create(model="large", messages=QUESTION, tools=[WEATHER], tool_choice="required")
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.id and call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"} and arguments["unit"] in ("c", "f")


def test_a_named_tool_is_called_in_a_stream(client):
    stream = client.chat.completions.create(
        model="large",
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        stream=True,
    )
    pieces = [(chunk.choices[0].delta.tool_calls or [None])[0] for chunk in stream if chunk.choices]
    pieces = [piece for piece in pieces if piece]
    assert pieces[0].id and pieces[0].function.name == "weather"
    assert all(piece.id is None and piece.function.name is None for piece in pieces[1:])
    arguments = json.loads("".join(piece.function.arguments or "" for piece in pieces))
    assert set(arguments) == {"city", "unit"}


def test_a_tool_result_is_read(client):
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"},
    ]
    reply = client.chat.completions.create(model="large", messages=messages, tools=[WEATHER], tool_choice="none")
    assert reply.choices[0].message.tool_calls is None


def test_completions_continue_text(client):
    reply = client.completions.create(model="large", prompt="17 + 25 =", max_tokens=5)
    assert reply.choices[0].text
    streamed = client.completions.create(model="large", prompt="17 + 25 =", max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == reply.choices[0].text
    both = client.completions.create(model="large", prompt=["17 + 25 =", "a b c"], max_tokens=2)
    assert [choice.index for choice in both.choices] == [0, 1]


def test_responses_answer_and_stream(client):
    reply = client.responses.create(model="large", input="What is 17 + 25?")
    assert "42" in reply.output_text and reply.status == "completed"
    with client.responses.stream(model="large", input="What is 17 + 25?") as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert events[-1].response.output_text == reply.output_text


def test_models_are_listed(client):
    names = [model.id for model in client.models.list()]
    assert names[:2] == ["large", "small"]
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_dropped_gear_is_disclosed(client):
    raw = client.chat.completions.with_raw_response.create(model="missing", messages=QUESTION)
    assert raw.headers["x-model-requested"] == "missing"
    assert raw.headers["x-model"] == "small"
    assert raw.headers["x-attempted-fallbacks"] == "1"
    reply = raw.parse()
    assert reply.model == "small"
    assert reply.fallback["attempts"][0]["kind"] == "missing"
    first = next(iter(client.chat.completions.create(model="missing", messages=QUESTION, stream=True)))
    assert first.model == "small" and first.fallback["requested"] == "missing"


def test_errors_are_of_the_right_class(client, guarded):
    ask = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(model="nobody", messages=QUESTION)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        ask(model="large", messages=QUESTION, temperature=-1)
    with pytest.raises(openai.BadRequestError):
        ask(model="large", messages=[])
    with pytest.raises(openai.BadRequestError) as too_long:
        ask(model="large", messages=[{"role": "user", "content": "word " * 20_000}])
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.InternalServerError) as alone:
        ask(model="alone", messages=QUESTION)
    assert alone.value.body["attempts"][0]["model"] == "alone"
    wrong = openai.OpenAI(base_url=guarded.url + "/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model="large", messages=QUESTION)
    right = openai.OpenAI(base_url=guarded.url + "/v1", api_key="secret", max_retries=0)
    assert "42" in right.chat.completions.create(model="large", messages=QUESTION).choices[0].message.content


def test_a_client_that_leaves_frees_its_slot(client, server):
    stream = client.chat.completions.create(model="large", messages=LONG, stream=True, temperature=1.0, max_tokens=2000)
    next(iter(stream))
    stream.close()
    assert wait_until(lambda: server.active() == 0)


def test_embeddings_in_both_encodings(client, server):
    if not server.embedder:
        pytest.skip("DOWNSHIFT_TEST_EMBEDDER names no embedding model")
    decoded = client.embeddings.create(model="embedder", input=["a cat", "a kitten"])
    plain = client.embeddings.create(model="embedder", input=["a cat", "a kitten"], encoding_format="float")
    encoded = client.embeddings.with_raw_response.create(model="embedder", input="a cat", encoding_format="base64")
    assert decoded.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    raw = base64.b64decode(json.loads(encoded.content)["data"][0]["embedding"])
    assert struct.unpack(f"<{len(raw) // 4}f", raw) == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert plain.usage.prompt_tokens > 0


def test_a_chat_model_makes_no_embeddings(client):
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="large", input="a cat")
