"""Tools with random names and parameters, requests for them, and results."""

import os
import re

from json_tasks import js
from world import (
    CAPITALS,
    CITIES,
    COLORS,
    CURR,
    FOODS,
    HERE,
    LANGS,
    NAMES,
    WORDS,
    clock,
    code,
    date,
    email,
    folder,
    path,
    person,
    phone,
    phrase,
    title,
    url,
    when,
    words,
)


def slot(keys, typ, gen, desc, enum=None):
    """A parameter of a tool: names it may have, JSON type, maker of values, description, enum."""
    return dict(keys=keys.split(), typ=typ, gen=gen, desc=desc, enum=enum)


def one_of(keys, vals, desc):
    """A slot with a fixed set of values."""
    v = vals.split()
    return slot(keys, "string", lambda r: r.choice(v), desc, v)


CITY = slot(
    "city location place town city_name", "string", lambda r: r.choice(CITIES), "Name of the city"
)
SLOTS = dict(
    city=CITY,
    city2=slot(
        "destination to to_city arrival target_city",
        "string",
        lambda r: r.choice(CITIES),
        "Destination city",
    ),
    origin=slot(
        "origin from from_city departure start_city",
        "string",
        lambda r: r.choice(CITIES),
        "City of departure",
    ),
    country=slot(
        "country country_name nation",
        "string",
        lambda r: r.choice(list(CAPITALS)[:90]),
        "Name of the country",
    ),
    tunit=one_of(
        "unit units scale temperature_unit", "celsius fahrenheit kelvin", "Temperature unit"
    ),
    days=slot(
        "days num_days day_count duration_days",
        "integer",
        lambda r: r.randint(1, 14),
        "Number of days",
    ),
    name=slot(
        "name person contact contact_name recipient who",
        "string",
        lambda r: r.choice(NAMES),
        "Name of the person",
    ),
    full=slot("name full_name customer_name user_name", "string", person, "Full name"),
    email=slot("email to address email_address recipient", "string", email, "Email address"),
    subject=slot(
        "subject title headline topic", "string", lambda r: phrase(r, 1, 4), "Subject line"
    ),
    text=slot("message text body content msg", "string", lambda r: phrase(r, 2, 7), "The text"),
    date=slot("date day on_date scheduled_date", "string", when, "Date"),
    iso=slot("date start_date on day", "string", date, "Date as YYYY-MM-DD"),
    time=slot("time at start_time clock_time", "string", clock, "Time as HH:MM"),
    minutes=slot(
        "minutes duration duration_minutes length",
        "integer",
        lambda r: r.choice((5, 10, 15, 20, 25, 30, 40, 45, 50, 60, 75, 90, 120)),
        "Length in minutes",
    ),
    title=slot("title name event_title label", "string", lambda r: phrase(r, 1, 4), "Title"),
    song=slot("song track song_title title", "string", title, "Title of the song"),
    artist=slot("artist singer band performer", "string", person, "Name of the artist"),
    query=slot(
        "query q search_term keywords search_query",
        "string",
        lambda r: phrase(r, 1, 5),
        "What to search for",
    ),
    n=slot(
        "limit count max_results num_results n",
        "integer",
        lambda r: r.randint(1, 50),
        "How many results",
    ),
    lang=slot(
        "language target_language lang to_language",
        "string",
        lambda r: r.choice(LANGS),
        "Target language",
    ),
    amount=slot(
        "amount value sum quantity",
        "number",
        lambda r: r.choice((r.randint(1, 5000), r.randint(1, 99), round(r.uniform(1, 999), 2))),
        "Amount",
    ),
    cfrom=slot(
        "from_currency source base from currency_from",
        "string",
        lambda r: r.choice(CURR),
        "Source currency code",
    ),
    cto=slot(
        "to_currency target to currency_to quote",
        "string",
        lambda r: r.choice(CURR),
        "Target currency code",
    ),
    ticker=slot(
        "symbol ticker stock stock_symbol",
        "string",
        lambda r: "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(r.randint(3, 4))),
        "Stock symbol",
    ),
    people=slot(
        "people guests party_size num_guests persons",
        "integer",
        lambda r: r.randint(1, 12),
        "Number of people",
    ),
    food=slot("dish item food meal", "string", lambda r: r.choice(FOODS), "Dish"),
    qty=slot("quantity count amount number qty", "integer", lambda r: r.randint(1, 25), "How many"),
    path=slot("path file file_path filename file_name", "string", path, "Path of the file"),
    folder=slot("directory folder dir path dir_path", "string", folder, "Path of the folder"),
    url=slot("url link address web_address", "string", url, "Web address"),
    method=one_of("method http_method verb", "GET POST PUT DELETE", "HTTP method"),
    order=slot("order_id order id order_number reference", "string", code, "Order number"),
    user=slot(
        "user user_id username account login",
        "string",
        lambda r: r.choice(WORDS) + str(r.randint(1, 999)),
        "User name",
    ),
    role=one_of(
        "role level access_level permission", "admin editor viewer guest", "Role of the user"
    ),
    prio=one_of("priority urgency importance level", "low medium high urgent", "Priority"),
    room=slot(
        "room area zone room_name",
        "string",
        lambda r: r.choice(
            "kitchen bedroom bathroom hallway garage office basement attic nursery lounge".split()
        ),
        "Room",
    ),
    onoff=one_of("state status power mode", "on off", "On or off"),
    level=slot(
        "brightness level percent value intensity",
        "integer",
        lambda r: r.randint(0, 100),
        "Level in percent",
    ),
    temp=slot(
        "temperature degrees target_temperature temp",
        "integer",
        lambda r: r.randint(10, 30),
        "Temperature",
    ),
    word=slot("word term entry lemma", "string", lambda r: r.choice(WORDS), "The word"),
    service=slot(
        "service service_name app component",
        "string",
        lambda r: r.choice(WORDS) + r.choice(("-api", "-web", "-db", "-worker", "")),
        "Name of the service",
    ),
    replicas=slot(
        "replicas instances count size",
        "integer",
        lambda r: r.randint(1, 20),
        "Number of instances",
    ),
    env=one_of(
        "environment env stage target", "production staging development testing", "Environment"
    ),
    branch=slot(
        "branch branch_name ref",
        "string",
        lambda r: r.choice(("feature/", "fix/", "")) + r.choice(WORDS),
        "Branch",
    ),
    genre=one_of(
        "genre category kind type", "comedy drama action horror romance documentary", "Genre"
    ),
    topic=one_of(
        "topic category section subject",
        "politics sports science business health technology culture",
        "News topic",
    ),
    sides=slot(
        "sides faces num_sides",
        "integer",
        lambda r: r.choice((4, 6, 8, 10, 12, 20, 100)),
        "Number of sides",
    ),
    width=slot("width w width_px", "integer", lambda r: r.randint(16, 4000), "Width in pixels"),
    height=slot("height h height_px", "integer", lambda r: r.randint(16, 4000), "Height in pixels"),
    fmt=one_of("format output_format file_type", "png jpg gif webp pdf csv json", "Output format"),
    expr=slot(
        "expression formula calculation expr",
        "string",
        lambda r: f"{r.randint(1, 999)} {r.choice('+-*/')} {r.randint(1, 999)}"
        + (f" {r.choice('+-*')} {r.randint(1, 99)}" if r.random() < 0.4 else ""),
        "Expression",
    ),
    phone=slot("phone phone_number number tel", "string", phone, "Phone number"),
    cmd=slot(
        "command cmd shell_command",
        "string",
        lambda r: r.choice(("ls {}", "cat {}", "rm {}", "wc -l {}", "head {}", "mkdir {}")).format(
            r.choice(WORDS)
        ),
        "Command",
    ),
    tags=slot(
        "tags labels keywords categories",
        "array",
        lambda r: words(r, r.randint(2, 4)),
        "List of tags",
    ),
    nums=slot(
        "numbers values data items",
        "array",
        lambda r: [r.randint(0, 99) for _ in range(r.randint(2, 6))],
        "List of numbers",
    ),
    color=slot("color colour shade", "string", lambda r: r.choice(COLORS), "Color"),
    rating=slot("rating stars score", "integer", lambda r: r.randint(1, 5), "Rating from 1 to 5"),
    travel=one_of(
        "mode travel_mode transport by", "walking driving cycling transit", "Means of transport"
    ),
    cls=one_of("class cabin cabin_class seat_class", "economy business first", "Cabin class"),
    app=slot(
        "app application program app_name",
        "string",
        lambda r: r.choice(WORDS).capitalize(),
        "Name of the app",
    ),
    flag=slot("recursive force silent notify verbose dry_run", "boolean", lambda r: True, "Switch"),
    table=slot(
        "table table_name collection dataset",
        "string",
        lambda r: r.choice(WORDS) + r.choice(("s", "_log", "_data", "")),
        "Table",
    ),
    weight=slot(
        "weight weight_kg mass", "number", lambda r: r.randint(40, 130), "Weight in kilograms"
    ),
    hgt=slot(
        "height height_cm tall", "number", lambda r: r.randint(140, 205), "Height in centimeters"
    ),
    lengthn=slot(
        "length size characters chars",
        "integer",
        lambda r: r.randint(6, 64),
        "Number of characters",
    ),
    playlist=slot("playlist playlist_name list", "string", title, "Playlist"),
    reason=slot("reason note comment cause", "string", lambda r: phrase(r, 1, 4), "Reason"),
)


