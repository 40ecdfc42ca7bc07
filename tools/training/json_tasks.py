"""Tasks whose answer is one JSON value: extraction with or without a schema, lists, sorting, maps."""

import json

from world import (
    CITIES,
    COLORS,
    FRUIT,
    JOBS,
    LANGS,
    clock,
    code,
    date,
    email,
    lst,
    person,
    phone,
    phrase,
    title,
    words,
)

FIELDS = {
    "person": [
        ("name", person),
        ("age", lambda r: r.randint(1, 99)),
        ("city", lambda r: r.choice(CITIES)),
        ("job", lambda r: r.choice(JOBS)),
        ("email", email),
        ("phone", phone),
    ],
    "product": [
        ("name", title),
        ("price", lambda r: r.choice((r.randint(1, 500), round(r.uniform(1, 200), 2)))),
        ("color", lambda r: r.choice(COLORS)),
        ("quantity", lambda r: r.randint(1, 60)),
        ("sku", code),
        ("in_stock", lambda r: r.random() < 0.5),
    ],
    "event": [
        ("title", title),
        ("date", date),
        ("time", clock),
        ("city", lambda r: r.choice(CITIES)),
        ("guests", lambda r: r.randint(2, 300)),
        ("host", person),
    ],
    "order": [
        ("order_id", code),
        ("customer", person),
        ("item", lambda r: r.choice(FRUIT)),
        ("quantity", lambda r: r.randint(1, 40)),
        ("total", lambda r: r.randint(5, 900)),
        ("paid", lambda r: r.random() < 0.5),
    ],
    "book": [
        ("title", title),
        ("author", person),
        ("year", lambda r: r.randint(1900, 2025)),
        ("pages", lambda r: r.randint(60, 900)),
        ("language", lambda r: r.choice(LANGS)),
    ],
    "flight": [
        ("flight", code),
        ("from", lambda r: r.choice(CITIES)),
        ("to", lambda r: r.choice(CITIES)),
        ("date", date),
        ("seats", lambda r: r.randint(1, 9)),
        ("price", lambda r: r.randint(40, 1500)),
    ],
    "ticket": [
        ("id", code),
        ("subject", lambda r: phrase(r, 2, 4)),
        ("priority", lambda r: r.choice(("low", "medium", "high"))),
        ("assignee", person),
        ("open", lambda r: r.random() < 0.5),
    ],
}
SENT = {
    ("person", "name"): ("the name is {}", "this is about {}"),
    ("person", "age"): ("the age is {}", "{} years old"),
    ("person", "city"): ("living in {}", "the city is {}"),
    ("person", "job"): ("working as a {}", "the job is {}"),
    ("product", "in_stock"): None,
    ("order", "paid"): None,
    ("ticket", "open"): None,
}


def describe(r, dom, rec):
    """A record in words; the fields in random order."""
    parts = []
    for k, v in rec.items():
        s = SENT.get((dom, k), 0)
        if isinstance(v, bool):
            parts.append(
                {
                    "in_stock": ("it is not in stock", "it is in stock"),
                    "paid": ("it is not paid yet", "it is already paid"),
                    "open": ("it is closed", "it is still open"),
                }[k][v]
            )
        elif s:
            parts.append(r.choice(s).format(v))
        else:
            parts.append(
                r.choice(
                    (
                        f"the {k.replace('_', ' ')} is {v}",
                        f"{k.replace('_', ' ')}: {v}",
                        f"with {k.replace('_', ' ')} {v}",
                    )
                )
            )
    r.shuffle(parts)
    t = r.choice((", ", "; ")).join(parts)
    return t[0].upper() + t[1:] + "."


def jtype(v):
    """The JSON schema type of a value."""
    return (
        "boolean"
        if isinstance(v, bool)
        else "integer" if isinstance(v, int) else "number" if isinstance(v, float) else "string"
    )


def js(x):
    """JSON as the model is to write it."""
    return json.dumps(x, ensure_ascii=False)


def json_task(r):
    """-> question, answer, system text or None, thought"""
    f = r.random()
    if f < 0.75:
        dom = r.choice(list(FIELDS))
        fl = r.sample(FIELDS[dom], r.randint(3, min(5, len(FIELDS[dom]))))
        rec = {k: g(r) for k, g in fl}
        keys = list(rec)
        r.shuffle(keys)
        keys = keys[: r.randint(2, len(keys))]
        ans = js({k: rec[k] for k in keys})
        t = describe(r, dom, rec)
        sys = None
        if f < 0.3:
            q = r.choice(
                (
                    f"Extract {lst(keys) if len(keys) > 1 else keys[0]} as a JSON object from this text: {t}",
                    f"{t}\n\nReturn a JSON object with the keys {', '.join(keys)}.",
                    f"Read the {dom} description and answer with JSON only (keys: {', '.join(keys)}).\n\n{t}",
                )
            )
        elif f < 0.6:
            sch = js(
                {
                    "type": "object",
                    "properties": {k: {"type": jtype(rec[k])} for k in keys},
                    "required": keys,
                }
            )
            sys = r.choice(
                (
                    f"Answer only with a JSON object that matches this schema: {sch}",
                    f"You extract data. Reply with one JSON object and nothing else. Schema: {sch}",
                )
            )
            q = t
        else:
            q = (
                r.choice(
                    (
                        "Convert to JSON:",
                        "Turn these lines into a JSON object:",
                        "Write this as JSON:",
                    )
                )
                + "\n"
                + "\n".join(
                    f"{k}: {js(v) if not isinstance(v, str) else v}" for k, v in rec.items()
                )
            )
            ans = js(rec)
        return q, ans, sys, f"The keys are {', '.join(json.loads(ans))}."
    if f < 0.85:
        w = words(r, r.randint(2, 6))
        return (
            r.choice(("Make a JSON array of these words: ", "Write these words as a JSON list: "))
            + ", ".join(w),
            js(w),
            None,
            "A JSON array of strings.",
        )
    if f < 0.92:
        x = r.sample(range(100), r.randint(3, 6))
        return (
            "Sort these numbers and return a JSON array: " + ", ".join(map(str, x)),
            js(sorted(x)),
            None,
            "A sorted JSON array.",
        )
    w = words(r, r.randint(2, 5))
    n = [r.randint(1, 50) for _ in w]
    return (
        r.choice(
            (
                "Return a JSON object that maps each word to its number: ",
                "Write this as a JSON object: ",
            )
        )
        + ", ".join(f"{a} {b}" for a, b in zip(w, n)),
        js(dict(zip(w, n))),
        None,
        "Each word is a key.",
    )
