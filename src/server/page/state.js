// What all parts of the page look at: the conversations, the settings, the answer that is running.
//
// Parts know those below them (state, answer, messages, conversations, composer, dialogs, app). What a part
// has to tell those above it, it tells as an event, and whoever draws something listens:
//   "changed"   the conversation that is shown, or the list of them
//   "message"   words have come for the message of the answer that is running
//   "progress"  { share, text } of the wait for an answer; null when it is over
//   "timings", "context", "key-wanted"   figures of an answer; tokens of the conversation; a 401

import * as store from "./store.js";

const SETTINGS = "penstock-settings";

export const $ = (id) => document.getElementById(id);

export const state = {
  conversations: [], current: store.newConversation(), props: null, running: null,
  settings: { theme: "auto", think: false, temperature: "", top_p: "", top_k: "", max_tokens: "", ...readJson(SETTINGS) },
};

const listeners = new EventTarget();
export const on = (name, listener) => listeners.addEventListener(name, (event) => listener(event.detail));
export const tell = (name, detail) => listeners.dispatchEvent(new CustomEvent(name, { detail }));

function readJson(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

export function applyTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = state.settings.theme === "auto" ? (dark ? "dark" : "light") : state.settings.theme;
  document.documentElement.dataset.theme = theme;
}

export function keepSettings() {
  localStorage.setItem(SETTINGS, JSON.stringify(state.settings));
  applyTheme();
}

export function setStatus(text, isBad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isBad);
}

const discarded = new WeakSet(); // an answer that was still on its way does not bring them back

// Takes in what this browser has kept. A message may have been sent while it was being read: what is here
// already stays, and is the newer of the two.
export async function loadConversations() {
  try {
    const kept = await store.loadAll();
    const here = new Set(state.conversations.map((one) => one.id));
    state.conversations.push(...kept.filter((one) => !here.has(one.id)));
  } catch {
    setStatus("This browser keeps no conversations", true);
  }
}

export async function keep(conversation) {
  if (discarded.has(conversation)) return;
  if (!state.conversations.includes(conversation)) state.conversations.push(conversation);
  conversation.updated = new Date().toISOString();
  await write(() => store.save(conversation));
}

export async function addConversations(conversations) {
  state.conversations.push(...conversations);
  for (const conversation of conversations) await write(() => store.save(conversation));
}

export async function forget(conversation) {
  discarded.add(conversation);
  state.conversations = state.conversations.filter((one) => one !== conversation);
  await write(() => store.remove(conversation.id));
}

async function write(work) {
  try {
    await work();
  } catch {
    setStatus("This browser could not keep that", true);
  }
}
