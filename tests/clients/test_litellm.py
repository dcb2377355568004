"""The litellm package, as it comes, over the server's OpenAI form."""

import litellm
import pytest

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def where(server):
    return {"api_base": server.url + "/v1", "api_key": "none", "num_retries": 0}


def test_completion_answers(where):
    reply = litellm.completion("openai/large", messages=QUESTION, **where)
    assert "42" in reply.choices[0].message.content and reply.choices[0].finish_reason == "stop"


def test_a_stream_is_the_answer_in_pieces(where):
    whole = litellm.completion("openai/large", messages=QUESTION, **where).choices[0].message.content
    pieces = [chunk.choices[0].delta.content for chunk in litellm.completion("openai/large", messages=QUESTION, stream=True, **where)]
    assert "".join(piece for piece in pieces if piece) == whole


def test_errors_are_of_the_right_class(where):
    with pytest.raises(litellm.NotFoundError):
        litellm.completion("openai/nobody", messages=QUESTION, **where)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion("openai/large", messages=[{"role": "user", "content": "word " * 20_000}], **where)
    with pytest.raises(litellm.InternalServerError):
        litellm.completion("openai/alone", messages=QUESTION, **where)


def test_the_anthropic_and_ollama_forms_answer_too(server):
    anthropic = litellm.completion("anthropic/large", messages=QUESTION, api_base=server.url, api_key="none", num_retries=0)
    assert "42" in anthropic.choices[0].message.content
    ollama = litellm.completion("ollama_chat/large", messages=QUESTION, api_base=server.url, num_retries=0)
    assert "42" in ollama.choices[0].message.content
