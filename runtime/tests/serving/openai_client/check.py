"""Uses a server as the official client's users do. Argument: its base URL, ending in /v1."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 plus 3?"}]
TEXT = "It is a truth universally acknowledged"


def models():
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"


def completion():
    answer = client.completions.create(model="tiny", prompt=TEXT, max_tokens=20, temperature=0)
    again = client.completions.create(model="tiny", prompt=TEXT, max_tokens=20, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in again) == answer.choices[0].text
    assert answer.usage.completion_tokens <= 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def several_prompts_and_choices():
    answer = client.completions.create(model="tiny", prompt=["One", "Two"], n=2, max_tokens=5, temperature=1, seed=7)
    again = client.completions.create(model="tiny", prompt=["One", "Two"], n=2, max_tokens=5, temperature=1, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [choice.text for choice in again.choices], "equal seeds"


def draws():
    """Prompts, choices and requests are drawn independently unless a seed ties them."""
    def texts(**more):
        answer = client.completions.create(
            model="tiny", prompt=["In the"] * 4, n=2, max_tokens=12, temperature=1.5, extra_body={"ignore_eos": True}, **more
        )
        return [choice.text for choice in answer.choices]

    free = texts()
    assert len(set(free)) == 8 and set(free).isdisjoint(texts()), free
    seeded = texts(seed=7)
    assert len(set(seeded)) == 8 and seeded == texts(seed=7), seeded
    assert set(seeded).isdisjoint(texts(seed=8)), "a seed's choices are not those of its neighbour"


def scores():
    answer = client.completions.create(model="tiny", prompt=TEXT, max_tokens=0, echo=True, logprobs=3, temperature=0)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == TEXT == answer.choices[0].text
    assert logprobs.token_logprobs[0] is None and all(score <= 0 for score in logprobs.token_logprobs[1:])
    for token, score, best in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs))[1:]:
        assert best[token] == score and 3 <= len(best) <= 4 and max(best.values()) >= score
    ids = client.completions.create(model="tiny", prompt=[[1, 2, 3]], max_tokens=1, echo=True, logprobs=1, seed=1234)
    assert len(ids.choices[0].logprobs.tokens) == 4


def scores_of_what_was_generated():
    """A token has the same score to the last bit whether it is generated or given."""
    prompt = "<|im_start|>user\nWhat is 2 plus 3?<|im_end|>\n<|im_start|>assistant\n"
    answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=8, temperature=0, logprobs=1)
    given = answer.choices[0]
    whole = client.completions.create(
        model="tiny", prompt=prompt + given.text, max_tokens=0, temperature=0, logprobs=1, echo=True
    ).choices[0].logprobs
    assert whole.tokens[-8:] == given.logprobs.tokens, "the text is tokenized as it was generated"
    assert whole.token_logprobs[-8:] == given.logprobs.token_logprobs


def chat():
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_completion_tokens=30, temperature=0, logprobs=True, top_logprobs=2
    )
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    assert choice.logprobs.content[0].top_logprobs[0].token == choice.logprobs.content[0].token, "greedy"
    stream = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=30, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == choice.message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == choice.finish_reason
    assert chunks[-1].usage == answer.usage


def history():
    """Messages as other servers return them, and fields that say nothing."""
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": "5", "tool_calls": [], "refusal": None, "reasoning_content": ""},
        {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "4?"}], "type": "text"},
    ]
    neutral = {"audio": None, "include_reasoning": True, "truncate_prompt_tokens": None, "return_token_ids": False}
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=2, extra_body=neutral)
    assert answer.usage.completion_tokens == 2
    longest = client.models.retrieve("tiny").max_model_len
    open_ended = client.chat.completions.create(model="tiny", messages=messages, extra_body={"ignore_eos": True})
    assert open_ended.usage.total_tokens == longest, "what does not say gets what is left"


def usage_so_far():
    stream = client.completions.create(
        model="tiny", prompt=TEXT, max_tokens=12.0, temperature=0, stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )
    counts = [chunk.usage.completion_tokens for chunk in stream]
    assert counts == sorted(counts) and counts[-1] <= 12 and counts[0] >= 1, counts


def stop():
    whole = client.completions.create(model="tiny", prompt=TEXT, max_tokens=20, temperature=0).choices[0].text
    stop = whole[5:9]
    cut = client.completions.create(model="tiny", prompt=TEXT, max_tokens=20, temperature=0, stop=[stop]).choices[0]
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop"


def errors():
    for kind, param, arguments in [
        (openai.NotFoundError, "model", {"model": "gpt-4"}),
        (openai.BadRequestError, "max_tokens", {"max_tokens": 5000}),
        (openai.BadRequestError, "prompt", {"prompt": [1] * 5000}),
        (openai.BadRequestError, "temperature", {"temperature": 3}),
        (openai.BadRequestError, "logit_bias", {"logit_bias": {"1": 5}}),
    ]:
        try:
            client.completions.create(**{"model": "tiny", "prompt": "a", "max_tokens": 1, **arguments})
            raise AssertionError(f"{arguments} were taken")
        except kind as error:
            assert error.param == param and error.body["message"], error
            if error.code == "context_length_exceeded":
                # The words by which litellm, and so what is built on it, knows the case.
                assert "this model's maximum context length is" in str(error).lower(), error


CHECKS = [
    models, completion, several_prompts_and_choices, draws, scores, scores_of_what_was_generated, chat, history, usage_so_far,
    stop, errors,
]
for check in CHECKS:
    check()
    print(f"{check.__name__}: passed", flush=True)
