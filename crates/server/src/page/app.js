// The page's one owner of state: the open conversation, the answers that are being written, what was last seen of the server.
// Everything shown follows from it.

import { accept, begin, end } from "./answer.js";
import { chat as ask, hasKey, setKey } from "./api.js";
import { Composer } from "./composer.js";
import { keycaps, openKey, openSettings, openShortcuts, requestFields } from "./dialogs.js";
import { download, h, icon } from "./element.js";
import { Gears } from "./gears.js";
import { Sidebar } from "./sidebar.js";
import * as store from "./store.js";
import { Thread } from "./thread.js";
import { announce, announceDrop, announceEnd, toast } from "./voice.js";
import { Watch } from "./watch.js";
import { welcome } from "./welcome.js";
import { count, title as titleOf } from "./wording.js";

const SAVE_EVERY_MS = 1500;
const THEMES = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const SHORTCUTS = [
  ["Enter", "Send"],
  ["Shift Enter", "New line"],
  ["Esc", "Stop the answer"],
  ["↑", "Edit the last message (in an empty field)"],
  ["mod K", "New chat"],
  ["Alt ↑", "Previous chat"],
  ["Alt ↓", "Next chat"],
  ["/", "Go to the message field"],
  ["mod B", "Show or hide the sidebar"],
  ["mod ,", "Settings of this chat"],
  ["?", "These shortcuts"],
];

const at = (id) => document.getElementById(id);
const scroller = at("scroller");

/** Answers being written: conversation id -> { chat, turn, stop }. */
const runs = new Map();
/** Drafts that were not sent: conversation id -> text. */
const drafts = new Map();
let chat = store.create();
let shownChain = "";
let follow = true;
let keyRefused = false;
let leaving = false;

const watch = new Watch(serverChanged);
const gears = new Gears(at("gears"), pick);
const sidebar = new Sidebar({ open, remove });
const composer = new Composer({
  send: submit,
  stop: () => runs.get(chat.id)?.stop(),
  pick,
  editLast: () => thread.editLast(),
});
const thread = new Thread(at("thread"), {
  again,
  edit,
  waiting,
  turned: () => keep(chat),
  newChat,
  enterKey: askForKey,
});

listen();
showTheme();
for (const element of document.querySelectorAll("[data-keys]")) element.replaceChildren(...keycaps(element.dataset.keys));
chat = store.load(location.hash.slice(1)) ?? chat;
show();
watch.ask();

function show() {
  showThread();
  showList();
  showServer();
  composer.running = runs.has(chat.id);
  at("title").value = chat.title;
  at("title").disabled = at("export").disabled = chat.turns.length === 0;
  document.title = chat.title ? `${chat.title} · downshift` : "downshift";
  scrollDown();
}

function showThread() {
  shownChain = chain().join("\n");
  thread.show(chat, welcome(chain(), submit));
}

/** The models that this conversation may be answered by, in order. */
function chain() {
  const picked = watch.find(chat.model || watch.defaultModel);
  return picked ? [picked.id, ...(chat.settings.only ? [] : (picked.fallbacks ?? []))] : [];
}

function showList() {
  sidebar.show(store.list(), chat.id, runs);
}

/** Shows what was last seen of the server: models, memory, whether it answers. */
function showServer() {
  const picked = chat.model || watch.defaultModel;
  gears.show(watch, picked);
  const chatting = watch.models.filter((model) => model.kind !== "embedding");
  composer.offer(chatting.map((model) => model.id), picked);
  at("version").textContent = watch.props?.version ? `v${watch.props.version}` : "";
  const offline = at("offline");
  offline.hidden = watch.error === null;
  if (watch.error) {
    offline.firstChild.textContent = watch.error.status === 401 ? "The server asks for an API key." : `${watch.error.message} Trying again…`;
    offline.lastChild.textContent = watch.error.status === 401 ? "Enter the key" : "Try now";
  }
}

function serverChanged() {
  showServer();
  if (watch.error?.status === 401 && !keyRefused) askForKey();
  const run = runs.get(chat.id);
  if (run) thread.update(run.turn);
  else if (chat.turns.length === 0 && chain().join("\n") !== shownChain) showThread();
}

/** What an answer without words waits for. */
function waiting(answer) {
  const loading = watch.models.find((model) => model.state === "loading");
  if (loading) {
    const part = loading.progress === null ? "" : `, ${Math.floor(loading.progress * 100)}\u00a0%`;
    return { text: `${loading.id} is loading${part}`, progress: loading.progress };
  }
  return { text: answer.notice || "reading", progress: null };
}

