"""Questions with one right answer, small talk and stories.

A maker q_* returns the question, the answer, the thought before it, and a key: questions of the same
key count as the same question when some are held out.
"""

from world import (
    ANIMALS,
    CAPITALS,
    CITIES,
    COLORS,
    CONTINENT,
    DAYS,
    ELEMENTS,
    FRUIT,
    JOBS,
    MDAYS,
    MONTHS,
    NAMES,
    NUM,
    OPP,
    PAST,
    PLANETS,
    PLURAL,
    SOUNDS,
    UNITS,
    WORDS,
    YOUNG,
    code,
    is_heldout,
    phrase,
    words,
)


def q_add(r):
    a, b = r.randint(0, 99), r.randint(0, 99)
    s = a + b
    q = r.choice(
        (
            "What is {a} + {b}?",
            "What is {a} plus {b}?",
            "Calculate {a} + {b}.",
            "Add {a} and {b}.",
            "{a} + {b} = ?",
            "How much is {a} + {b}?",
        )
    ).format(a=a, b=b)
    u, v = a % 10 + b % 10, a // 10 + b // 10
    think = (
        f"Ones: {a % 10} + {b % 10} = {u}. "
        + (f"Write {u % 10}, carry 1. " if u > 9 else "")
        + f"Tens: {a // 10} + {b // 10}"
        + (" + 1" if u > 9 else "")
        + f" = {v + (u > 9)}. Result {s}."
    )
    return q, f"{a} + {b} = {s}", think, f"add {a} {b}"


def q_sub(r):
    a, b = sorted((r.randint(0, 99), r.randint(0, 99)), reverse=True)
    q = r.choice(
        (
            "What is {a} - {b}?",
            "What is {a} minus {b}?",
            "Subtract {b} from {a}.",
            "{a} - {b} = ?",
            "Calculate {a} - {b}.",
        )
    ).format(a=a, b=b)
    return (
        q,
        f"{a} - {b} = {a - b}",
        f"I take {b} away from {a}: {a} - {b} = {a - b}.",
        f"sub {a} {b}",
    )


def q_mul(r):
    a, b = r.randint(0, 12), r.randint(0, 12)
    q = r.choice(
        (
            "What is {a} times {b}?",
            "What is {a} * {b}?",
            "Multiply {a} by {b}.",
            "{a} x {b} = ?",
            "Calculate {a} times {b}.",
        )
    ).format(a=a, b=b)
    return q, f"{a} * {b} = {a * b}", f"The table of {a}: {a} * {b} = {a * b}.", q


def q_div(r):
    a, b = r.randint(0, 12), r.randint(1, 12)
    q = r.choice(("What is {p} divided by {b}?", "Divide {p} by {b}.", "{p} / {b} = ?")).format(
        p=a * b, b=b
    )
    return q, f"{a * b} / {b} = {a}", f"{b} * {a} = {a * b}, so the answer is {a}.", q


def q_cmp(r):
    a, b = r.sample(range(1000), 2)
    if r.random() < 0.5:
        return (
            f"Which number is {r.choice(('larger', 'bigger', 'greater'))}, {a} or {b}?",
            f"{max(a, b)}",
            f"{max(a, b)} > {min(a, b)}.",
            f"cmp {a} {b}",
        )
    return (
        f"Which number is {r.choice(('smaller', 'lower'))}, {a} or {b}?",
        f"{min(a, b)}",
        f"{min(a, b)} < {max(a, b)}.",
        f"cmp {a} {b}",
    )


def q_even(r):
    a = r.randint(0, 999)
    return (
        f"Is {a} even or odd?",
        f"{a} is {'odd' if a % 2 else 'even'}.",
        f"The last digit is {a % 10}.",
        f"even {a}",
    )


def q_next(r):
    a = r.randint(0, 999)
    if r.random() < 0.5:
        return f"What number comes after {a}?", f"{a + 1}", f"{a} + 1 = {a + 1}.", f"next {a}"
    return f"What number comes before {a + 1}?", f"{a}", f"{a + 1} - 1 = {a}.", f"prev {a}"


