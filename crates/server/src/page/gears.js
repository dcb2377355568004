// Shows the models and the memory they take. Owns its section; what to show comes from the watch.

import { h } from "./element.js";
import { bytes } from "./wording.js";

/** Shows models as rows that can be picked, `picked` among them, below a bar of the memory they share. */
export class Gears {
  #element;
  #pick;
  #shown = "";

  constructor(element, pick) {
    this.#element = element;
    this.#pick = pick;
  }

  show({ models, props, error }, picked) {
    const facts = JSON.stringify([models, props?.memory, error !== null, picked]);
    if (facts === this.#shown) return;
    this.#shown = facts;
    const focused = this.#element.contains(document.activeElement) ? document.activeElement.dataset.model : null;
    this.#element.replaceChildren(
      h("h2", {}, "Models"),
      h("ul", { class: error ? "stale" : null }, models.map((model) => this.#row(model, picked, props?.memory?.limit_bytes))),
      ...memory(models, props?.memory),
    );
    if (focused) this.#element.querySelector(`[data-model="${CSS.escape(focused)}"]`)?.focus();
  }

  #row(model, picked, limit) {
    const { word, tone } = stateOf(model);
    const chats = model.kind !== "embedding";
    const share = limit > 0 && model.resident_bytes > 0 ? Math.min(1, model.resident_bytes / limit) : 0;
    const button = h(
      "button",
      {
        type: "button",
        "data-model": model.id,
        "aria-pressed": String(model.id === picked),
        disabled: !chats,
        title: hint(model),
        onclick: () => this.#pick(model.id),
      },
      h("span", { class: `dot ${tone}`, "aria-hidden": "true" }),
      h("span", { class: "model" }, model.id),
      h("span", { class: "size" }, bytes(model.size_bytes)),
      h("span", { class: `state ${tone}` }, word),
    );
    const bar = h("span", { class: "fill" });
    bar.style.width = `${(model.state === "loading" ? (model.progress ?? 0) : share) * 100}%`;
    const trouble = model.verdict !== "ok" && model.reason ? h("p", { class: "reason" }, model.reason) : null;
    return h("li", {}, button, h("span", { class: `bar ${tone}`, "aria-hidden": "true" }, bar), trouble);
  }
}

/** A model's state in a word, and a tone to colour it with. */
export function stateOf(model) {
  if (model.verdict === "quarantined") return { word: "cannot load", tone: "bad" };
  if (model.state === "loading") {
    return { word: model.progress === null ? "loading" : `loading ${Math.floor(model.progress * 100)} %`, tone: "moving" };
  }
  if (model.verdict === "cooling") return { word: "resting after a failure", tone: "warn" };
  if (model.state === "draining") return { word: "leaving", tone: "moving" };
  if (model.state === "ready") return { word: model.active_requests > 0 ? "answering" : "ready", tone: "good" };
  return { word: model.kind === "embedding" ? "embeddings" : "on disk", tone: "idle" };
}

function hint(model) {
  const lines = [model.kind === "embedding" ? "Makes embeddings; it cannot chat." : `Ask ${model.id}`];
  if (model.fallbacks?.length > 0) lines.push(`then ${model.fallbacks.join(", then ")}`);
  if (model.context) lines.push(`${model.context.toLocaleString("en")} tokens of context`);
  if (model.resident_bytes > 0) lines.push(`takes ${bytes(model.resident_bytes)} of memory`);
  if (model.device) lines.push(`on ${model.device}`);
  return lines.join("\n");
}

/** One bar: what each model takes, what else is taken, what is free. */
function memory(models, facts) {
  const limit = facts?.limit_bytes;
  if (!(limit > 0)) return [];
  const loaded = models.filter((model) => model.resident_bytes > 0);
  const ours = loaded.reduce((sum, model) => sum + model.resident_bytes, 0);
  const free = Math.min(facts.free_bytes ?? limit - ours, limit);
  const others = Math.max(0, limit - free - ours);
  const part = (kind, size, title) => {
    const element = h("span", { class: kind, title });
    element.style.width = `${(size / limit) * 100}%`;
    return element;
  };
  const label = `Models take ${bytes(ours)} of ${bytes(limit)}; ${bytes(free)} are free`;
  return [
    h(
      "div",
      { class: "memory", role: "img", "aria-label": label, title: facts.source ?? null },
      ...loaded.map((model) => part("ours", model.resident_bytes, `${model.id}: ${bytes(model.resident_bytes)}`)),
      part("others", others, `Other: ${bytes(others)}`),
    ),
    h("p", { class: "room", "aria-hidden": "true" }, h("span", {}, `${bytes(ours)} by models`), h("span", {}, `${bytes(free)} free`)),
  ];
}
