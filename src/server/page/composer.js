// The field at the bottom: what one writes, and how far the answer to it is.

import { answer } from "./answer.js";
import { edit } from "./messages.js";
import { $, keep, on, state } from "./state.js";
import * as store from "./store.js";

// Everything up to the answer happens at once: a second press of the key finds it running.
export function send() {
  const text = $("input").value.trim();
  if (!text || state.running) return;
  $("input").value = "";
  fitInput();
  const conversation = state.current;
  if (!conversation.title) conversation.title = text.split("\n")[0].slice(0, 80);
  store.addMessage(conversation, conversation.leaf, { role: "user", content: text });
  keep(conversation);
  answer();
}

export function onInputKey(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  if (event.key === "ArrowUp" && !$("input").value) {
    const last = store.path(state.current).filter((one) => one.role === "user").at(-1);
    if (last) { event.preventDefault(); edit(last); }
  }
}

export function fitInput() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
  drawButtons();
}

function drawButtons() {
  $("stop").hidden = !state.running;
  $("send").hidden = Boolean(state.running);
  $("send").disabled = !$("input").value.trim();
}

function showProgress(progress) {
  $("progress").hidden = !progress;
  if (!progress) return;
  $("progress-bar").style.width = `${100 * (progress.share ?? 0)}%`;
  $("progress-text").textContent = progress.text;
}

function showContext(tokens) {
  const all = state.props?.default_generation_settings?.n_ctx;
  $("context-use").textContent = all ? `${tokens.toLocaleString("en")} of ${all.toLocaleString("en")} tokens` : "";
}

on("changed", drawButtons);
on("progress", showProgress);
on("context", showContext);
