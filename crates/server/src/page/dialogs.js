// The dialogs: settings of a chat, API key, shortcuts. A dialog is built when it opens and removed when it closes.

import { h, iconButton } from "./element.js";

const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 5, step: "any", hint: "0 is always the likeliest word; higher is freer" },
  { name: "max_tokens", label: "Longest answer", min: 1, max: 1_000_000, step: 1, hint: "in tokens" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: "any", hint: "likeliest words up to this probability" },
  { name: "top_k", label: "Top k", min: 0, max: 1_000_000, step: 1, hint: "this many of the likeliest words" },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: "any", hint: "words at least this likely beside the best" },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, hint: "the same answer again" },
];

/** The settings that become fields of a request; those that are not set are not sent. */
export function requestFields(settings) {
  const fields = Object.fromEntries(NUMBERS.map(({ name }) => [name, settings[name]]).filter(([, value]) => Number.isFinite(value)));
  return settings.only ? { ...fields, disable_fallbacks: true } : fields;
}

/** Edits `settings` in place; `changed()` after each change that is valid. `kept`: export(), import(text), clearKey() or null. */
export function openSettings(settings, changed, kept) {
  const system = h("textarea", { id: "system", rows: 4, placeholder: "How the model should answer, and who it is" });
  system.value = settings.system ?? "";
  system.addEventListener("input", () => {
    settings.system = system.value.trim() || undefined;
    changed();
  });
  const numbers = NUMBERS.map((field) => numberField(field, settings, changed));
  const only = h("input", { type: "checkbox", id: "only", checked: !settings.only });
  only.addEventListener("change", () => {
    settings.only = only.checked ? undefined : true;
    changed();
  });
  const reset = () => {
    for (const key of Object.keys(settings)) delete settings[key];
    changed();
    dialog.close();
    openSettings(settings, changed, kept);
  };
  const file = h("input", { type: "file", accept: "application/json,.json", class: "unseen", tabindex: -1, "aria-label": "File of conversations" });
  file.addEventListener("change", async () => kept.import(await file.files[0].text()));
  const dialog = open(
    "Settings of this chat",
    h("p", { class: "lead" }, "New chats start with these, too. An empty field means the model’s own default."),
    h("label", { class: "field", for: "system" }, "System prompt", system),
    h("div", { class: "grid" }, ...numbers),
    h("label", { class: "check" }, only, h("span", {}, "Change down a gear", h("small", {}, "When the model cannot answer, the next one does."))),
    h("hr"),
    h(
      "div",
      { class: "row start" },
      h("button", { type: "button", class: "small", onclick: reset }, "Reset"),
      h("button", { type: "button", class: "small", onclick: kept.export }, "Export all chats"),
      h("button", { type: "button", class: "small", onclick: () => file.click() }, "Import"),
      kept.clearKey && h("button", { type: "button", class: "small", onclick: kept.clearKey }, "Forget the API key"),
      file,
      h("button", { type: "button", class: "small primary end", onclick: () => dialog.close() }, "Done"),
    ),
  );
}

/** Asks for the API key; `given(key)` where one was entered. */
export function openKey(given) {
  const input = h("input", { type: "password", id: "key", required: true, autocomplete: "off", spellcheck: "false" });
  const submit = (event) => {
    event.preventDefault();
    dialog.close();
    given(input.value);
  };
  const dialog = open(
    "API key",
    h("p", { class: "lead" }, "This server answers only to those who have its key. It is kept in this browser and sent to this server alone."),
    h(
      "form",
      { onsubmit: submit },
      h("label", { class: "field", for: "key" }, "Key", input),
      h(
        "div",
        { class: "row" },
        h("button", { type: "button", class: "small", onclick: () => dialog.close() }, "Not now"),
        h("button", { class: "small primary" }, "Use this key"),
      ),
    ),
  );
  input.focus();
}

/** Lists the shortcuts, given as [keys, what they do]. */
export function openShortcuts(shortcuts) {
  open(
    "Keyboard shortcuts",
    h("dl", { class: "keys" }, shortcuts.flatMap(([keys, does]) => [h("dt", {}, ...keycaps(keys)), h("dd", {}, does)])),
  );
}

/** "mod K" as key caps; `mod` is Ctrl, or the command key where there is one. */
export function keycaps(keys) {
  const mac = /Mac|iPhone|iPad/.test(navigator.platform);
  const names = { mod: mac ? "⌘" : "Ctrl", Alt: mac ? "⌥" : "Alt" };
  return keys.split(" ").map((key) => h("kbd", {}, names[key] ?? key));
}

function numberField({ name, label, hint, ...limits }, settings, changed) {
  const input = h("input", { type: "number", id: name, inputmode: "decimal", placeholder: "default", "aria-describedby": `${name}-hint`, ...limits });
  if (Number.isFinite(settings[name])) input.value = settings[name];
  input.addEventListener("input", () => {
    if (!input.checkValidity()) return;
    settings[name] = input.value === "" ? undefined : input.valueAsNumber;
    changed();
  });
  input.addEventListener("blur", () => input.reportValidity());
  return h("label", { class: "field", for: name }, label, input, h("small", { id: `${name}-hint` }, hint));
}

function open(title, ...content) {
  const from = document.activeElement;
  const close = iconButton("close", "Close", () => dialog.close());
  const dialog = h("dialog", { "aria-label": title }, h("header", {}, h("h2", { tabindex: -1, autofocus: true }, title), close), ...content);
  dialog.addEventListener("close", () => {
    dialog.remove();
    from?.focus?.();
  });
  // A click beside the dialog lands on its backdrop, which is the dialog itself.
  dialog.addEventListener("mousedown", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
