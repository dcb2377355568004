// Keeps conversations in this browser's storage, within limits. Owns what is stored; shows nothing.
//
// A conversation: { id, title, model, settings, created, updated, turns }. A turn of the user: { role: "user", content };
// of the assistant: { role: "assistant", answers, shown }, of which `answers[shown]` counts (see answer.js).

import { end } from "./answer.js";

const INDEX = "downshift.chats";
const CHAT = "downshift.chat.";
const SETTINGS = "downshift.settings";
const MOST_CHATS = 200;
// Browsers give a site about 5 M characters; the rest is for what else is kept.
const MOST_CHARACTERS = 4_000_000;

const storage = usable();

/** What is kept of every conversation, the latest first: { id, title, updated, size }. */
export function list() {
  const index = parse(storage.getItem(INDEX));
  return Array.isArray(index) ? index.filter((entry) => typeof entry?.id === "string") : [];
}

/** A new conversation, not kept before it is saved. */
export function create() {
  const now = Date.now();
  return { id: newId(now), title: "", model: "", settings: settings(), created: now, updated: now, turns: [] };
}

/** The conversation, or null. An answer that was cut off by the page's end says so. */
export function load(id) {
  const chat = parse(storage.getItem(CHAT + id));
  if (!Array.isArray(chat?.turns)) return null;
  // What was imported, or kept by another version, may be anything.
  chat.title = String(chat.title ?? "");
  chat.settings = object(chat.settings);
  chat.turns = chat.turns.filter(isTurn);
  for (const turn of chat.turns.filter((turn) => turn.answers && !turn.answers[turn.shown])) turn.shown = 0;
  for (const answer of chat.turns.flatMap((turn) => turn.answers ?? [])) {
    if (answer.state === "waiting" || answer.state === "writing") {
      end(answer, "failed", answer.started + (answer.firstMs ?? 0), {
        message: "The page was closed before the answer was complete.",
        type: "broken_stream",
      });
    }
  }
  return chat;
}

/** Keeps the conversation, first in the list where `touch`. Returns the titles that had to go to make room. */
export function save(chat, { touch = false } = {}) {
  if (touch) chat.updated = Date.now();
  const text = JSON.stringify(chat);
  const entry = { id: chat.id, title: chat.title, updated: chat.updated, size: text.length };
  const index = [entry, ...list().filter((other) => other.id !== chat.id)].sort((a, b) => b.updated - a.updated);
  const gone = [];
  const dropLast = () => {
    const last = index.findLastIndex((other) => other.id !== chat.id);
    if (last < 0) return false;
    const [removed] = index.splice(last, 1);
    storage.removeItem(CHAT + removed.id);
    gone.push(removed.title);
    return true;
  };
  const size = () => index.reduce((sum, other) => sum + (other.size ?? 0), 0);
  while ((index.length > MOST_CHATS || size() > MOST_CHARACTERS) && dropLast());
  for (;;) {
    try {
      storage.setItem(CHAT + chat.id, text);
      storage.setItem(INDEX, JSON.stringify(index));
      return gone;
    } catch (error) {
      // The site's room is used up, by another tab perhaps.
      if (!dropLast()) throw error;
    }
  }
}

/** Forgets the conversation. */
export function remove(id) {
  storage.removeItem(CHAT + id);
  storage.setItem(INDEX, JSON.stringify(list().filter((entry) => entry.id !== id)));
}

/** The settings that new conversations start with. */
export function settings() {
  return object(parse(storage.getItem(SETTINGS)));
}

export function setSettings(value) {
  storage.setItem(SETTINGS, JSON.stringify(value));
}

/** A small preference, such as the theme; null clears it. */
export function prefer(name, value) {
  if (value === null) storage.removeItem(`downshift.${name}`);
  else storage.setItem(`downshift.${name}`, value);
}

export function preference(name) {
  return storage.getItem(`downshift.${name}`);
}

/** Everything, as text to keep elsewhere. */
export function exportAll() {
  return JSON.stringify({ format: "downshift-chats-1", chats: list().map((entry) => load(entry.id)) }, null, 1);
}

/** Takes in what `exportAll` gave; returns how many conversations came. Throws on any other text. */
export function importAll(text) {
  const file = JSON.parse(text);
  if (file?.format !== "downshift-chats-1" || !Array.isArray(file.chats)) throw new Error("not a file of conversations");
  const whole = file.chats.filter((chat) => typeof chat?.id === "string" && Array.isArray(chat.turns));
  for (const chat of whole) {
    chat.title = String(chat.title ?? "");
    chat.updated = Number(chat.updated) || Date.now();
    save(chat);
  }
  return whole.length;
}

/** A conversation as Markdown. */
export function markdown(chat) {
  const parts = [`# ${chat.title}`];
  if (chat.settings.system) parts.push(`> ${chat.settings.system.replaceAll("\n", "\n> ")}`);
  for (const turn of chat.turns) {
    if (turn.role === "user") {
      parts.push("## You", turn.content);
    } else {
      const answer = turn.answers[turn.shown];
      parts.push(`## ${answer.model ?? "No answer"}`, answer.content);
      if (answer.error) parts.push(`*${answer.error.message}*`);
    }
  }
  return `${parts.join("\n\n")}\n`;
}

function isTurn(turn) {
  if (turn?.role === "user") return typeof turn.content === "string";
  return turn?.role === "assistant" && Array.isArray(turn.answers) && turn.answers.length > 0 && turn.answers.every(isAnswer);
}

function isAnswer(answer) {
  const texts = [answer?.content, answer?.reasoning];
  const lists = [answer?.attempts, answer?.takeovers];
  return texts.every((text) => typeof text === "string") && lists.every((list) => Array.isArray(list) && list.every((entry) => entry !== null));
}

function object(value) {
  return value !== null && typeof value === "object" ? value : {};
}

function newId(now) {
  const random = crypto.getRandomValues(new Uint32Array(2));
  return `${now.toString(36)}-${random[0].toString(36)}${random[1].toString(36)}`;
}

function parse(text) {
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

/** The browser's storage, or one that lasts as long as the page where there is none. */
function usable() {
  try {
    localStorage.setItem("downshift.probe", "");
    localStorage.removeItem("downshift.probe");
    return localStorage;
  } catch {
    const kept = new Map();
    return {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, value) => kept.set(name, value),
      removeItem: (name) => kept.delete(name),
    };
  }
}