def q_seq(r):
    s, d = r.randint(0, 30), r.randint(1, 10)
    x = [s + d * i for i in range(5)]
    return (
        f"Continue the sequence: {', '.join(map(str, x[:4]))}, ...",
        f"The next number is {x[4]}.",
        f"Each step adds {d}. {x[3]} + {d} = {x[4]}.",
        f"seq {s} {d}",
    )


def q_day(r):
    i, n = r.randrange(7), r.randint(1, 6)
    f = r.random()
    D = DAYS
    if f < 0.3:
        q, a = (
            r.choice((f"What day comes after {D[i]}?", f"Which day follows {D[i]}?")),
            D[(i + 1) % 7],
        )
    elif f < 0.6:
        q, a = (
            r.choice(
                (f"What day comes before {D[i]}?", f"If today is {D[i]}, what day was yesterday?")
            ),
            D[(i - 1) % 7],
        )
    elif f < 0.8:
        q, a = f"If today is {D[i]}, what day is it in {n} days?", D[(i + n) % 7]
    else:
        q, a = f"What day is {n} days after {D[i]}?", D[(i + n) % 7]
    return (
        q,
        a,
        "Counting from " + D[i] + ": " + ", ".join(D[(i + j) % 7] for j in range(1, 7)) + ".",
        q,
    )


def q_month(r):
    i, n = r.randrange(12), r.randint(1, 11)
    f = r.random()
    M = MONTHS
    if f < 0.25:
        q, a = f"Which month comes after {M[i]}?", M[(i + 1) % 12]
    elif f < 0.5:
        q, a = f"Which month comes before {M[i]}?", M[i - 1]
    elif f < 0.75:
        q, a = f"How many days does {M[i]} have?", f"{M[i]} has {MDAYS[i]} days."
    else:
        q, a = f"What month is {n} months after {M[i]}?", M[(i + n) % 12]
    return q, a, f"{M[i]} is month {i + 1} of 12.", q


def q_capital(r):
    c = r.choice(list(CAPITALS))
    k = CAPITALS[c]
    f = r.random()
    if f < 0.6:
        q, a = (
            r.choice(
                (
                    f"What is the capital of {c}?",
                    f"Which city is the capital of {c}?",
                    f"Tell me the capital of {c}.",
                    f"Name the capital city of {c}.",
                    f"capital of {c}?",
                )
            ),
            f"The capital of {c} is {k}.",
        )
    elif f < 0.8:
        q, a = (
            r.choice(
                (f"Which country has the capital {k}?", f"{k} is the capital of which country?")
            ),
            f"{k} is the capital of {c}.",
        )
    else:
        c = r.choice(list(CONTINENT))
        q, a = (
            r.choice((f"On which continent is {c}?", f"Which continent is {c} in?")),
            f"{c} is in {CONTINENT[c]}.",
        )
    return q, a, "This is a geography question.", q


def q_unit(r):
    a, b, f = r.choice(UNITS)
    n = r.randint(1, 12)
    q = r.choice(
        (f"How many {b} are in {n} {a}?", f"Convert {n} {a} to {b}.", f"What is {n} {a} in {b}?")
    )
    return q, f"{n} {a} = {n * f} {b}", f"One of the {a} is {f} {b}. {n} * {f} = {n * f}.", q


def q_opp(r):
    a, b = r.choice(list(OPP.items()))
    if r.random() < 0.5:
        a, b = b, a
    return (
        (
            q := r.choice(
                (
                    f"What is the opposite of {a}?",
                    f"Give me the opposite of '{a}'.",
                    f"Opposite of {a}?",
                )
            )
        ),
        f"The opposite of {a} is {b}.",
        "I need an antonym.",
        q,
    )


