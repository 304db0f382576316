// The MCP SDK over Streamable HTTP, with a session and the server's own stream.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { LoggingMessageNotificationSchema } from "@modelcontextprotocol/sdk/types.js";

const client = new Client({ name: "clients", version: "1.0.0" });
const heard = new Promise((resolve) => client.setNotificationHandler(LoggingMessageNotificationSchema, (said) => resolve(said.params)));
const transport = new StreamableHTTPClientTransport(new URL("https://open.example/mcp/legacy"));
await client.connect(transport);
console.log((await client.listTools()).tools.map((tool) => tool.name));
console.log(JSON.stringify(await client.callTool({ name: "add", arguments: { a: 2, b: 40 } })));
const onprogress = (progress) => console.log("progress", JSON.stringify(progress));
console.log(JSON.stringify(await client.callTool({ name: "count", arguments: {} }, undefined, { onprogress })));
try {
  await client.callTool({ name: "absent", arguments: {} });
} catch (error) {
  console.log(error.name, error.code, error.message);
}
console.log("heard", JSON.stringify(await heard));
await transport.terminateSession();
await client.close();
