// Says in the conversation why a gear was dropped and why an answer failed.

import { h, icon } from "./element.js";
import { answersBecause, continuedBecause, duration, reason } from "./wording.js";

const STAGES = {
  admission: "before it started",
  load: "while loading",
  prefill: "while reading the chat",
  decode: "while writing",
};

/** Why an answer came from another model than the one asked; what each of them met is folded. */
export function instead(answer) {
  // Within a text the next model took over; before it, the first to write was the one that answered.
  const model = answer.takeovers[0]?.from ?? answer.model;
  const sentence = h("span", {}, h("b", {}, model), answersBecause(model, answer.attempts[0]));
  return h("details", { class: "shift" }, h("summary", {}, icon("drop"), sentence), attempts(answer.attempts));
}

/** That another model went on within the text. */
export function takeover(step) {
  const sentence = h("span", {}, h("b", {}, step.to ?? "Another model"), continuedBecause(step));
  return h("p", { class: "shift" }, icon("drop"), sentence);
}

/** The models that were tried, each with what happened to it. */
export function attempts(list) {
  return h(
    "ul",
    { class: "attempts" },
    list.map((attempt) => {
      const facts = [attempt.device, STAGES[attempt.stage] ?? attempt.stage, Number.isFinite(attempt.ms) ? duration(attempt.ms) : null];
      return h(
        "li",
        {},
        h("b", {}, attempt.model ?? "?"),
        ` ${attempt.message || reason(attempt.kind)}`,
        h("span", {}, facts.filter(Boolean).join(" · ")),
      );
    }),
  );
}

/** An error's card. `actions` (again, newChat, enterKey) may be null, where nothing can be done any more. */
export function failure(answer, actions) {
  const { error } = answer;
  const tooLong = error.code === "context_length_exceeded";
  const button = (text, onclick, kind = "") => actions && h("button", { type: "button", class: `small ${kind}`, onclick }, text);
  return h(
    "div",
    { class: "failure", role: "group", "aria-label": "Error" },
    h("p", {}, h("b", {}, headline(error, tooLong)), " ", explanation(answer, tooLong)),
    error.attempts?.length > 0 && attempts(error.attempts),
    h(
      "div",
      { class: "row" },
      error.status === 401 && button("Enter the key", actions?.enterKey, "primary"),
      tooLong && button("New chat", actions?.newChat, "primary"),
      button("Try again", actions?.again, error.status === 401 || tooLong ? "" : "primary retry"),
    ),
  );
}

function headline(error, tooLong) {
  if (tooLong) return "This chat is longer than the model can take.";
  if (error.type === "unreachable") return "The server cannot be reached.";
  if (error.type === "broken_stream") return error.message;
  if (error.status === 401) return "The server asks for an API key.";
  if (error.attempts?.length > 0) return "No model could answer.";
  if (error.status === 429 || error.status === 503) return "The server cannot answer right now.";
  if (error.status >= 400 && error.status < 500) return "The server did not accept this.";
  return "The answer failed.";
}

function explanation({ content, error }, tooLong) {
  const parts = [];
  if (error.type === "unreachable") parts.push("Is “downshift serve” still running?");
  else if (tooLong || (error.type !== "broken_stream" && !error.attempts?.length)) parts.push(sentence(error.message));
  if (error.retryAfter) parts.push(`It says to try again in ${error.retryAfter} s.`);
  if (content) parts.push("What arrived is kept.");
  return parts.join(" ");
}

function sentence(text) {
  const upper = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(upper) ? upper : `${upper}.`;
}
