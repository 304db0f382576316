// The OpenAI SDK.

import OpenAI from "openai";
import * as shown from "./shown.mjs";

const client = new OpenAI({ apiKey: "sk-fake", maxRetries: 0, timeout: 20000 });
const messages = [{ role: "user", content: "List the files. ä" }];
const tool = { name: "bash", description: "runs a command", parameters: { type: "object", properties: { command: { type: "string" } }, required: ["command"] } };
const print = (value) => console.log(JSON.stringify(value, null, 1));

async function chat_plain() {
  print(await client.chat.completions.create({ model: "gpt-6-sol", messages }));
}

async function chat_stream() {
  const tools = [{ type: "function", function: tool }];
  for await (const chunk of await client.chat.completions.create({ model: "gpt-6-sol", messages, tools, stream: true })) print(chunk);
}

async function responses_plain() {
  print(await client.responses.create({ model: "gpt-6-sol", input: "List the files. ä" }));
}

async function responses_stream() {
  const tools = [{ type: "function", ...tool }];
  for await (const event of await client.responses.create({ model: "gpt-6-sol", input: "List the files.", tools, stream: true })) print(event);
}

async function errors() {
  for (const status of [400, 401, 403, 404, 422, 429, 500]) {
    try {
      await client.chat.completions.create({ model: `any-status-${status}`, messages });
      console.log(status, "no error");
    } catch (error) {
      console.log(status, error.constructor.name, error.status, error.code, JSON.stringify(error.error));
    }
  }
}

await shown.chosen({ chat_plain, chat_stream, responses_plain, responses_stream, errors })();
