// What the page says in passing: to those who hear it, and in messages that go by themselves.

import { tokens } from "./answer.js";
import { h } from "./element.js";
import { answersBecause, continuedBecause, count } from "./wording.js";

const TOAST_MS = 8000;

/** Says something to those who hear the page; it is not seen. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** That a gear was dropped. */
export function announceDrop(answer) {
  const step = answer.takeovers.at(-1);
  if (step) announce(`${step.to}${continuedBecause(step)}`);
  else announce(`${answer.model}${answersBecause(answer.model, answer.attempts[0])}`);
}

/** That an answer is over: never its words, which would be read one by one. */
export function announceEnd(answer) {
  const size = tokens(answer);
  if (answer.state === "failed") announce(`The answer failed: ${answer.error.message}`);
  else if (answer.state === "stopped") announce("Stopped.");
  else announce(`${answer.model ?? "The model"} has answered${size ? ` in ${count(size, "token")}` : ""}.`);
}

/** A message that goes by itself, with one thing to do about it. */
export function toast(text, does, action) {
  const element = h("div", { class: "toast" }, h("span", {}, text));
  const close = () => element.remove();
  if (does) {
    const act = () => {
      close();
      action();
    };
    element.append(h("button", { type: "button", class: "small", onclick: act }, does));
  }
  document.getElementById("toasts").replaceChildren(element);
  setTimeout(close, TOAST_MS);
}
