// The conversation in the middle: its messages, with their branches, and what can be done with them.

import { answer, stop } from "./answer.js";
import { element, renderMarkdown } from "./markdown.js";
import { $, keep, on, state, tell } from "./state.js";
import * as store from "./store.js";

const SHOWN = 100; // messages that are drawn at once; earlier ones on demand

let shown = SHOWN;

export function drawMessages() {
  const messages = store.path(state.current);
  $("title").textContent = state.current.title || "New conversation";
  document.title = state.current.title ? `${state.current.title} · penstock` : "penstock";
  const column = element("div", { class: "column" });
  if (!messages.length) {
    column.append(element("div", { class: "welcome" }, element("strong", {}, state.props?.model_alias ?? "penstock"),
      "Everything stays on this machine."));
  }
  const begin = Math.max(messages.length - shown, 0);
  if (begin > 0) {
    column.append(element("button", { class: "earlier", type: "button", onclick: () => { shown += SHOWN; drawMessages(); } }, `${begin} earlier messages`));
  }
  for (const message of messages.slice(begin)) column.append(messageNode(message));
  $("messages").replaceChildren(column);
}

// Of another conversation, from its end.
export function drawFromEnd() {
  shown = SHOWN;
  drawMessages();
  scrollDown();
}

const isAtEnd = () => {
  const box = $("messages");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
};
function scrollDown() {
  const box = $("messages");
  box.scrollTop = box.scrollHeight;
}

function messageNode(message) {
  const node = element("article", { class: `message ${message.role}`, "aria-label": message.role === "user" ? "You" : "Answer" });
  node.dataset.id = message.id;
  const body = element("div", { class: "body" });
  node.append(body, element("div", { class: "tools" }));
  if (message.role === "user") body.textContent = message.content;
  else fillAnswer(body, message);
  fillTools(node.lastChild, message);
  return node;
}

function fillAnswer(body, message) {
  let reasoning = body.querySelector("details.reasoning");
  if (message.reasoning && !reasoning) {
    reasoning = element("details", { class: "reasoning" }, element("summary"), element("div", { class: "inner" }));
    body.prepend(reasoning);
  }
  if (reasoning) {
    const isThinking = message === state.running?.message && !message.content;
    reasoning.firstChild.textContent = isThinking ? "Thinking…" : "Reasoning";
    if (reasoning.lastChild.textContent !== message.reasoning) {
      reasoning.lastChild.textContent = message.reasoning;
      reasoning.lastChild.scrollTop = reasoning.lastChild.scrollHeight;
    }
  }
  let text = body.querySelector(":scope > .md");
  if (!text) body.append((text = element("div", { class: "md" })));
  renderMarkdown(text, message.content ?? "");
  body.querySelectorAll(":scope > .call, :scope > .problem").forEach((old) => old.remove());
  for (const call of message.calls ?? []) {
    body.append(element("div", { class: "call" },
      element("header", {}, "Call of ", element("b", {}, call.name)),
      element("pre", { tabindex: "0" }, prettyJson(call.arguments))));
  }
  if (message.problem) body.append(element("div", { class: "problem", role: "alert" }, message.problem));
  body.classList.toggle("cursor", message === state.running?.message);
}

function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function fillTools(tools, message) {
  const button = (label, action) => element("button", { class: "plain", type: "button", onclick: action }, label);
  if (message === state.running?.message) return tools.replaceChildren();
  const nodes = [];
  const others = store.siblings(state.current, message);
  if (others.length > 1) {
    const at = others.indexOf(message);
    const step = (by) => () => { stop(); store.goTo(state.current, others[at + by]); keep(state.current); tell("changed"); };
    nodes.push(element("span", { class: "branch" },
      element("button", { class: "plain", type: "button", disabled: at === 0, "aria-label": "Earlier version", onclick: step(-1) }, "‹"),
      `${at + 1}/${others.length}`,
      element("button", { class: "plain", type: "button", disabled: at === others.length - 1, "aria-label": "Later version", onclick: step(1) }, "›")));
  }
  nodes.push(button("Copy", () => navigator.clipboard.writeText(message.content)));
  nodes.push(button("Edit", () => edit(message)));
  if (message.role === "assistant") nodes.push(button("Again", () => again(message)));
  if (message.figures) nodes.push(element("span", { class: "figures" }, message.figures));
  tools.replaceChildren(...nodes);
}

// Writes a message anew: a branch beside it. An answer is just replaced in words.
export function edit(message) {
  const node = document.querySelector(`[data-id="${CSS.escape(message.id)}"]`);
  const area = element("textarea", { "aria-label": "Edit the message" });
  area.value = message.content;
  const done = () => {
    stop();
    const isQuestion = message.role === "user";
    store.addMessage(state.current, message.parent,
      { role: message.role, content: area.value, ...(isQuestion ? {} : { reasoning: message.reasoning }) });
    keep(state.current);
    if (isQuestion) answer();
    else tell("changed");
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { event.stopPropagation(); drawMessages(); }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done();
  });
  node.replaceChildren(element("div", { class: "editor" }, area, element("div", { class: "foot" },
    element("button", { type: "button", onclick: drawMessages }, "Cancel"),
    element("button", { type: "button", class: "primary", onclick: done }, message.role === "user" ? "Send" : "Save"))));
  area.style.height = `${Math.min(area.scrollHeight + 24, innerHeight / 2)}px`;
  area.focus();
}

function again(message) {
  stop();
  state.current.leaf = message.parent;
  answer();
}

// Words come faster than a screen is drawn.
let redraw = 0;
function drawSoon(running) {
  redraw ||= requestAnimationFrame(() => {
    redraw = 0;
    const node = document.querySelector(`[data-id="${CSS.escape(running.message.id)}"] .body`);
    if (!node) return;
    const follows = isAtEnd();
    fillAnswer(node, running.message);
    if (follows) scrollDown();
  });
}

on("message", drawSoon);
on("changed", (how) => {
  const follows = how?.follows || isAtEnd();
  drawMessages();
  if (follows) scrollDown();
});