def q_animal(r):
    if r.random() < 0.5:
        a = r.choice(list(SOUNDS))
        q, s = f"What sound does a {a} make?", f"A {a} {SOUNDS[a]}."
    else:
        a = r.choice(list(YOUNG))
        q, s = (
            r.choice((f"What is a young {a} called?", f"What do you call a baby {a}?")),
            f"A young {a} is called a {YOUNG[a]}.",
        )
    return q, s, "This is about animals.", q


def q_fact(r):
    f = r.randrange(4)
    if f == 0:
        a = r.choice(list(ELEMENTS))
        q, s = (
            r.choice((f"What is the chemical symbol for {a}?", f"What is the symbol of {a}?")),
            f"The symbol for {a} is {ELEMENTS[a]}.",
        )
    elif f == 1:
        i = r.randrange(8)
        q, s = (
            f"Which planet is number {i + 1} from the sun?",
            f"{PLANETS[i]} is planet number {i + 1} from the sun.",
        )
    elif f == 2:
        a = r.choice(list(PLURAL))
        q, s = (
            r.choice((f"What is the plural of {a}?", f"Plural of '{a}'?")),
            f"The plural of {a} is {PLURAL[a]}.",
        )
    else:
        a = r.choice(list(PAST))
        q, s = (
            r.choice((f"What is the past tense of {a}?", f"Past tense of '{a}'?")),
            f"The past tense of {a} is {PAST[a]}.",
        )
    return q, s, "I know this.", q


def q_numword(r):
    i = r.randrange(21)
    if r.random() < 0.5:
        return (q := f"Write the number {i} as a word."), NUM[i], "A number word.", q
    return (q := f"Write '{NUM[i]}' as a number."), str(i), "A numeral.", q


def q_sort(r):
    if r.random() < 0.5:
        w = words(r, r.randint(3, 5))
        return (
            r.choice(
                ("Sort these words alphabetically: {}", "Put these words in alphabetical order: {}")
            ).format(", ".join(w)),
            ", ".join(sorted(w)),
            "I order them by first letters.",
            "sort " + " ".join(w),
        )
    x = r.sample(range(100), r.randint(3, 6))
    d = r.random() < 0.4
    return (
        (
            "Sort these numbers from largest to smallest: "
            if d
            else "Sort these numbers from smallest to largest: "
        )
        + ", ".join(map(str, x)),
        ", ".join(map(str, sorted(x, reverse=d))),
        "I order the numbers.",
        f"sort {x}",
    )


def q_reverse(r):
    w = words(r, r.randint(3, 6))
    return (
        r.choice(
            ("Reverse the order of these words: {}", "Write these words in reverse order: {}")
        ).format(" ".join(w)),
        " ".join(w[::-1]),
        "I go from the last word to the first.",
        "rev " + " ".join(w),
    )


def q_pick(r):
    w = words(r, r.randint(3, 7))
    s = ", ".join(w)
    i = r.randrange(min(len(w), 5))
    o = ("first", "second", "third", "fourth", "fifth")[i]
    f = r.randrange(4)
    if f == 0:
        q, a = f"What is the {o} word in this list: {s}?", w[i]
    elif f == 1:
        q, a = f"What is the last word in this list: {s}?", w[-1]
    elif f == 2:
        q, a = f"How many words are in this list: {s}?", str(len(w))
    else:
        q, a = r.choice((f"Repeat these words: {s}", f"Copy this list exactly: {s}")), s
    return q, a, "I look at the list.", q


def q_case(r):
    s = phrase(r, 2, 6)
    f = r.randrange(3)
    if f == 0:
        return f"Write this in capital letters: {s}", s.upper(), "Upper case.", "up " + s
    if f == 1:
        return f"Write this in lower case: {s.upper()}", s, "Lower case.", "low " + s
    return f"Capitalize each word: {s}", s.title(), "Title case.", "title " + s


def q_spell(r):
    w = r.choice(WORDS)
    if r.random() < 0.5:
        return f"Spell the word '{w}'.", "-".join(w), "Letter by letter.", "spell " + w
    return (
        f"How many letters are in the word '{w}'?",
        f"The word '{w}' has {len(w)} letters.",
        "-".join(w) + f": {len(w)} letters.",
        "len " + w,
    )