def parse_family(line):
    """One line of tool_families.txt."""
    names, desc, slots, tmpl, res, ans = line.split(" | ")
    sl = [(s.rstrip("?"), s.endswith("?")) for s in slots.split()]
    main, opt = [], {}
    cur = None
    for t in tmpl.split(";"):
        m = re.match(r"^(\w+)=(.*)$", t)
        if m and m[1] in SLOTS:
            cur = m[1]
            opt.setdefault(cur, []).append(m[2])
        elif cur and t.startswith(" "):
            opt[cur].append(t)
        else:
            main.append(t)
    assert all(o in opt for s, o_ in sl if o_ for o in [s]), (names, opt)
    return dict(
        names=names.split(),
        desc=desc,
        slots=sl,
        main=main,
        opt=opt,
        res=[x.split(":") for x in res.split()],
        ans=ans.split(";"),
    )


RESULT_VALUES = dict(
    int=lambda r: r.randint(1, 999),
    small=lambda r: r.randint(1, 60),
    money=lambda r: round(r.uniform(1, 999), 2),
    cond=lambda r: r.choice("sunny cloudy rainy windy snowy foggy stormy clear".split()),
    sent=lambda r: "sent",
    ok=lambda r: r.choice(("ok", "success", "done")),
    code=code,
    title=title,
    url=url,
    words=lambda r: phrase(r, 2, 6),
    curr=lambda r: r.choice(CURR),
    date=date,
    clock=clock,
    path=path,
    files=lambda r: ", ".join(w + ".txt" for w in words(r, r.randint(1, 4))),
    zero=lambda r: 0,
    status=lambda r: r.choice((200, 200, 404, 500, 403)),
    ostatus=lambda r: r.choice("shipped packed delayed processing delivered".split()),
)
POLITE = (
    "",
    "",
    "",
    "",
    "Please ",
    "Can you ",
    "Could you ",
    "Hey, ",
    "I need you to ",
    "Would you ",
    "Now ",
)
VERBS = set("""
    send email write text tell message add schedule put show set wake play search look find give
    check translate convert exchange calculate compute book get reserve order save make read
    open list delete remove move transfer run execute fetch call select create register
    deactivate track cancel issue refund turn switch heat define roll throw resize scale phone
    ring remind report restart commit rate sum launch start generate use count note
    """.split())


