// The Anthropic SDK.

import Anthropic from "@anthropic-ai/sdk";
import * as shown from "./shown.mjs";

const client = new Anthropic({ apiKey: "sk-ant-fake", maxRetries: 0, timeout: 20000 });
const asked = { model: "claude-sonnet-5-5", max_tokens: 1000, messages: [{ role: "user", content: "List the files. ä" }] };
const tools = [{ name: "bash", description: "runs a command", input_schema: { type: "object", properties: { command: { type: "string" } }, required: ["command"] } }];
const print = (value) => console.log(JSON.stringify(value, null, 1));

async function plain() {
  print(await client.messages.create(asked));
}

async function with_tools() {
  print(await client.messages.create({ ...asked, tools }));
}

async function stream() {
  const events = client.messages.stream({ ...asked, tools });
  for await (const event of events) console.log(event.type);
  print(await events.finalMessage());
}

async function errors() {
  for (const status of [400, 401, 403, 404, 413, 429, 500, 529]) {
    try {
      await client.messages.create({ ...asked, model: `any-status-${status}` });
      console.log(status, "no error");
    } catch (error) {
      console.log(status, error.constructor.name, error.status, JSON.stringify(error.error), error.requestID);
    }
  }
}

await shown.chosen({ plain, with_tools, stream, errors })();
