"""The OpenAI SDK."""

import json

import openai
import shown

TOOL = {"name": "bash", "description": "runs a command", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}}
MESSAGES = [{"role": "user", "content": "List the files. ä"}]


def client(retries=0):
    return openai.OpenAI(api_key="sk-fake", max_retries=retries, timeout=20)


def chat(**more):
    return {"model": "gpt-6-sol", "messages": MESSAGES, **more}


def chat_completions():
    tools = [{"type": "function", "function": TOOL}]
    print(client().chat.completions.create(**chat()).model_dump_json(indent=1))
    print(client().chat.completions.create(**chat(tools=tools)).model_dump_json(indent=1))
    for chunk in client().chat.completions.create(**chat(tools=tools, stream=True, stream_options={"include_usage": True})):
        print(chunk.model_dump_json())


def responses():
    tools = [{"type": "function", **TOOL}]
    print(client().responses.create(model="gpt-6-sol", input="List the files. ä").model_dump_json(indent=1))
    for event in client().responses.create(model="gpt-6-sol", input="List the files.", tools=tools, stream=True):
        print(event.model_dump_json())


def errors():
    for status in [400, 401, 403, 404, 422, 429, 500]:
        try:
            client().chat.completions.create(**{**chat(), "model": f"any-status-{status}"})
            print(status, "no error")
        except openai.APIStatusError as error:
            print(status, type(error).__name__, error.status_code, error.code, json.dumps(error.body, sort_keys=True))
    print([model.id for model in client().models.list()])


shown.chosen(globals())()