def read_families():
    with open(os.path.join(HERE, "tool_families.txt"), encoding="utf-8") as f:
        lines = [line.rstrip("\n") for line in f]
    return [parse_family(line) for line in lines if not line.startswith("#")]


FAM = read_families()


def make_tool(r, fam, obf=False):
    """-> tool schema, {slot: name of its parameter}; obf hides what the name tells"""
    name = r.choice(fam["names"])
    if obf:
        name = "_".join(words(r, 2)) if r.random() < 0.7 else r.choice(WORDS)
    elif r.random() < 0.15:
        name = r.choice(WORDS) + "_" + name
    elif r.random() < 0.08:
        name = re.sub(r"_(\w)", lambda m: m[1].upper(), name)
    keys, props, req, used = {}, {}, [], set()
    slots = [(s, o) for s, o in fam["slots"] if not (o and r.random() < 0.35)]
    if r.random() < 0.4:
        slots = r.sample(slots, len(slots))
    for s, o in slots:
        d = SLOTS[s]
        ks = [k for k in d["keys"] if k not in used] or [d["keys"][0] + "_2"]
        k = ks[0] if r.random() < 0.4 else r.choice(ks)
        used.add(k)
        keys[s] = k
        p = {"type": d["typ"]}
        if d["typ"] == "array":
            p["items"] = {"type": "string" if s == "tags" else "integer"}
        if r.random() < 0.7:
            p["description"] = d["desc"]
        if d["enum"]:
            p["enum"] = d["enum"] if r.random() < 0.6 else r.sample(d["enum"], len(d["enum"]))
        props[k] = p
        if not o:
            req.append(k)
    tool = {
        "type": "function",
        "function": {
            "name": name,
            "description": fam["desc"] + r.choice(("", "", ".")),
            "parameters": {"type": "object", "properties": props, "required": req},
        },
    }
    return tool, keys


