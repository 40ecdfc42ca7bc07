// The list on the left: conversations by day, searched, exported, imported.

import { stop } from "./answer.js";
import { element } from "./markdown.js";
import { drawFromEnd } from "./messages.js";
import { $, addConversations, forget, on, setStatus, state } from "./state.js";
import * as store from "./store.js";

export function drawList() {
  const words = $("search").value.trim();
  const found = state.conversations.filter((one) => store.matches(one, words))
    .sort((a, b) => b.updated.localeCompare(a.updated));
  const nodes = [];
  let heading = "";
  for (const conversation of found) {
    const day = dayOf(conversation.updated);
    if (day !== heading) nodes.push(element("h2", {}, day));
    heading = day;
    nodes.push(entryNode(conversation));
  }
  if (!nodes.length) nodes.push(element("p", { class: "muted" }, words ? "Nothing found." : ""));
  $("conversations").replaceChildren(...nodes);
}

function entryNode(conversation) {
  const { title } = conversation;
  const isCurrent = conversation === state.current;
  return element("div", { class: isCurrent ? "entry current" : "entry" },
    element("button", { type: "button", "aria-current": isCurrent ? "true" : null, title, onclick: () => select(conversation) }, title || "Untitled"),
    element("button", { class: "icon", type: "button", "aria-label": `Export ${title}`, title: "Export", onclick: () => download([conversation]) }, "↓"),
    element("button", { class: "icon", type: "button", "aria-label": `Delete ${title}`, title: "Delete", onclick: () => discard(conversation) }, "✕"));
}

function dayOf(time) {
  const days = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / 86400000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days < 7) return "This week";
  return new Date(time).toLocaleDateString("en", { month: "long", year: "numeric" });
}

export function closeSidebar() { $("sidebar").classList.remove("open"); }

function select(conversation) {
  stop();
  state.current = conversation;
  closeSidebar();
  drawFromEnd();
  drawList();
  $("input").focus();
}

export function fresh() {
  select(store.newConversation());
}

async function discard(conversation) {
  if (!confirm(`Delete “${conversation.title || "Untitled"}”?`)) return;
  if (conversation === state.running?.conversation) stop();
  const done = forget(conversation);
  if (conversation === state.current) fresh();
  drawList();
  await done;
}

export function download(conversations) {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([store.exportText(conversations)], { type: "application/json" })),
    download: conversations.length === 1 ? `${(conversations[0].title || "conversation").replace(/[^\w-]+/g, "-").slice(0, 60)}.json` : "penstock-conversations.json",
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export async function importFile(file) {
  try {
    const conversations = store.importText(await file.text());
    await addConversations(conversations);
    drawList();
    setStatus(`${conversations.length} imported`);
  } catch (error) {
    setStatus(error instanceof SyntaxError ? "That file is not JSON." : error.message, true);
  }
}

on("changed", drawList);
