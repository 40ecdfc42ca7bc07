// Asking the model, and taking in what it answers.

import { ApiError, chat } from "./api.js";
import { keep, setStatus, state, tell } from "./state.js";
import * as store from "./store.js";

export function stop() { state.running?.abort.abort(); }

function requestBody(conversation) {
  const messages = store.path(conversation).filter((one) => !one.problem || one.content).map((one) => ({
    role: one.role, content: one.content,
    ...(one.reasoning ? { reasoning_content: one.reasoning } : {}),
    ...(one.calls?.length ? { tool_calls: one.calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } })) } : {}),
  }));
  const body = { messages: conversation.system ? [{ role: "system", content: conversation.system }, ...messages] : messages };
  for (const name of ["temperature", "top_p", "top_k", "max_tokens"]) {
    if (state.settings[name] !== "") body[name] = Number(state.settings[name]);
  }
  body.chat_template_kwargs = { enable_thinking: state.settings.think };
  return body;
}

// Answers the conversation that is shown, at the place where one stands in it. Is at work before it first
// waits for anything, so that there is never a second answer beside it.
export async function answer() {
  const conversation = state.current;
  const body = requestBody(conversation);
  const message = store.addMessage(conversation, conversation.leaf, { role: "assistant", content: "", reasoning: "" });
  const running = { message, conversation, abort: new AbortController(), tokens: 0, first: 0 };
  state.running = running;
  tell("changed", { follows: true });
  tell("progress", { text: "Waiting" });
  try {
    for await (const chunk of chat(body, running.abort.signal)) take(running, chunk);
  } catch (error) {
    if (error.name !== "AbortError") message.problem = error instanceof ApiError ? error.message : "The connection to the server was lost.";
    if (error.status === 401) tell("key-wanted");
  }
  if (!message.figures && running.tokens) message.figures = [speedText(running), "stopped"].filter(Boolean).join(", ");
  if (!message.content && !message.reasoning && !message.calls && !message.problem) {
    delete conversation.nodes[message.id];
    if (conversation.leaf === message.id) conversation.leaf = message.parent;
  }
  await keep(conversation);
  if (state.running !== running) return; // another one has begun: the page is its
  state.running = null;
  tell("progress", null);
  setStatus(state.props?.model_alias ?? "");
  tell("changed");
}

function take(running, chunk) {
  const { message } = running;
  const isShown = running === state.running;
  if (isShown && chunk.queue_position) tell("progress", { text: `Waiting, number ${chunk.queue_position} in the queue` });
  if (isShown && chunk.prompt_progress) tell("progress", promptProgress(chunk.prompt_progress));
  if (chunk.timings) {
    tell("timings", chunk.timings);
    message.figures = figuresText(chunk.timings);
  }
  if (chunk.usage) tell("context", chunk.usage.total_tokens);
  const delta = chunk.choices?.[0]?.delta;
  if (!delta) return;
  if (delta.reasoning_content) message.reasoning += delta.reasoning_content;
  if (delta.content) message.content += delta.content;
  for (const call of delta.tool_calls ?? []) takeCall(message, call);
  if (!delta.reasoning_content && !delta.content && !delta.tool_calls) return;
  running.tokens++;
  running.first ||= performance.now();
  if (!isShown) return;
  tell("progress", null);
  setStatus(speedText(running));
  tell("message", running);
}

function takeCall(message, call) {
  message.calls ??= [];
  const known = (message.calls[call.index] ??= { id: "", name: "", arguments: "" });
  known.id = call.id ?? known.id;
  known.name = call.function?.name ?? known.name;
  known.arguments += call.function?.arguments ?? "";
}

function speedText(running) {
  const seconds = (performance.now() - running.first) / 1000;
  return running.tokens < 3 || seconds < 0.2 ? "" : `${(running.tokens / seconds).toFixed(1)} tokens/s`;
}

function figuresText(timings) {
  const parts = [`${timings.predicted_per_second.toFixed(1)} tokens/s`, `${timings.predicted_n} tokens`];
  if (timings.cache_n) parts.push(`${timings.cache_n} of the prompt known`);
  return parts.join(" · ");
}

function promptProgress({ total, processed, cache, time_ms: ms }) {
  const done = processed - cache;
  const left = done > 0 ? ((total - processed) * ms) / done / 1000 : 0;
  const rest = total > processed && left > 1 ? `, ${durationText(left)} left` : "";
  return { share: processed / total, text: `Reading the prompt: ${processed} of ${total} tokens${rest}` };
}

const durationText = (seconds) => seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
