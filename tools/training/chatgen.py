"""Synthetic chat, JSON and tool-calling conversations over a small closed world.

    chatgen.py [SEED [COUNT]]                      prints some
    conversation(rng) -> dict(kind, messages, tools)    one for training
    eval_item(rng, kind) -> dict                   one held-out item with its exact expected answer

Questions whose key falls in the held-out bucket (world.is_heldout) are never used for training.
"""

import os
import random

from json_tasks import json_task
from questions import CHAT, qa, story
from template import call_text
from tools import (
    FAM,
    make_request,
    make_tool,
    politely,
    result_of,
    tool_setup,
    tool_think,
)
from world import NAMES

SYS = [None] * 6 + [
    "You are a helpful assistant.",
    "You are Sluice, a small helpful model.",
    "Answer briefly.",
    "You are a careful assistant. Use the tools when they fit.",
    "Be short and exact.",
    "You help the user with small tasks.",
]
NO_TOOL = (
    "I do not have a tool for that.",
    "Sorry, none of my tools can do that.",
    "I cannot do that with the tools I have.",
)


def tool_conversation(r, heldout=False, want=None):
    """want: the kind, for evaluation; then the last message is the call."""
    fams, tools, keys = tool_setup(r)
    think = r.random() < 0.3
    ms = []
    s = r.choice(SYS)
    if s:
        ms.append({"role": "system", "content": s})
    kind = want or r.choices(("single", "parallel", "multi", "none", "qa"), (58, 10, 18, 7, 7))[0]

    def call(parallel=False):
        i = r.randrange(len(fams))
        cs, us, shows, ix = [], [], [], []
        for j in range(2 if parallel else 1):
            if parallel and j and len(fams) > 1 and r.random() < 0.5:
                i = r.choice([x for x in range(len(fams)) if x != i])
            u, a, sh = make_request(r, fams[i], keys[i])
            cs.append({"name": tools[i]["function"]["name"], "arguments": a})
            us.append(u.rstrip(".?!"))
            shows.append(sh)
            ix.append(i)
        u = (
            politely(r, us[0])
            if not parallel
            else us[0]
            + r.choice((". Also: ", ", and then: ", ". And ", " and also: "))
            + us[1]
            + "."
        )
        return u, cs, shows, ix

    def do(u, cs, shows, ix):
        m = {"role": "assistant", "content": "", "tool_calls": cs}
        if think:
            m["reasoning_content"] = " ".join(
                tool_think(r, tools[i], c["arguments"]) for c, i in zip(cs, ix)
            )
        ms.extend(({"role": "user", "content": u}, m))

    def answer(cs, shows, ix):
        out = []
        for c, sh, i in zip(cs, shows, ix):
            res, a = result_of(r, fams[i], sh)
            ms.append({"role": "tool", "content": res})
            out.append(a)
        m = {"role": "assistant", "content": " ".join(out)}
        if think:
            m["reasoning_content"] = r.choice(
                ("The tool answered. I can report the result.", "I have the result now.")
            )
        ms.append(m)

    if kind in ("single", "parallel"):
        c = call(kind == "parallel")
        do(*c)
        if want is None and r.random() < 0.6:
            answer(*c[1:])
    elif kind == "multi":
        n = 1 if r.random() < 0.75 else 2
        for _ in range(n):
            if r.random() < 0.6:
                c = call()
                do(*c)
                answer(*c[1:])
            else:
                q, a, t, _k = qa(r, False)
                ms += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        c = call()
        do(*c)
        if want is None and r.random() < 0.4:
            answer(*c[1:])
    elif kind == "none":
        other = r.choice([f for f in FAM if f not in fams])
        t, k = make_tool(r, other)
        u, _, _ = make_request(r, other, k)
        ms += [
            {"role": "user", "content": politely(r, u)},
            {
                "role": "assistant",
                "content": r.choice(NO_TOOL),
                **({"reasoning_content": "None of the tools fits this request."} if think else {}),
            },
        ]
    else:
        q, a, t, _k = qa(r, False)
        ms += [
            {"role": "user", "content": q},
            {
                "role": "assistant",
                "content": a,
                **({"reasoning_content": t + " No tool is needed."} if think else {}),
            },
        ]
    return dict(kind="tool-" + kind, messages=ms, tools=tools)


