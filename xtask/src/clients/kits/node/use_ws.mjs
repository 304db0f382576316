// ws: with permessage-deflate and without, fragments, pings, closing.

import WebSocket from "ws";
import * as shown from "./shown.mjs";

async function talk(perMessageDeflate) {
  const ws = new WebSocket("wss://open.example/ws/echo", { perMessageDeflate });
  const answers = [];
  let wake = () => {};
  ws.on("message", (data, binary) => { answers.push([data, binary]); wake(); });
  const next = async () => {
    while (answers.length === 0) await new Promise((resolve) => { wake = resolve; });
    return answers.shift();
  };
  ws.on("upgrade", (answer) => console.log(answer.statusCode, Object.keys(answer.headers).sort()));
  await new Promise((resolve, reject) => ws.on("open", resolve).on("error", reject));
  console.log(ws.extensions);
  for (const message of ["hello", "ä".repeat(1000), "hello", Buffer.alloc(70000, 7), "", "x".repeat(200000)]) {
    ws.send(message);
    const [data, binary] = await next();
    console.log(binary, Buffer.compare(data, Buffer.from(message)));
    shown.body(data);
  }
  ws.send("in ", { fin: false });
  ws.send("two pieces", { fin: true });
  console.log((await next())[0].toString());
  const pong = new Promise((resolve) => ws.on("pong", resolve));
  ws.ping("are you there");
  console.log((await pong).toString());
  const closed = new Promise((resolve) => ws.on("close", (code, reason) => resolve([code, reason.toString()])));
  ws.close(1000, "done");
  console.log(await closed);
}

const deflate = () => talk({ threshold: 0 });
const plain = () => talk(false);

async function refused() {
  const ws = new WebSocket("wss://open.example/status/403");
  const answer = await new Promise((resolve, reject) => ws.on("unexpected-response", (_, answer) => resolve(answer)).on("open", reject));
  let text = "";
  for await (const chunk of answer) text += chunk;
  console.log(answer.statusCode, text);
  ws.terminate();
  process.exit(0);
}

await shown.chosen({ deflate, plain, refused })();