function submit(text) {
  if (runs.has(chat.id) || text.trim() === "") return;
  if (chat.turns.length === 0) chat.title = titleOf(text);
  const turn = { role: "assistant", answers: [], shown: 0 };
  chat.turns.push({ role: "user", content: text.trim() }, turn);
  composer.text = "";
  drafts.delete(chat.id);
  follow = true;
  run(chat, turn);
}

function again(turn) {
  if (runs.has(chat.id)) return;
  // A failure that left nothing is not worth going back to.
  turn.answers = turn.answers.filter((answer) => answer.content || answer.reasoning || answer.state === "done");
  follow = true;
  run(chat, turn);
}

function edit(index, text) {
  if (runs.has(chat.id)) return;
  const before = chat.turns.slice(index);
  const edited = chat;
  chat.turns.splice(index);
  if (index === 0) chat.title = titleOf(text);
  submit(text);
  if (before.length > 2) {
    toast("Later messages were replaced.", "Undo", () => {
      runs.get(edited.id)?.stop();
      edited.turns.splice(index, edited.turns.length, ...before);
      keep(edited);
      show();
    });
  }
}

/** Asks for an answer and writes it into the turn until it ends, one way or another. */
async function run(asked, turn) {
  const controller = new AbortController();
  const answer = begin(asked.model || watch.defaultModel, Date.now());
  const messages = messagesOf(asked, turn);
  turn.answers.push(answer);
  turn.shown = turn.answers.length - 1;
  runs.set(asked.id, { chat: asked, turn, stop: () => controller.abort() });
  keep(asked, true);
  history.replaceState(null, "", `#${chat.id}`);
  watch.busy = true;
  show();
  announce("Waiting for the answer.");
  let saved = Date.now();
  try {
    const model = asked.model || watch.defaultModel;
    const request = { ...(model ? { model } : {}), messages, ...requestFields(asked.settings) };
    for await (const chunk of ask(request, controller.signal)) {
      const lost = answer.attempts.length + answer.takeovers.length;
      accept(answer, chunk, Date.now());
      if (answer.attempts.length + answer.takeovers.length > lost) announceDrop(answer);
      if (answer.state === "writing") watch.busy = false;
      paint(asked, turn);
      if (Date.now() - saved > SAVE_EVERY_MS) {
        keep(asked);
        saved = Date.now();
      }
    }
    end(answer, "done", Date.now());
  } catch (error) {
    // What was kept is an answer being written; `store.load` says what became of it.
    if (leaving) return;
    if (error.name === "AbortError") end(answer, "stopped", Date.now());
    else if (error.type === "broken_stream" && answer.finish) end(answer, "done", Date.now());
    else end(answer, "failed", Date.now(), error);
  }
  runs.delete(asked.id);
  watch.busy = runs.size > 0;
  keep(asked, true);
  if (asked.id === chat.id) {
    thread.update(turn);
    composer.running = false;
    if (follow) scrollDown();
  }
  showList();
  announceEnd(answer);
  if (answer.error?.status === 401) askForKey(() => asked.id === chat.id && again(turn));
  watch.ask();
}

/** The conversation up to a turn as the server takes it. Messages that got no answer are joined with the next. */
function messagesOf(asked, last) {
  const messages = asked.settings.system ? [{ role: "system", content: asked.settings.system }] : [];
  for (const turn of asked.turns) {
    if (turn === last) break;
    const content = turn.role === "user" ? turn.content : turn.answers[turn.shown].content;
    if (content === "") continue;
    const before = messages.at(-1);
    if (before?.role === turn.role) before.content += `\n\n${content}`;
    else messages.push({ role: turn.role, content });
  }
  return messages;
}

let frame = 0;

/** Shows a turn with the next frame, however many chunks arrive until then. A hidden page has no frames and needs none. */
function paint(asked, turn) {
  if (asked.id !== chat.id || frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    thread.update(turn);
    if (follow) scrollDown();
  });
}

function keep(kept, touch = false) {
  if (kept.turns.length === 0) return;
  try {
    const gone = store.save(kept, { touch });
    if (gone.length > 0) toast(`The oldest chat was removed to make room: ${gone.join(", ")}`);
  } catch {
    toast("This chat is too large for the browser to keep.");
  }
}

function newChat() {
  leave();
  chat = store.create();
  enter();
}

function open(id) {
  const next = runs.get(id)?.chat ?? store.load(id);
  if (!next) return;
  leave();
  chat = next;
  enter();
}

