// The only module that talks to the server. Every failure leaves it as an `ApiError`, but for a stop, which is an AbortError.

import { events } from "./sse.js";

const KEY = "downshift.key";

/** Why the server did not answer. `type` is the server's, or "unreachable" or "broken_stream", which are seen from here. */
export class ApiError extends Error {
  constructor(message, { status = 0, type = "error", code = null, attempts = [], retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, type, code, attempts, retryAfter });
  }
}

let key = read();

/** The API key that is sent along; empty: none. */
export function setKey(value) {
  key = value.trim();
  try {
    if (key) localStorage.setItem(KEY, key);
    else localStorage.removeItem(KEY);
  } catch {
    // Kept for as long as the page is open.
  }
}

export const hasKey = () => key !== "";

/** All models with their states, as `/v1/models` lists them. */
export async function models() {
  return (await json("v1/models")).data ?? [];
}

/** Facts of the server: version, default model, memory. */
export const props = () => json("props");

/**
 * Streams a chat completion: yields its chunks, and `{ comment }` for what the server says while it loads.
 * Throws where the answer is not complete, also when the stream just ends.
 */
export async function* chat(request, signal) {
  const response = await send("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  try {
    for await (const event of events(response.body)) {
      if (event.comment !== undefined) {
        yield event;
        continue;
      }
      if (event.data === "[DONE]") return;
      const chunk = JSON.parse(event.data);
      yield chunk;
      if (chunk.error) throw failure(chunk.error, 0, null);
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("The connection broke before the answer was complete.", { type: "broken_stream" });
  }
  throw new ApiError("The answer ended before it was complete.", { type: "broken_stream" });
}

async function json(path) {
  const response = await send(path, {});
  try {
    return await response.json();
  } catch {
    throw new ApiError(`What the server sent for /${path} is not JSON.`, { status: response.status });
  }
}

async function send(path, options) {
  const headers = key ? { ...options.headers, authorization: `Bearer ${key}` } : options.headers;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.", { type: "unreachable" });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw failure(body?.error, response.status, response.headers.get("retry-after"));
}

function failure(error, status, retryAfter) {
  const message = typeof error === "string" ? error : error?.message;
  return new ApiError(message || `The server answered with status ${status}.`, {
    status,
    type: error?.type ?? "error",
    code: error?.code ?? null,
    attempts: Array.isArray(error?.attempts) ? error.attempts : [],
    retryAfter: Number(retryAfter) || null,
  });
}

function read() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}
