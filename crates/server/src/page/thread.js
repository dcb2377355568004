// Shows a conversation. Owns the turns' elements; what a button does is the caller's (`actions`).

import { gear, speed, tokens } from "./answer.js";
import { copyButton, h, iconButton } from "./element.js";
import { MarkdownView } from "./markdown.js";
import { failure, instead, takeover } from "./notes.js";
import { count, duration, rate } from "./wording.js";

/**
 * `actions`: again(turn), edit(index, text), turned(turn), newChat(), enterKey(), and waiting(answer), which says what is
 * being waited for as { text, progress }.
 */
export class Thread {
  #element;
  #actions;
  #views = new Map();

  constructor(element, actions) {
    this.#element = element;
    this.#actions = actions;
  }

  /** Shows all of a conversation; `welcome` is shown where it has no turns. */
  show(chat, welcome) {
    this.#views.clear();
    const turns = chat.turns.map((turn, index) => {
      if (turn.role === "user") return this.#userTurn(turn, index);
      const view = new AnswerView(turn, index === chat.turns.length - 1, this.#actions);
      this.#views.set(turn, view);
      return view.element;
    });
    this.#element.replaceChildren(...(turns.length > 0 ? turns : [welcome]));
  }

  /** Shows what came to a turn's answer since the last time. */
  update(turn) {
    this.#views.get(turn)?.update();
  }

  /** Opens the last message of the user for editing. */
  editLast() {
    [...this.#element.querySelectorAll(".turn.user .edit")].at(-1)?.click();
  }

  #userTurn(turn, index) {
    const bubble = h("div", { class: "bubble" }, turn.content);
    const edit = iconButton("edit", "Edit and send again", () => this.#editor(element, turn, index), { class: "quiet edit" });
    const element = h(
      "article",
      { class: "turn user", "aria-label": "You" },
      bubble,
      h("div", { class: "actions" }, copyButton("Copy the message", () => turn.content), edit),
    );
    return element;
  }

  #editor(element, turn, index) {
    const shown = [...element.childNodes];
    const close = () => {
      element.replaceChildren(...shown);
      element.querySelector(".edit").focus();
    };
    const submit = (event) => {
      event.preventDefault();
      if (text.value.trim()) this.#actions.edit(index, text.value.trim());
    };
    const keys = (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        submit(event);
      }
    };
    const text = h("textarea", { rows: 1, "aria-label": "Edit the message", onkeydown: keys });
    text.value = turn.content;
    const buttons = [h("button", { type: "button", class: "small", onclick: close }, "Cancel"), h("button", { class: "small primary" }, "Send")];
    const hint = h("span", { class: "hint" }, "What follows this message is replaced.");
    element.replaceChildren(h("form", { class: "editor", onsubmit: submit }, text, h("div", { class: "row" }, hint, ...buttons)));
    text.focus();
    text.setSelectionRange(text.value.length, text.value.length);
  }
}

/** One turn of the assistant: the answer that is shown of those that were given. Parts change only where their facts did. */
class AnswerView {
  #turn;
  #isLast;
  #actions;
  #facts = new Map();
  #head = h("div", { class: "who" });
  #before = h("div", { class: "notes" });
  #thought = new Thought();
  #prose = h("div", { class: "prose" });
  #markdown = new MarkdownView(this.#prose);
  #after = h("div", { class: "notes" });
  #foot = h("div", { class: "foot" });

  constructor(turn, isLast, actions) {
    this.#turn = turn;
    this.#isLast = isLast;
    this.#actions = actions;
    this.element = h("article", { class: "turn assistant", "aria-label": "Answer" });
    this.element.append(this.#head, this.#before, this.#thought.element, this.#prose, this.#after, this.#foot);
    this.update();
  }

  get #answer() {
    return this.#turn.answers[this.#turn.shown];
  }