def chat_conversation(r):
    """One to four turns of questions, small talk and stories."""
    ms = []
    s = r.choice(SYS)
    think = r.random() < 0.3
    if s:
        ms.append({"role": "system", "content": s})
    n = r.choices((1, 2, 3, 4), (55, 25, 12, 8))[0]
    memo = None
    for i in range(n):
        f = r.random()
        if memo and r.random() < 0.5:
            q, a, t = memo
            memo = None
        elif f < 0.08:
            q, a, t = *map(r.choice, r.choice(CHAT)), "Small talk."
        elif f < 0.16 and i == 0 and n > 1:
            nm = r.choice(NAMES)
            q, a, t = (
                r.choice((f"My name is {nm}.", f"Hi, I am {nm}.")),
                r.choice((f"Nice to meet you, {nm}!", f"Hello {nm}! How can I help?")),
                "The user says a name.",
            )
            memo = (
                r.choice(("What is my name?", "Do you remember my name?")),
                f"Your name is {nm}.",
                f"The user said: {nm}.",
            )
        elif f < 0.26:
            q, a, t, _ = story(r)
        else:
            q, a, t, _ = qa(r)
        ms += [
            {"role": "user", "content": q},
            {"role": "assistant", "content": a, **({"reasoning_content": t} if think else {})},
        ]
    return dict(kind="chat", messages=ms, tools=None)


def json_conversation(r):
    """One JSON task."""
    q, a, s, t = json_task(r)
    ms = [{"role": "system", "content": s}] if s else []
    ms += [
        {"role": "user", "content": q},
        {
            "role": "assistant",
            "content": a,
            **({"reasoning_content": t} if r.random() < 0.25 else {}),
        },
    ]
    return dict(kind="json", messages=ms, tools=None)


def conversation(r):
    """One training conversation: half tools, a third chat, the rest JSON."""
    f = r.random()
    return (
        tool_conversation(r)
        if f < 0.5
        else chat_conversation(r) if f < 0.82 else json_conversation(r)
    )


def eval_item(r, kind):
    """One held-out item."""
    if kind == "tools":
        want = r.choices(("single", "parallel", "multi"), (70, 12, 18))[0]
        c = tool_conversation(r, want=want)
        *ms, last = c["messages"]
        calls = last["tool_calls"]
        return dict(
            kind=c["kind"],
            messages=ms,
            tools=c["tools"],
            enable_thinking=False,
            expected="\n".join(call_text(x["name"], x["arguments"]) for x in calls),
            expected_calls=calls,
        )
    if kind == "json":
        q, a, s, _ = json_task(r)
        ms = ([{"role": "system", "content": s}] if s else []) + [{"role": "user", "content": q}]
        return dict(kind="json", messages=ms, tools=None, enable_thinking=False, expected=a)
    q, a, _, k = qa(r, True)
    return dict(
        kind="qa-" + k,
        messages=[{"role": "user", "content": q}],
        tools=None,
        enable_thinking=False,
        expected=a,
    )


def last_user(ms):
    """What identifies an item: the last thing the user says."""
    return [m["content"] for m in ms if m["role"] == "user"][-1]


def eval_sets(n_tools=500, n_json=200, n_qa=400):
    """-> {kind: items}, drawn with the seed in the environment variable EVAL_SEED. That of the
    published sets is kept back together with their other half."""
    seed = os.environ.get("EVAL_SEED")
    if seed is None:
        raise SystemExit("set EVAL_SEED: it decides which items training must not see")
    out = {}
    for kind, n in (("tools", n_tools), ("json", n_json), ("qa", n_qa)):
        r = random.Random(f"{seed}-{kind}")
        seen, items = set(), []
        while len(items) < n:
            it = eval_item(r, kind)
            u = last_user(it["messages"])
            if u not in seen:
                seen.add(u)
                items.append(dict(id=f"{kind}-{len(items):04d}", **it))
        out[kind] = items
    return out


def blocked(sets):
    """User texts that training must not contain."""
    return {last_user(i["messages"]) for s in ("tools", "json") for i in sets[s]} | {
        last_user(i["messages"]) for i in sets["qa"]
    }


def show(seed=0, count=6):
    """Prints conversations; the assistant's part is green."""
    from template import render

    rng = random.Random(seed)
    for _ in range(count):
        example = conversation(rng)
        print("=" * 20, example["kind"])
        for text, is_assistant in render(example["messages"], example["tools"]):
            print(f"\033[32m{text}\033[0m" if is_assistant else text, end="")


if __name__ == "__main__":
    import sys

    show(*map(int, sys.argv[1:3]))
