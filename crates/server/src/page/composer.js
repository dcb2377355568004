// The message field with its buttons and the choice of a model. Owns what is being typed; what sending means is the caller's.

import { h, icon } from "./element.js";

const at = (id) => document.getElementById(id);

/** `actions`: send(text), stop(), pick(model), editLast(). */
export class Composer {
  #field = at("message");
  #button = at("send");
  #models = at("model");
  #running = false;
  #offered = "";

  constructor(actions) {
    const send = () => (this.#running ? actions.stop() : actions.send(this.text));
    at("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    this.#field.addEventListener("input", () => this.#fit());
    this.#field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!this.#running) send();
      } else if (event.key === "ArrowUp" && this.text === "" && !event.altKey) {
        event.preventDefault();
        actions.editLast();
      }
    });
    this.#models.addEventListener("change", () => actions.pick(this.#models.value));
  }

  get text() {
    return this.#field.value;
  }

  set text(text) {
    this.#field.value = text;
    this.#fit();
  }

  focus() {
    this.#field.focus();
  }

  /** Whether the button stops an answer or sends. */
  set running(running) {
    this.#running = running;
    this.#button.replaceChildren(icon(running ? "stop" : "send"));
    this.#button.setAttribute("aria-label", running ? "Stop" : "Send");
    this.#button.title = running ? "Stop (Esc)" : "Send (Enter)";
    this.#fit();
  }

  /** Offers the models to choose from, `picked` among them, which may be one that is not known (yet). */
  offer(models, picked) {
    const names = picked && !models.includes(picked) ? [picked, ...models] : models;
    if (names.join("\n") !== this.#offered) {
      this.#offered = names.join("\n");
      this.#models.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
    }
    this.#models.value = picked ?? "";
    this.#models.disabled = names.length === 0;
    this.#field.placeholder = picked ? `Ask ${picked}` : "Ask something";
  }

  /** The field is as high as its text, within the limit that the style sets; nothing is sent that is empty. */
  #fit() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
    this.#button.disabled = !this.#running && this.text.trim() === "";
  }
}
