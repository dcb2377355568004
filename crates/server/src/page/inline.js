// Markdown within a line: code, emphasis, links, line breaks. Makes nodes out of text, never out of HTML.

import { h } from "./element.js";

const DEEPEST = 8;
const SPECIAL = /[\\`*_~[!<\n]|h(?=ttps?:\/\/)/g;
const LINK = /!?\[((?:[^[\]\\]|\\.|\[[^[\]]*\])*)\]\(\s*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+"[^"]*")?\s*\)/y;
const ANGLE_LINK = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;
const BARE_LINK = /https?:\/\/[^\s<>"'`*]+/y;
const BREAK = /<br\s*\/?>/iy;
const EMPHASIS = [
  ["***", "em", "strong"],
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];

/** The nodes of a text. Links other than http, https and mailto stay text; images become links. */
export function inline(text, depth = 0) {
  const nodes = [];
  let plain = "";
  const flush = () => {
    if (plain) nodes.push(plain);
    plain = "";
  };
  const add = (node) => {
    flush();
    nodes.push(node);
  };
  // Delimiters for which no end was found: there is none for a later start either.
  const endless = new Set();
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    at = next;
    if (at === text.length) break;
    const found = depth < DEEPEST ? special(text, at, depth, endless) : null;
    if (found) {
      if (typeof found.node === "string") plain += found.node;
      else add(found.node);
      at = found.end;
    } else if (text[at] === "\n") {
      add(h("br"));
      at += 1;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  flush();
  return nodes;
}

/** What starts at `at`, as { node, end }, or null if it is plain text. */
function special(text, at, depth, endless) {
  switch (text[at]) {
    case "\\":
      return /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "") ? { node: text[at + 1], end: at + 2 } : null;
    case "`":
      return code(text, at, endless);
    case "[":
    case "!":
      return link(match(LINK, text, at), at, depth);
    case "<": {
      if (match(BREAK, text, at)) return { node: h("br"), end: BREAK.lastIndex };
      const found = match(ANGLE_LINK, text, at);
      return found && anchor(found[1], [found[1]], at + found[0].length);
    }
    case "h":
      return bare(text, at);
    default:
      return emphasis(text, at, depth, endless);
  }
}

function code(text, at, endless) {
  const fence = /`+/y;
  fence.lastIndex = at;
  const ticks = fence.exec(text)[0];
  const literally = { node: ticks, end: at + ticks.length };
  if (endless.has(ticks)) return literally;
  const others = /`+/g;
  others.lastIndex = at + ticks.length;
  for (let run = others.exec(text); run; run = others.exec(text)) {
    if (run[0] !== ticks) continue;
    const inner = text.slice(at + ticks.length, run.index).replaceAll("\n", " ");
    const padded = inner.length > 2 && inner.startsWith(" ") && inner.endsWith(" ") && inner.trim() !== "";
    return { node: h("code", {}, padded ? inner.slice(1, -1) : inner), end: run.index + ticks.length };
  }
  endless.add(ticks);
  return literally;
}

function emphasis(text, at, depth, endless) {
  for (const [mark, ...names] of EMPHASIS) {
    if (!text.startsWith(mark, at)) continue;
    const start = at + mark.length;
    const inWord = mark.includes("_") && /[\p{L}\p{N}]/u.test(text[at - 1] ?? "");
    if (inWord || endless.has(mark) || !/\S/.test(text[start] ?? "")) continue;
    for (let end = text.indexOf(mark, start + 1); end >= 0; end = text.indexOf(mark, end + 1)) {
      if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
      // "*a **b** c*": a single mark does not end at a double one.
      if (mark.length === 1 && (text[end + 1] === mark || text[end - 1] === mark)) continue;
      if (mark.includes("_") && /[\p{L}\p{N}]/u.test(text[end + mark.length] ?? "")) continue;
      const inner = inline(text.slice(start, end), depth + 1);
      return { node: names.reduce((children, name) => [h(name, {}, ...children)], inner)[0], end: end + mark.length };
    }
    endless.add(mark);
  }
  return null;
}

function link(found, at, depth) {
  if (!found) return null;
  const label = found[1] === "" ? [found[2]] : inline(found[1], depth + 1);
  return anchor(found[2], label, at + found[0].length);
}

/** An address that stands in the text; a full stop or an unopened bracket behind it is not part of it. */
function bare(text, at) {
  if (/[\p{L}\p{N}]/u.test(text[at - 1] ?? "")) return null;
  const found = match(BARE_LINK, text, at);
  if (!found) return null;
  let address = found[0].replace(/[.,;:!?\])]+$/, "");
  if (address.includes("(") && found[0][address.length] === ")") address += ")";
  return anchor(address, [address], at + address.length);
}

/** A link to a safe address, or null. */
function anchor(address, children, end) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  const node = h("a", { href: url.href, title: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
  return { node, end };
}

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}