def q_read(r):
    a, b = r.sample(NAMES, 2)
    x, y = r.sample(FRUIT, 2)
    n, m = r.randint(2, 20), r.randint(1, 20)
    c = r.sample(CITIES, 2)
    j = r.sample(JOBS, 2)
    co = r.sample(COLORS, 2)
    f = r.randrange(6)
    if f == 0:
        t, q, s = (
            f"{a} has {n} {x}. {b} gives {a} {m} more {x}.",
            f"How many {x} does {a} have now?",
            f"{a} has {n + m} {x}.",
        )
    elif f == 1:
        n += m
        t, q, s = (
            f"{a} has {n} {x} and gives {m} of them to {b}.",
            f"How many {x} does {a} have left?",
            f"{a} has {n - m} {x} left.",
        )
    elif f == 2:
        t = f"{a} lives in {c[0]} and works as a {j[0]}. {b} lives in {c[1]} and works as a {j[1]}."
        p, i = r.choice(((a, 0), (b, 1)))
        q, s = r.choice(
            (
                (f"Where does {p} live?", f"{p} lives in {c[i]}."),
                (f"What is the job of {p}?", f"{p} works as a {j[i]}."),
            )
        )
    elif f == 3:
        t = f"The {x} are {co[0]}. The {y} are {co[1]}."
        z, i = r.choice(((x, 0), (y, 1)))
        q, s = f"What color are the {z}?", f"The {z} are {co[i]}."
    elif f == 4:
        p = r.sample(("kitchen", "garden", "office", "bathroom", "hallway", "garage"), 2)
        t = f"{a} went to the {p[0]}. {b} went to the {p[1]}. {a} took the {x}."
        q, s = f"Where are the {x}?", f"The {x} are in the {p[0]}."
    else:
        k = r.choice(("code", "password", "room number", "order number"))
        v = code(r)
        t = f"{a} writes: the {k} is {v}. Please remember it."
        q, s = f"What is the {k}?", f"The {k} is {v}."
    return (
        r.choice((f"{t} {q}", f"{t}\n{q}", f"Read the text and answer.\n\n{t}\n\n{q}")),
        s,
        f"The text says: {t}",
        t + q,
    )


QA = [
    (q_add, 5),
    (q_sub, 3),
    (q_mul, 3),
    (q_div, 2),
    (q_cmp, 1),
    (q_even, 1),
    (q_next, 1),
    (q_seq, 1),
    (q_day, 2),
    (q_month, 2),
    (q_capital, 4),
    (q_unit, 3),
    (q_opp, 2),
    (q_animal, 1),
    (q_fact, 2),
    (q_numword, 0.5),
    (q_sort, 3),
    (q_reverse, 2),
    (q_pick, 3),
    (q_case, 1.5),
    (q_spell, 1.5),
    (q_read, 5),
]
QF, QW = zip(*QA)


def qa(r, heldout=False):
    """A question of a random kind -> question, answer, thought, kind"""
    while True:
        f = r.choices(QF, QW)[0]
        q, a, t, key = f(r)
        if is_heldout(key) == heldout:
            return q, a, t, f.__name__[2:]


CHAT = [
    (
        ("Hello", "Hi", "Hey", "Good morning", "Hi there", "Hello!"),
        (
            "Hello! How can I help you?",
            "Hi! What can I do for you?",
            "Hello! Ask me anything small.",
        ),
    ),
    (
        ("Who are you?", "What is your name?", "What are you?"),
        (
            "I am Sluice, a small language model made of experts.",
            "My name is Sluice. I am a small demo model.",
        ),
    ),
    (("How are you?", "How is it going?"), ("I am fine, thank you. How can I help you?",)),
    (("Thank you!", "Thanks", "Thanks a lot"), ("You are welcome!", "Happy to help.")),
    (
        ("What can you do?", "How can you help me?"),
        ("I can do small sums, sort words, answer simple questions, fill in JSON and call tools.",),
    ),
    (("Goodbye", "Bye", "See you later"), ("Goodbye!", "See you soon!")),
    (("Are you a person?", "Are you human?"), ("No, I am a small language model.",)),
    (
        ("Tell me a joke.", "Do you know a joke?"),
        (
            "Why did the book go to the doctor? It had a broken spine.",
            "What do you call a sleeping bull? A bulldozer.",
            "Why was six afraid of seven? Because seven ate nine.",
        ),
    ),
]


