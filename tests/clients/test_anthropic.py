"""The anthropic package, as it comes."""

import anthropic
import pytest
from conftest import wait_until

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]
WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def test_messages_answer(client):
    reply = client.messages.create(model="large", max_tokens=50, messages=QUESTION)
    assert reply.role == "assistant" and reply.content[0].type == "text"
    assert "42" in reply.content[0].text
    assert reply.stop_reason == "end_turn" and reply.model == "large"
    assert reply.usage.input_tokens > 0 and reply.usage.output_tokens > 0


def test_a_system_prompt_and_blocks_are_read(client):
    blocks = [{"role": "user", "content": [{"type": "text", "text": "What is 17 + 25?"}]}]
    reply = client.messages.create(model="large", max_tokens=50, messages=blocks, system="You are a calculator.")
    assert reply.content[0].text


def test_a_stream_gathers_to_the_same_message(client):
    whole = client.messages.create(model="large", max_tokens=50, messages=QUESTION)
    with client.messages.stream(model="large", max_tokens=50, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_stop_sequences_and_max_tokens_are_told_apart(client):
    stopped = client.messages.create(model="large", max_tokens=50, messages=QUESTION, stop_sequences=["42"])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == "42"
    cut = client.messages.create(model="large", max_tokens=1, messages=QUESTION)
    assert cut.stop_reason == "max_tokens"


def test_a_tool_is_called(client):
    choice = {"type": "tool", "name": "weather"}
    reply = client.messages.create(model="large", max_tokens=100, messages=QUESTION, tools=[WEATHER], tool_choice=choice)
    used = [block for block in reply.content if block.type == "tool_use"]
    assert reply.stop_reason == "tool_use" and used[0].name == "weather" and set(used[0].input) == {"city"}
    with client.messages.stream(
        model="large", max_tokens=100, messages=QUESTION, tools=[WEATHER], tool_choice=choice
    ) as stream:
        final = stream.get_final_message()
    assert [block for block in final.content if block.type == "tool_use"][0].input == used[0].input


def test_tokens_are_counted(client):
    counted = client.messages.count_tokens(model="large", messages=QUESTION)
    reply = client.messages.create(model="large", max_tokens=5, messages=QUESTION)
    used = reply.usage
    assert counted.input_tokens == used.input_tokens + used.cache_read_input_tokens


def test_errors_are_of_the_right_class(client, guarded):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=5, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="large", max_tokens=5, messages=QUESTION, extra_body={"temperature": -1})
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="large", max_tokens=5, messages=[{"role": "user", "content": "word " * 20_000}])
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(model="alone", max_tokens=5, messages=QUESTION)
    wrong = anthropic.Anthropic(base_url=guarded.url, api_key="wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        wrong.messages.create(model="large", max_tokens=5, messages=QUESTION)
    right = anthropic.Anthropic(base_url=guarded.url, api_key="secret", max_retries=0)
    assert right.messages.create(model="large", max_tokens=50, messages=QUESTION).content


def test_a_client_that_leaves_frees_its_slot(client, server):
    with client.messages.stream(
        model="large",
        max_tokens=2000,
        extra_body={"temperature": 1.0},
        messages=[{"role": "user", "content": "Count from 1 to 40."}],
    ) as stream:
        next(iter(stream.text_stream))
    assert wait_until(lambda: server.active() == 0)