  update() {
    const answer = this.#answer;
    const waiting = answer.state === "waiting" ? this.#actions.waiting(answer) : null;
    const running = waiting !== null || answer.state === "writing";
    this.element.classList.toggle("running", running);
    this.#set(this.#head, [answer.model, answer.requested, gear(answer)], () => who(answer));
    this.#set(this.#before, [answer.attempts, answer.model], () => (answer.attempts.length && answer.model ? [instead(answer)] : []));
    this.#thought.show(answer);
    this.#markdown.show(answer.content);
    this.#set(this.#after, [waiting, answer.state, answer.takeovers, answer.finish, answer.error], () => [
      ...answer.takeovers.map(takeover),
      ...(waiting ? [wait(waiting)] : []),
      ...ending(answer, this.#isLast, this.#actions, this.#turn),
    ]);
    const live = running ? speed(answer, Date.now()) : null;
    this.#set(this.#foot, [answer.state, live?.toFixed(0), this.#turn.shown, this.#turn.answers.length], () => this.#footer(running));
  }

  #set(element, facts, build) {
    const key = JSON.stringify(facts);
    if (this.#facts.get(element) === key) return;
    this.#facts.set(element, key);
    element.replaceChildren(...build());
  }

  #footer(running) {
    const answer = this.#answer;
    const figures = h("span", { class: "figures", title: details(answer) }, figuresOf(answer).join(" · "));
    if (running) return [figures];
    return [
      h(
        "span",
        { class: "actions" },
        answer.content && copyButton("Copy the answer", () => answer.content),
        this.#isLast && iconButton("again", "Answer again", () => this.#actions.again(this.#turn), { class: "quiet again" }),
        this.#turn.answers.length > 1 && this.#pager(),
      ),
      figures,
    ];
  }

  #pager() {
    const { answers, shown } = this.#turn;
    const go = (to) => () => {
      this.#turn.shown = to;
      this.update();
      this.#actions.turned(this.#turn);
      const arrows = [...this.#foot.querySelectorAll(".pager button")];
      (arrows[to > shown ? 1 : 0].disabled ? arrows.find((arrow) => !arrow.disabled) : arrows[to > shown ? 1 : 0])?.focus();
    };
    return h(
      "span",
      { class: "pager", role: "group", "aria-label": "Answers to this message" },
      iconButton("left", "Previous answer", go(shown - 1), { disabled: shown === 0 }),
      h("span", {}, `${shown + 1}/${answers.length}`),
      iconButton("right", "Next answer", go(shown + 1), { disabled: shown === answers.length - 1 }),
    );
  }
}

/** What a model thought before it answered, folded. */
class Thought {
  #summary = h("summary");
  #body = h("div", { class: "prose" });
  #markdown = new MarkdownView(this.#body);
  element = h("details", { class: "thought", hidden: true }, this.#summary, this.#body);

  show(answer) {
    this.element.hidden = answer.reasoning === "";
    if (this.element.hidden) return;
    const thinking = answer.state === "writing" && answer.content === "";
    this.element.classList.toggle("busy", thinking);
    this.#summary.textContent = thinking ? "Thinking" : answer.thoughtMs === null ? "Thought" : `Thought for ${duration(answer.thoughtMs)}`;
    this.#markdown.show(answer.reasoning);
  }
}

/** The model's name behind a sign of its gear: full bars for the one asked for, fewer for each step down. */
function who(answer) {
  const lost = gear(answer);
  const sign = h("span", { class: "gear", "data-lost": Math.min(lost, 2), "aria-hidden": "true" }, h("i"), h("i"), h("i"));
  const name = answer.model ?? answer.requested;
  return name ? [sign, h("span", { class: "model" }, name)] : [sign];
}

function wait({ text, progress }) {
  const bar = progress === null ? null : h("progress", { max: 1, value: progress, "aria-label": text });
  return h("p", { class: "wait" }, h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), text, bar);
}

/** What is to be said about how the answer ended; nothing where it simply ended. */
function ending(answer, isLast, actions, turn) {
  if (answer.state === "failed") return [failure(answer, isLast ? { ...actions, again: () => actions.again(turn) } : null)];
  if (answer.state === "stopped") return [h("p", { class: "note" }, "Stopped.")];
  if (answer.finish === "length") return [h("p", { class: "note" }, "Ended at the limit of tokens.")];
  if (answer.state === "done" && !answer.content && !answer.reasoning) return [h("p", { class: "note" }, "The answer is empty.")];
  return [];
}

function figuresOf(answer) {
  const figures = [];
  const perSecond = speed(answer, Date.now());
  const total = tokens(answer);
  if (perSecond) figures.push(rate(perSecond));
  if (answer.state === "waiting" || answer.state === "writing") return figures;
  if (total) figures.push(count(total, "token"));
  if (answer.totalMs && (perSecond || total)) figures.push(duration(answer.totalMs));
  return figures;
}

function details(answer) {
  const lines = [];
  const timings = answer.timings;
  if (answer.firstMs !== null) lines.push(`First token after ${duration(answer.firstMs)}`);
  if (timings?.prompt_n > 0) lines.push(`Read ${count(timings.prompt_n, "token")} at ${rate(timings.prompt_per_second ?? 0)}`);
  if (timings?.cache_n > 0) lines.push(`${count(timings.cache_n, "token")} were read before`);
  return lines.join("\n") || null;
}
