// What an empty conversation shows: the gears in their order, and something to ask.

import { h } from "./element.js";

const SUGGESTIONS = ["What is 17 + 25?", "What is the capital of Japan?", "What happens when a model fails?"];
const MOST_STEPS = 4;

/** `chain` are the models in the order in which they are asked; `ask(text)` asks a suggestion. */
export function welcome(chain, ask) {
  const steps = chain.slice(0, MOST_STEPS).map((name, i) => h("li", { "data-step": i }, name));
  const explained =
    chain.length > 1
      ? "Runs on this machine. When the first model cannot answer, the next one does, and the answer says so."
      : "Runs on this machine. Every answer says which model gave it.";
  return h(
    "section",
    { class: "welcome" },
    h("h1", {}, "What would you like to know?"),
    steps.length > 0 && h("ol", { class: "chain", "aria-label": "Models in the order in which they are asked" }, steps),
    h("p", {}, explained),
    h("div", { class: "suggestions" }, SUGGESTIONS.map((text) => h("button", { type: "button", onclick: () => ask(text) }, text))),
  );
}
