// Markdown as models write it: blocks of paragraphs, headings, lists, quotes, tables and code, complete or still growing.
// Makes nodes out of text, never out of HTML; tags in the text are shown as they are.

import { copyButton, h } from "./element.js";
import { highlight } from "./highlight.js";
import { inline } from "./inline.js";

const DEEPEST = 8;
const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** Shows a growing text in an element: blocks that stayed the same keep their nodes, and with them selection and focus. */
export class MarkdownView {
  #element;
  #shown = [];

  constructor(element) {
    this.#element = element;
  }

  show(text) {
    const blocks = parse(text.split("\n"));
    let same = 0;
    while (same < blocks.length && same < this.#shown.length && blocks[same].source === this.#shown[same].source) same += 1;
    for (const old of this.#shown.splice(same)) old.node.remove();
    for (const block of blocks.slice(same)) {
      const node = render(block, 0);
      this.#element.append(node);
      this.#shown.push({ source: block.source, node });
    }
  }
}

/** The blocks of some lines: { type, source, .. }. `source` tells two blocks apart. */
function parse(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at += 1;
      continue;
    }
    const block = read(lines, at);
    block.source = `${block.type}\n${lines.slice(at, block.end).join("\n")}`;
    // Whether a block is over changes how it looks (a code block's missing end), so it is part of what it is.
    if (block.end < lines.length) block.source += "\n";
    blocks.push(block);
    at = block.end;
  }
  return blocks;
}

function read(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return readCode(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { type: "heading", level: heading[1].length, text: heading[2], end: at + 1 };
  if (RULE.test(line)) return { type: "rule", end: at + 1 };
  if (QUOTE.test(line)) return readQuote(lines, at);
  if (ITEM.test(line)) return readList(lines, at);
  if (isTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at);
}

/** A code block ends at a fence at least as long as the one that opened it, or at the end of the text. */
function readCode(lines, at, [, indent, fence, info]) {
  const close = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !close.test(lines[end])) end += 1;
  const code = lines.slice(at + 1, end).map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line.trimStart()));
  return { type: "code", language: info.trim().split(/[\s{,]/, 1)[0], code: code.join("\n"), end: Math.min(end + 1, lines.length) };
}

function readQuote(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  return { type: "quote", lines: lines.slice(at, end).map((line) => line.replace(QUOTE, "")), end };
}

/** Items of one list share the kind of their mark and their indent; deeper lines belong to the item above them. */
function readList(lines, at) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  let end = at;
  let inner = 0;
  let blank = false;
  let loose = false;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (line.trim() === "") {
      blank = true;
      items.at(-1)?.push("");
      continue;
    }
    const item = ITEM.exec(line);
    const depth = line.length - line.trimStart().length;
    if (item && depth < Math.max(inner, indent.length + 2) && !(items.length && depth >= inner) && !RULE.test(line)) {
      if (/\d/.test(item[2]) !== ordered || depth < indent.length) break;
      loose ||= blank && items.length > 0;
      inner = depth + item[2].length + Math.min(item[3]?.length ?? 1, 4);
      items.push([item[4] ?? ""]);
    } else if (depth >= Math.min(inner, indent.length + 2)) {
      items.at(-1).push(line.slice(Math.min(depth, inner)));
    } else if (!blank && !starts(lines, end)) {
      items.at(-1).push(line.trimStart());
    } else {
      break;
    }
    blank = false;
  }
  while (lines[end - 1].trim() === "") end -= 1;
  return { type: "list", ordered, first: Number.parseInt(mark, 10), loose, items, end };
}

function isTable(lines, at) {
  return lines[at].includes("|") && lines[at + 1]?.includes("-") && DELIMITERS.test(lines[at + 1])
    && cells(lines[at]).length === cells(lines[at + 1]).length;
}

function readTable(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const align = cells(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "centre" : "right") : null));
  return { type: "table", head: cells(lines[at]), align, rows: lines.slice(at + 2, end).map(cells), end };
}

/** The cells of a row; a bar behind a backslash does not part them. */
function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function readParagraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !starts(lines, end)) end += 1;
  return { type: "paragraph", text: lines.slice(at, end).map((line) => line.trim()).join("\n"), end };
}

/** Whether a block that may interrupt a paragraph starts here. A number does so only as "1", or a year at a line's start would. */
function starts(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || isTable(lines, at)
    || (item !== null && item[4] !== undefined && (!/\d/.test(item[2]) || /^1[.)]$/.test(item[2])));
}

function render(block, depth) {
  switch (block.type) {
    case "code":
      return renderCode(block);
    case "heading":
      // The page has its own headings of the first two levels.
      return h(`h${Math.min(block.level + 2, 6)}`, { class: `level-${block.level}` }, ...inline(block.text));
    case "rule":
      return h("hr");
    case "quote":
      return h("blockquote", {}, ...within(block.lines, depth));
    case "list":
      return h(
        block.ordered ? "ol" : "ul",
        { start: block.ordered && block.first !== 1 ? block.first : null, class: block.loose ? "loose" : null },
        block.items.map((item) => h("li", {}, ...listItem(item, depth))),
      );
    case "table":
      return renderTable(block);
    default:
      return h("p", {}, ...inline(block.text));
  }
}

/** Blocks in a block; beyond a depth that nobody writes they are one paragraph. */
function within(lines, depth) {
  if (depth >= DEEPEST) return inline(lines.join("\n"), DEEPEST);
  return parse(lines).map((block) => render(block, depth + 1));
}

/** An item's nodes, its first paragraph without a paragraph's space; "[ ]" and "[x]" are boxes. */
function listItem(lines, depth) {
  const task = /^\[([ xX])\]\s+/.exec(lines[0]);
  const nodes = within(task ? [lines[0].slice(task[0].length), ...lines.slice(1)] : lines, depth);
  const tight = nodes.flatMap((node, i) => (i === 0 && node.tagName === "P" ? [...node.childNodes] : [node]));
  return task ? [h("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": "Task" }), " ", ...tight] : tight;
}

function renderCode({ language, code }) {
  return h(
    "figure",
    { class: "code" },
    h("figcaption", {}, h("span", {}, language || "text"), copyButton("Copy the code", () => code)),
    h("pre", { tabindex: 0 }, h("code", {}, ...highlight(code, language))),
  );
}

function renderTable({ head, align, rows }) {
  const row = (name, texts) => h("tr", {}, head.map((_, i) => h(name, { class: align[i] }, ...inline(texts[i] ?? ""))));
  return h(
    "div",
    { class: "table", tabindex: 0, role: "group", "aria-label": "Table" },
    h("table", {}, h("thead", {}, row("th", head)), h("tbody", {}, rows.map((texts) => row("td", texts)))),
  );
}