def make_request(r, fam, keys):
    """-> user text, arguments (in schema order), slot values"""
    vals, optional = {}, []
    for s, o in fam["slots"]:
        if s not in keys:
            continue
        if o and r.random() < 0.5:
            continue
        vals[s] = SLOTS[s]["gen"](r)
        if o:
            optional.append(s)
    if "city2" in vals and vals["city2"] == vals.get("origin"):
        vals["city2"] = r.choice([c for c in CITIES if c != vals["origin"]])
    if "cto" in vals and vals["cto"] == vals.get("cfrom"):
        vals["cto"] = r.choice([c for c in CURR if c != vals["cfrom"]])
    show = {
        s: (
            ", ".join(map(str, v))
            if isinstance(v, list)
            else keys[s].replace("_", " ") if v is True else v
        )
        for s, v in vals.items()
    }
    t = r.choice(fam["main"]).format(**show)
    for s in optional:
        t += r.choice(fam["opt"][s]).format(**show)
    return t, {k: vals[s] for s, k in keys.items() if s in vals}, show


def politely(r, t):
    """The request with a polite beginning or end, now and then."""
    p = r.choice(POLITE)
    w = t.split()[0].lower().strip(",:")
    if p and w in VERBS:
        t = p + (t[0].lower() + t[1:] if t.split()[0].isalpha() else t)
    if p.startswith(("Can", "Could", "Would")) and w in VERBS and t[-1] not in "?.":
        t += "?"
    elif r.random() < 0.3 and t[-1].isalnum():
        t += r.choice((".", " please", "!", ", thanks"))
    return t


def tool_setup(r):
    """One to four tools -> families, schemas, parameter names"""
    n = r.choices((1, 2, 3, 4), (30, 30, 25, 15))[0]
    fams = r.sample(FAM, n)
    obf = r.random() < 0.2
    made = [make_tool(r, f, obf) for f in fams]
    seen = set()
    for t, _ in made:
        while t["function"]["name"] in seen:
            t["function"]["name"] += "_2"
        seen.add(t["function"]["name"])
    return fams, [t for t, _ in made], [k for _, k in made]


def tool_think(r, tool, args):
    """The thought before a call."""
    n = tool["function"]["name"]
    return r.choice((f"The tool {n} fits. ", f"I should call {n}. ", f"I need {n} for this. ")) + (
        "Parameters: "
        + ", ".join(f"{k} = {v if isinstance(v, str) else js(v)}" for k, v in args.items())
        + "."
        if args
        else ""
    )


def result_of(r, fam, show):
    """What a tool answers, as JSON -> result, the assistant's sentence"""
    res = {k: RESULT_VALUES[g](r) for k, g in fam["res"]}
    return js(res), r.choice(fam["ans"]).format(**{**show, **res})
