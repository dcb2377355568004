// Colours code: comments, strings, numbers and words that many languages reserve. One pass, no grammar of any language.

import { h } from "./element.js";

// Beyond this a block is shown plain: it is looked through again with every token that arrives.
const LONGEST = 60_000;

const DOUBLE = String.raw`"(?:[^"\\\n]|\\.)*"`;
const QUOTED = String.raw`${DOUBLE}|'(?:[^'\\\n]|\\.)*'`;
const SLASHES = String.raw`\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)`;
const NUMBER = String.raw`\b(?:0[xob][\da-f_]+|\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)[a-z\d]*\b`;
const WORD = String.raw`[A-Za-z_$][\w$]*`;

const FAMILIES = [
  {
    languages: "python py bash sh shell zsh fish ruby rb yaml yml toml ini r perl make makefile dockerfile elixir nix console",
    comment: String.raw`#[^\n]*`,
    string: String.raw`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${QUOTED}`,
  },
  {
    languages: "js javascript jsx ts typescript tsx go golang",
    comment: SLASHES,
    string: String.raw`${QUOTED}|${"`"}(?:[^${"`"}\\]|\\[^])*(?:${"`"}|$)`,
  },
  { languages: "c cpp c++ h hpp java kotlin swift cs csharp scala php dart zig css scss wgsl glsl json jsonc json5", comment: SLASHES, string: QUOTED },
  // A lone apostrophe starts a lifetime.
  { languages: "rust rs", comment: SLASHES, string: String.raw`${DOUBLE}|'(?:[^'\\\n]|\\[^'\n]+)'` },
  { languages: "sql lua haskell hs ada", comment: String.raw`--[^\n]*|\/\*[^]*?(?:\*\/|$)`, string: QUOTED },
  { languages: "html xml svg vue", comment: String.raw`<!--[^]*?(?:-->|$)`, string: DOUBLE },
];

const KEYWORDS = new Set(
  (
    "abstract and as assert async await begin bool break case catch char class const continue crate def default defer del delete do done " +
    "double elif else elsif end enum esac except export extends extern false final finally float fn for foreach from func function " +
    "global go goto if impl import in include inline int interface is lambda let local long loop match mod module move mut namespace " +
    "new nil None not null or override package pass private protected pub public raise ref return self short signed sizeof static " +
    "struct super switch template then this throw trait true True False try type typedef typeof undefined union unless unsafe unsigned until use using " +
    "val var virtual void volatile when where while with yield echo fi select insert update create table join group order by limit set values into"
  ).split(" "),
);

const patterns = new Map();

/** The nodes of some code; plain where the language is not known. */
export function highlight(code, language) {
  const name = language.toLowerCase();
  const pattern = patternOf(name);
  if (!pattern || code.length > LONGEST) return [code];
  const nodes = [];
  let plain = 0;
  for (const found of code.matchAll(pattern)) {
    const type = typeOf(found.groups, name);
    if (!type) continue;
    nodes.push(code.slice(plain, found.index), h("span", { class: `code-${type}` }, found[0]));
    plain = found.index + found[0].length;
  }
  nodes.push(code.slice(plain));
  return nodes;
}

function patternOf(language) {
  if (!patterns.has(language)) {
    const family = FAMILIES.find(({ languages }) => languages.split(" ").includes(language));
    const source = family && `(?<comment>${family.comment})|(?<string>${family.string})|(?<number>${NUMBER})|(?<keyword>${WORD})`;
    patterns.set(language, source ? new RegExp(source, "gi") : null);
  }
  return patterns.get(language);
}

function typeOf(groups, language) {
  const type = Object.keys(groups).find((name) => groups[name] !== undefined);
  if (type !== "keyword") return type;
  return KEYWORDS.has(language === "sql" ? groups.keyword.toLowerCase() : groups.keyword) ? type : null;
}
