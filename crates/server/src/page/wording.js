// Says numbers and failures in words. Pure.

const REASONS = {
  cannot_do: "it cannot do this",
  prompt_too_long: "the chat is too long for it",
  missing: "its file is missing",
  unreadable: "its file cannot be read",
  truncated: "its file is cut short",
  corrupt: "its file is damaged",
  unsupported_architecture: "its architecture is not supported",
  unsupported_type: "its number format is not supported",
  broken_tokenizer: "its tokenizer is broken",
  broken_template: "its chat template is broken",
  does_not_fit: "it does not fit into memory",
  out_of_memory: "it ran out of memory",
  non_finite: "its numbers were no longer finite",
  stalled: "it made no progress",
  first_token_timeout: "its first word took too long",
  too_slow: "it was too slow",
  timeout: "it ran out of time",
  device: "its device failed",
  crashed: "it crashed",
  panicked: "it crashed",
  protocol: "its process sent nonsense",
  empty_answer: "its answer was empty",
  invalid_json: "its answer was not valid JSON",
  queue_full: "it is busy",
  mock: "a failure was asked for",
};

/** What happened to a model, as a clause: "it ran out of memory". */
export function reason(kind) {
  return REASONS[kind] ?? `it failed (${String(kind ?? "unknown").replaceAll("_", " ")})`;
}

/** " answers, because large’s file is missing.", to follow the name of the model that answers after a failed attempt. */
export function answersBecause(model, failed) {
  if (failed.model === model) return ` answers at another try, because ${reason(failed.kind)}.`;
  return ` answers, because ${of(failed.model, reason(failed.kind))}.`;
}

/** " wrote the rest, because large ran out of memory.", to follow the name of the model that went on within the text. */
export function continuedBecause({ from, to, reason: kind }) {
  if (from === to) return ` began anew within this text, because ${reason(kind)}.`;
  return ` wrote the rest, because ${of(from, reason(kind))}.`;
}

function of(model, clause) {
  return clause.replace(/^its /, `${model}’s `).replace(/^it /, `${model} `);
}

/** Bytes in decimal units, as file managers show them: "3.0 MB". */
export function bytes(count) {
  if (!Number.isFinite(count)) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = count;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Milliseconds: "40 ms", "3.2 s", "2 min 5 s". */
export function duration(ms) {
  if (ms < 950) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Tokens per second, with as many digits as mean something. */
export function rate(perSecond) {
  return `${perSecond >= 99.5 ? Math.round(perSecond) : perSecond.toFixed(1)} tok/s`;
}

/** "1 token", "2 tokens". */
export function count(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

/** A first line as a title, cut between words. */
export function title(text) {
  const line = text.trim().split("\n", 1)[0].replace(/\s+/g, " ");
  if (line.length <= 60) return line || "New chat";
  const cut = line.slice(0, 60);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(" "), 40))}…`;
}
