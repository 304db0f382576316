// What every script prints of an answer, and how it finds what its argument names.

import { createHash } from "node:crypto";

export function head(status, reason, fields) {
  console.log(status, reason);
  for (const [name, value] of fields) {
    if (name.toLowerCase() !== "date") console.log(`${name}: ${value}`);
  }
}

export function body(data) {
  const bytes = Buffer.from(data);
  console.log(bytes.length, createHash("sha256").update(bytes).digest("hex"));
  console.log(bytes.subarray(0, 300).toString());
}

export function chosen(functions) {
  return functions[process.argv[2]];
}