def story(r):
    """-> request, story, thought, key"""
    kind = r.choice(ANIMALS)
    n, m = r.sample(NAMES, 2)
    place = r.choice(
        (
            "forest",
            "village",
            "valley",
            "meadow",
            "harbor",
            "mountain",
            "castle",
            "garden",
            "island",
            "desert",
        )
    )
    adj = r.choice(
        ("small", "brave", "curious", "shy", "clever", "lazy", "kind", "hungry", "proud", "old")
    )
    thing = r.choice(
        (
            "golden key",
            "old map",
            "lost letter",
            "silver bell",
            "blue lantern",
            "wooden boat",
            "magic seed",
            "red kite",
            "warm blanket",
            "glass marble",
        )
    )
    helper = r.choice([a for a in ANIMALS if a != kind])
    prob = r.choice(
        (
            "a storm came",
            "the river rose",
            "night fell",
            "snow covered the path",
            "a loud noise shook the ground",
            "thick fog hid the way",
        )
    )
    q = r.choice(
        (
            f"Tell me a short story about a {kind}.",
            f"Write a story about a {adj} {kind} named {n}.",
            f"Tell me a story about {n} the {kind} and a {thing}.",
            f"Can you tell a short story about a {kind} in a {place}?",
            f"Write a short story with a {kind} and a {helper}.",
        )
    )
    s = [
        r.choice(
            (
                f"Once upon a time, there was a {adj} {kind} named {n} who lived in a {place}.",
                f"In a quiet {place} lived a {adj} {kind} called {n}.",
                f"{n} was a {adj} {kind} who lived near a {place}.",
            )
        ),
        r.choice(
            (
                f"One day, {n} found a {thing} under a tree.",
                f"One morning, {n} woke up and saw a {thing} by the door.",
                f"Every day {n} dreamed of finding a {thing}.",
            )
        ),
        r.choice(
            (
                f'"Who could have lost this?" asked {n}.',
                f"{n} wanted to show it to everyone.",
                f"{n} decided to keep it safe.",
                f"{n} did not know what to do with it.",
            )
        ),
        r.choice(
            (
                f"On the way home, {prob}, and {n} was afraid.",
                f"But then {prob}.",
                f"Suddenly, {prob}.",
            )
        ),
        r.choice(
            (
                f'A {helper} named {m} came along and said, "Do not worry, I will help you."',
                f"Luckily, a {helper} called {m} was near.",
                f"Then {n} met {m}, a friendly {helper}.",
            )
        ),
        r.choice(
            (
                "Together they walked until they were safe.",
                f"{m} showed {n} the way back to the {place}.",
                "They waited side by side until the sun came back.",
            )
        ),
        r.choice(
            (
                f"From that day on, {n} and {m} were best friends.",
                f"{n} gave the {thing} to {m} as a gift.",
                "In the evening they shared a meal and laughed.",
            )
        ),
        r.choice(
            (
                "And they lived happily ever after.",
                f"{n} learned that a friend is worth more than a {thing}.",
                "It was the best day of all.",
                f"And that is how {n} learned to ask for help.",
            )
        ),
    ]
    if r.random() < 0.4:
        del s[r.choice((2, 5))]
    if "story about a " + kind + "." in q or "in a" in q:
        pass
    return q, " ".join(s), f"I will write a short story about a {kind}.", "story"
