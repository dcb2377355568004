// Watches the server: asks for models and memory now and then, only while the page is seen. Shows nothing.

import { models, props } from "./api.js";

const CALM_MS = 5000;
const BUSY_MS = 800;
const LONGEST_PAUSE_MS = 15_000;

export class Watch {
  /** As `/v1/models` lists them; empty until the first answer. */
  models = [];
  /** As `/props` says; null until the first answer. */
  props = null;
  /** Why the last question was not answered, or null. */
  error = null;
  #changed;
  #busy = false;
  #timer = 0;
  #failures = 0;
  #asking = false;

  /** Calls `changed()` after every question, answered or not. */
  constructor(changed) {
    this.#changed = changed;
    document.addEventListener("visibilitychange", () => this.#schedule(0));
  }

  /** Asks now. */
  async ask() {
    if (this.#asking) return;
    this.#asking = true;
    clearTimeout(this.#timer);
    try {
      [this.models, this.props] = await Promise.all([models(), props()]);
      this.error = null;
      this.#failures = 0;
    } catch (error) {
      this.error = error;
      this.#failures += 1;
    }
    this.#asking = false;
    this.#changed();
    this.#schedule();
  }

  /** While somebody waits for a model, states are of more interest. */
  set busy(busy) {
    if (busy === this.#busy) return;
    this.#busy = busy;
    this.#schedule(busy ? 100 : CALM_MS);
  }

  /** The model that answers where none is chosen. */
  get defaultModel() {
    return this.models.find((model) => model.is_default)?.id ?? this.props?.default_model ?? null;
  }

  find(name) {
    return this.models.find((model) => model.id === name || model.aliases?.includes(name));
  }

  #schedule(ms = this.#pause()) {
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.ask(), ms);
  }

  #pause() {
    if (this.error) return Math.min(1500 * 1.6 ** this.#failures, LONGEST_PAUSE_MS);
    const moving = this.#busy || this.models.some((model) => model.state === "loading" || model.state === "draining");
    return moving ? BUSY_MS : CALM_MS;
  }
}
