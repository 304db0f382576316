// Node's own fetch.

import * as shown from "./shown.mjs";

const OPEN = "https://open.example";

async function show(answer) {
  shown.head(answer.status, answer.statusText, answer.headers.entries());
  shown.body(await answer.arrayBuffer());
}

async function plain() {
  await show(await fetch(`${OPEN}/echo?q=ä`, { headers: { "X-MiXed": "1", "x-other": "2" } }));
  await show(await fetch(`${OPEN}/echo`, { method: "POST", body: JSON.stringify({ a: 1 }), headers: { "content-type": "application/json" } }));
  await show(await fetch(`${OPEN}/redirect/302`));
  await show(await fetch(`${OPEN}/status/404`));
  await show(await fetch(`${OPEN}/encoded/br`));
  await show(await fetch(`${OPEN}/encoded/gzip`));
  await show(await fetch(`${OPEN}/bytes/10`, { method: "HEAD" }));
  const answer = await fetch(`${OPEN}/cookies`);
  console.log(answer.headers.getSetCookie());
}

async function upload() {
  const pieces = async function* () {
    for (let number = 0; number < 20; number++) yield new TextEncoder().encode(`piece ${number}\n`.repeat(500));
  };
  await show(await fetch(`${OPEN}/echo`, { method: "PUT", body: ReadableStream.from(pieces()), duplex: "half" }));
}

async function events() {
  const answer = await fetch(`${OPEN}/sse?n=5&ms=20`);
  let text = "";
  for await (const chunk of answer.body) text += Buffer.from(chunk).toString();
  console.log(text);
}

async function left() {
  const stop = new AbortController();
  const answer = await fetch(`${OPEN}/sse?n=1000&ms=20`, { signal: stop.signal });
  try {
    let seen = 0;
    for await (const chunk of answer.body) if (++seen === 3) stop.abort();
  } catch (error) {
    console.log(error.name);
  }
}

// gRPC-web is a request like any other to a client; its trailers are in the body.
async function grpc_web() {
  const message = Buffer.concat([Buffer.from([0, 0, 0, 0, 5]), Buffer.from("hello")]);
  const headers = { "content-type": "application/grpc-web+proto", "x-grpc-web": "1", accept: "application/grpc-web+proto" };
  await show(await fetch(`${OPEN}/lab.Echo/Unary`, { method: "POST", body: message, headers }));
}

await shown.chosen({ plain, upload, events, left, grpc_web })();
