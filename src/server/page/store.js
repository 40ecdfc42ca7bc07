// Conversations, kept in this browser (IndexedDB) and nowhere else. A conversation is a tree of
// messages: to edit or to ask again begins a branch, and `leaf` is where one stands.

const DATABASE = "penstock";
const STORE = "conversations";
const FORMAT = "penstock-conversations";

let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function run(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    const request = work(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onerror = () => reject(transaction.error);
  });
}

export const loadAll = () => run("readonly", (store) => store.getAll());
export const save = (conversation) => run("readwrite", (store) => void store.put(conversation));
export const remove = (id) => run("readwrite", (store) => void store.delete(id));

export const newId = () => crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("-");

export function newConversation() {
  const now = new Date().toISOString();
  return { id: newId(), title: "", created: now, updated: now, system: "", nodes: {}, leaf: null };
}

export function addMessage(conversation, parent, message) {
  const id = newId();
  conversation.nodes[id] = { id, parent, time: new Date().toISOString(), ...message };
  conversation.leaf = id;
  return conversation.nodes[id];
}

// From the beginning to where one stands.
export function path(conversation) {
  const messages = [];
  const seen = new Set();
  for (let id = conversation.leaf; id && conversation.nodes[id] && !seen.has(id); id = conversation.nodes[id].parent) {
    seen.add(id);
    messages.push(conversation.nodes[id]);
  }
  return messages.reverse();
}

export function siblings(conversation, node) {
  return Object.values(conversation.nodes)
    .filter((other) => other.parent === node.parent && other.role === node.role)
    .sort((a, b) => a.time.localeCompare(b.time));
}

// The newest end of the branch that begins at `node`.
export function goTo(conversation, node) {
  let at = node;
  for (;;) {
    const children = Object.values(conversation.nodes).filter((other) => other.parent === at.id);
    if (!children.length) break;
    at = children.sort((a, b) => a.time.localeCompare(b.time)).at(-1);
  }
  conversation.leaf = at.id;
}

export function exportText(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, exported: new Date().toISOString(), conversations }, null, 1);
}

// Conversations of an exported file, with fresh ids; throws a sentence when it is none.
export function importText(text) {
  const data = JSON.parse(text);
  if (data?.format !== FORMAT || !Array.isArray(data.conversations)) throw new Error("This is not a file that was exported here.");
  return data.conversations.map((given) => {
    const conversation = { ...newConversation(), title: String(given.title ?? ""), system: String(given.system ?? "") };
    conversation.created = String(given.created ?? conversation.created);
    conversation.updated = String(given.updated ?? conversation.updated);
    for (const [id, node] of Object.entries(given.nodes ?? {})) {
      if (id === "__proto__" || !["user", "assistant"].includes(node?.role)) continue;
      conversation.nodes[id] = {
        id, parent: typeof node.parent === "string" ? node.parent : null, role: node.role,
        time: String(node.time ?? conversation.created), content: String(node.content ?? ""),
        ...(node.reasoning ? { reasoning: String(node.reasoning) } : {}),
        ...(Array.isArray(node.calls) ? { calls: node.calls.map((call) => ({ id: String(call.id ?? ""), name: String(call.name ?? ""), arguments: String(call.arguments ?? "") })) } : {}),
      };
    }
    conversation.leaf = conversation.nodes[given.leaf] ? given.leaf : null;
    return conversation;
  });
}

export function matches(conversation, words) {
  if (!words) return true;
  const wanted = words.toLowerCase();
  return conversation.title.toLowerCase().includes(wanted) ||
    Object.values(conversation.nodes).some((node) => (node.content ?? "").toLowerCase().includes(wanted));
}
