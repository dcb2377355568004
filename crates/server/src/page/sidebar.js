// Shows the list of conversations, and shows or hides the sidebar, which on a small screen lies over the page.

import { h, iconButton } from "./element.js";
import { prefer } from "./store.js";

const SMALL = matchMedia("(max-width: 760px)");

/** `actions`: open(id), remove(id). */
export class Sidebar {
  #element = document.getElementById("sidebar");
  #backdrop = document.getElementById("backdrop");
  #list = document.getElementById("conversations");
  #showButton = document.getElementById("show-sidebar");
  #actions;
  #over = false;

  constructor(actions) {
    this.#actions = actions;
    this.#showButton.addEventListener("click", () => this.toggle());
    document.getElementById("hide-sidebar").addEventListener("click", () => this.toggle());
    this.#backdrop.addEventListener("click", () => this.close());
    SMALL.addEventListener("change", () => this.#place(false));
    this.#place(false);
  }

  /** `entries` as `store.list()` gives them; the ids in `running` are being answered. */
  show(entries, current, running) {
    const focused = document.activeElement?.closest("#conversations li")?.dataset.id;
    this.#list.replaceChildren(
      ...entries.map(({ id, title }) =>
        h(
          "li",
          { "data-id": id, class: running.has(id) ? "running" : null },
          h("button", { type: "button", class: "open", "aria-current": id === current ? "true" : null, title, onclick: () => this.#actions.open(id) }, title || "New chat"),
          iconButton("bin", `Delete “${title}”`, () => this.#actions.remove(id)),
        ),
      ),
    );
    if (focused) this.#list.querySelector(`li[data-id="${CSS.escape(focused)}"] .open`)?.focus();
  }

  toggle() {
    if (SMALL.matches) {
      this.#place(!this.#over);
      if (this.#over) document.getElementById("new-chat").focus();
      else this.#showButton.focus();
      return;
    }
    const root = document.documentElement;
    const hide = root.dataset.sidebar !== "hidden";
    if (hide) root.dataset.sidebar = "hidden";
    else delete root.dataset.sidebar;
    prefer("sidebar", hide ? "hidden" : null);
    this.#place(false);
    (hide ? this.#showButton : document.getElementById("hide-sidebar")).focus();
  }

  /** Closes it where it lies over the page; whether it did. */
  close() {
    const closed = this.#over;
    this.#place(false);
    if (closed) this.#showButton.focus();
    return closed;
  }

  #place(over) {
    this.#over = over;
    this.#element.classList.toggle("over", over);
    this.#backdrop.hidden = !over;
    this.#element.inert = SMALL.matches ? !over : document.documentElement.dataset.sidebar === "hidden";
    document.querySelector("main").inert = over;
    this.#showButton.setAttribute("aria-expanded", String(!this.#element.inert));
  }
}