function leave() {
  if (composer.text.trim()) drafts.set(chat.id, composer.text);
  else drafts.delete(chat.id);
}

function enter() {
  history.replaceState(null, "", chat.turns.length > 0 ? `#${chat.id}` : location.pathname + location.search);
  composer.text = drafts.get(chat.id) ?? "";
  follow = true;
  sidebar.close();
  show();
  composer.focus();
}

function remove(id) {
  const removed = runs.get(id)?.chat ?? store.load(id);
  runs.get(id)?.stop();
  store.remove(id);
  if (id === chat.id) newChat();
  else showList();
  toast(`Deleted “${removed?.title}”.`, "Undo", () => {
    keep(removed);
    open(id);
  });
}

function pick(name) {
  chat.model = name === watch.defaultModel ? "" : name;
  keep(chat);
  showServer();
  if (chat.turns.length === 0) showThread();
  composer.focus();
}

function askForKey(then) {
  if (document.querySelector("dialog[open]")) return;
  keyRefused = true;
  openKey((key) => {
    setKey(key);
    keyRefused = false;
    watch.ask();
    if (typeof then === "function") then();
  });
}

function changeSettings() {
  const changed = () => {
    keep(chat);
    store.setSettings(chat.settings);
    if (chat.turns.length === 0) showThread();
  };
  openSettings(chat.settings, changed, {
    export: () => download("downshift-chats.json", "application/json", store.exportAll()),
    import: (text) => {
      try {
        toast(`${count(store.importAll(text), "chat")} came in.`);
      } catch {
        toast("This file holds no chats of downshift.");
      }
      showList();
    },
    clearKey: hasKey() ? () => setKey("") : null,
  });
}

function switchTheme() {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(store.preference("theme") ?? "auto") + 1) % names.length];
  store.prefer("theme", next === "auto" ? null : next);
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  showTheme();
}

function showTheme() {
  const theme = store.preference("theme") ?? "auto";
  at("theme").replaceChildren(icon(theme));
  at("theme").title = THEMES[theme];
  at("theme").setAttribute("aria-label", THEMES[theme]);
}

function scrollDown() {
  scroller.scrollTop = scroller.scrollHeight;
}

function listen() {
  scroller.addEventListener("scroll", () => {
    follow = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
    at("latest").hidden = follow;
  });
  at("latest").addEventListener("click", () => {
    follow = true;
    scrollDown();
    composer.focus();
  });
  at("title").addEventListener("change", () => {
    chat.title = at("title").value.trim() || chat.title;
    keep(chat);
    show();
  });
  at("title").addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "Escape") composer.focus();
  });
  at("new-chat").addEventListener("click", newChat);
  at("settings").addEventListener("click", changeSettings);
  at("shortcuts").addEventListener("click", () => openShortcuts(SHORTCUTS));
  at("theme").addEventListener("click", switchTheme);
  at("export").addEventListener("click", () => download(`${chat.title.replace(/[^\p{L}\p{N} -]/gu, "") || "chat"}.md`, "text/markdown", store.markdown(chat)));
  at("offline").lastChild.addEventListener("click", () => (watch.error?.status === 401 ? askForKey() : watch.ask()));
  document.addEventListener("keydown", shortcut);
  addEventListener("pagehide", () => {
    leaving = true;
    for (const run of runs.values()) keep(run.chat);
  });
  addEventListener("pageshow", () => {
    leaving = false;
  });
  addEventListener("storage", (event) => event.key?.startsWith("downshift.") && showList());
}

function shortcut(event) {
  const mod = event.ctrlKey || event.metaKey;
  const typing = event.target.closest?.("input, textarea, select") !== null;
  if (document.querySelector("dialog[open]")) return;
  const does = {
    k: mod && newChat,
    b: mod && (() => sidebar.toggle()),
    ",": mod && changeSettings,
    "/": mod ? () => openShortcuts(SHORTCUTS) : !typing && (() => composer.focus()),
    "?": !typing && (() => openShortcuts(SHORTCUTS)),
    ArrowUp: event.altKey && (() => step(-1)),
    ArrowDown: event.altKey && (() => step(1)),
    Escape: () => sidebar.close() || runs.get(chat.id)?.stop(),
  }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

/** Opens the chat above or below the open one in the list. */
function step(by) {
  const ids = store.list().map((entry) => entry.id);
  const here = ids.indexOf(chat.id);
  const next = here < 0 ? ids[0] : ids[here + by];
  if (next) open(next);
}
