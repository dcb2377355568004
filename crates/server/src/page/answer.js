// An answer as it grows: folds the chunks of a stream into one plain object that can be shown and kept. Pure.
//
// `state` is "waiting" (nothing shown yet), "writing", "done", "stopped" (by the user) or "failed". What arrived is kept in
// every state. `attempts` are the models that failed before the first token; `takeovers` the changes of gear within the text.

/** An answer that was just asked for. `requested` is the model's name, if known. */
export function begin(requested, now) {
  return {
    state: "waiting",
    requested,
    model: null,
    content: "",
    reasoning: "",
    attempts: [],
    takeovers: [],
    notice: "",
    finish: null,
    error: null,
    timings: null,
    usage: null,
    started: now,
    firstMs: null,
    thoughtMs: null,
    totalMs: null,
    pieces: 0,
  };
}

/** Takes one chunk in. */
export function accept(answer, chunk, now) {
  if (chunk.comment !== undefined) {
    answer.notice = chunk.comment;
    return;
  }
  const before = answer.model;
  if (chunk.model) answer.model = chunk.model;
  if (chunk.fallback) shiftDown(answer, chunk.fallback, before);
  if (chunk.timings) answer.timings = chunk.timings;
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  if (choice.finish_reason) answer.finish = choice.finish_reason;
  const content = text(choice.delta?.content);
  const reasoning = text(choice.delta?.reasoning_content);
  if (content || reasoning) {
    answer.state = "writing";
    answer.firstMs ??= now - answer.started;
    answer.pieces += 1;
  }
  if (content && answer.reasoning) answer.thoughtMs ??= now - answer.started - answer.firstMs;
  answer.content += content;
  answer.reasoning += reasoning;
}

/** Ends the answer: "done", "stopped" or "failed" with what went wrong. */
export function end(answer, state, now, error = null) {
  answer.state = state;
  answer.totalMs = now - answer.started;
  answer.error = error && {
    message: error.message,
    type: error.type,
    code: error.code,
    status: error.status,
    attempts: error.attempts,
    retryAfter: error.retryAfter,
  };
}

/** Tokens per second: the server's measure, or pieces received so far. Null while that says nothing. */
export function speed(answer, now) {
  if (answer.timings?.predicted_per_second > 0) return answer.timings.predicted_per_second;
  const ms = (answer.totalMs ?? now - answer.started) - (answer.firstMs ?? 0);
  return answer.pieces > 4 && ms > 300 ? ((answer.pieces - 1) * 1000) / ms : null;
}

/** How many tokens it has, if the server said. */
export function tokens(answer) {
  return answer.usage?.completion_tokens ?? answer.timings?.predicted_n ?? null;
}

/** How many gears below the one asked for the last part was answered. */
export function gear(answer) {
  const lost = new Set([...answer.attempts.map((attempt) => attempt.model), ...answer.takeovers.map((step) => step.from)]);
  lost.delete(answer.model);
  return lost.size;
}

function shiftDown(answer, fallback, before) {
  if (fallback.requested) answer.requested = fallback.requested;
  if (Array.isArray(fallback.attempts)) answer.attempts.push(...fallback.attempts);
  if (fallback.from || (fallback.reason && before)) {
    answer.takeovers.push({ from: fallback.from ?? before, to: answer.model, reason: fallback.reason, at: answer.content.length });
  }
}

function text(value) {
  return typeof value === "string" ? value : "";
}
