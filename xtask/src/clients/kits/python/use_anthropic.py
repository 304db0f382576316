"""The Anthropic SDK."""

import json

import anthropic
import shown

TOOLS = [{"name": "bash", "description": "runs a command", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}}]
MESSAGES = [{"role": "user", "content": "List the files. ä"}]


def client():
    return anthropic.Anthropic(api_key="sk-ant-fake", max_retries=0, timeout=20)


def asked(**more):
    return {"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": MESSAGES, **more}


def messages():
    answer = client().messages.create(**asked())
    print(answer.model_dump_json(indent=1), answer._request_id)
    answer = client().messages.create(**asked(tools=TOOLS))
    print(answer.model_dump_json(indent=1))
    print(client().messages.count_tokens(model="claude-sonnet-5-5", messages=MESSAGES))


def stream():
    with client().messages.stream(**asked(tools=TOOLS)) as events:
        for event in events:
            print(event.type)
        print(events.get_final_message().model_dump_json(indent=1))


def errors():
    for status in [400, 401, 403, 404, 413, 429, 500, 529]:
        try:
            client().messages.create(**{**asked(), "model": f"any-status-{status}"})
            print(status, "no error")
        except anthropic.APIStatusError as error:
            print(status, type(error).__name__, error.status_code, json.dumps(error.body, sort_keys=True), error.request_id)
    # Twice after 429, as the SDK does by itself.
    try:
        client().with_options(max_retries=2).messages.create(**{**asked(), "model": "any-status-429"})
    except anthropic.RateLimitError as error:
        print(type(error).__name__)


shown.chosen(globals())()
