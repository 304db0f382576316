// undici: raw requests over HTTP/1.1 and HTTP/2, and several at once.

import { Agent, Client, request } from "undici";
import * as shown from "./shown.mjs";

const OPEN = "https://open.example";
const ca = (await import("node:fs")).readFileSync(process.env.NODE_EXTRA_CA_CERTS);

function told(answer) {
  shown.head(answer.statusCode, answer.statusText ?? "", Object.entries(answer.headers));
}

async function plain() {
  const dispatcher = new Agent({ connect: { ca } });
  const answer = await request(`${OPEN}/echo`, { dispatcher, method: "POST", body: "hello", headers: ["X-MiXed", "1", "x-second", "2", "X-MiXed", "3"] });
  told(answer);
  shown.body(await answer.body.arrayBuffer());
  const trailing = await request("https://raw.example/chunks", { dispatcher });
  shown.body(await trailing.body.arrayBuffer());
  console.log(trailing.trailers);
  const hints = [];
  const hinted = await request("https://raw.example/hints", { dispatcher, onInfo: (info) => hints.push(info) });
  console.log(hints, await hinted.body.text());
  await dispatcher.close();
}

async function http2() {
  const dispatcher = new Agent({ allowH2: true, connect: { ca } });
  for (const path of ["/", "/bytes/100000", "/echo"]) {
    const answer = await request(OPEN + path, { dispatcher });
    told(answer);
    shown.body(await answer.body.arrayBuffer());
  }
  await dispatcher.close();
}

async function at_once() {
  const client = new Client(OPEN, { allowH2: true, connect: { ca }, pipelining: 20 });
  await (await client.request({ method: "GET", path: "/" })).body.dump();
  const answers = await Promise.all([...Array(12).keys()].map(async (n) => {
    const answer = await client.request({ method: "GET", path: `/bytes/${n * 1000}` });
    return answer.body.arrayBuffer();
  }));
  answers.forEach(shown.body);
  await client.close();
}

await shown.chosen({ plain, http2, at_once })();
