"""A small closed world: people, places, things and facts, and makers of random values.

Every maker takes a random.Random and draws from it in a fixed order, so that a seed gives the same
conversations again.
"""

import hashlib
import os

HERE = os.path.dirname(os.path.abspath(__file__))


def is_heldout(key):
    """Whether a question with this key is kept for evaluation: 1 of 32."""
    return hashlib.md5(key.encode()).digest()[0] < 8


def pairs(text, separator=None):
    """ "a:b c:d" -> {"a": "b", "c": "d"}"""
    return dict(pair.strip().split(":") for pair in text.split(separator))


def read_words():
    """Common plain words of the text corpus, written by finish_corpus.py."""
    with open(os.path.join(HERE, "words.txt"), encoding="utf-8") as f:
        return f.read().split()


WORDS = read_words()
NAMES = """
    Anna Ben Clara David Emma Felix Grace Henry Ines Jack Kate Leo Maria Noah Olivia Paul Quinn
    Rosa Sam Tina Uma Victor Wendy Xavier Yara Zoe Alice Bruno Chloe Daniel Elena Frank Gina
    Hugo Iris James Karen Lucas Mia Nina Oscar Petra Rita Simon Tara Ursula Vera Walter Ximena
    Yusuf Zara Adam Bella Carlos Diana Erik Fiona George Hannah Ivan Julia Kevin Laura Martin
    Nora Otto Priya Rafael Sara Tom Valentina William Amir Beth Chen Dora Ethan Farah Gus Hana
    Igor Jana Kofi Lily Mateo Naomi Omar Peter Ravi Sofia Theo Vikram Wei Yuki Aisha Boris Cleo
    Dmitri Ella Fatima Greta Hamid Ida Jonas Kira Lars Milo Nadia Owen Pia Roland Stella Timo
    Viola Wanda Zack Agnes Basil Celia Derek Edith Flora Gavin Helen Isaac Joyce Kurt Lena Mabel
    Nils Opal Percy Ruth Silas Trudy Vince Willa Ada Bert Cora Dean Elsie Finn Gail Hal Inga
    Joel Kim Lou Max Nell Ole Pam Rex Sue Ted Val
""".split()
LAST = """
    Smith Jones Brown Garcia Miller Davis Wilson Moore Taylor Thomas Jackson White Harris Martin
    Clark Lewis Lee Walker Hall Young King Wright Lopez Hill Scott Green Adams Baker Nelson
    Carter Mitchell Perez Roberts Turner Phillips Campbell Parker Evans Edwards Collins Stewart
    Morris Rogers Reed Cook Morgan Bell Murphy Bailey Cooper Richardson Cox Howard Ward Peterson
    Gray Watson Brooks Kelly Sanders Price Bennett Wood Barnes Ross Henderson Novak Schmidt
    Rossi Silva Kim Tanaka Khan Patel Ivanov Larsen Berg Fischer Weber Costa Moreau Dubois
    Okafor Mensah Haddad Nguyen
""".split()
CAPITALS = pairs(
    """
    France:Paris; Germany:Berlin; Italy:Rome; Spain:Madrid; Portugal:Lisbon; Poland:Warsaw;
    Austria:Vienna; Greece:Athens; Norway:Oslo; Sweden:Stockholm; Finland:Helsinki;
    Denmark:Copenhagen; Ireland:Dublin; Belgium:Brussels; Hungary:Budapest; Romania:Bucharest;
    Bulgaria:Sofia; Croatia:Zagreb; Serbia:Belgrade; Slovenia:Ljubljana; Slovakia:Bratislava;
    Ukraine:Kyiv; Estonia:Tallinn; Latvia:Riga; Lithuania:Vilnius; Iceland:Reykjavik;
    Russia:Moscow; Turkey:Ankara; Egypt:Cairo; Morocco:Rabat; Tunisia:Tunis; Algeria:Algiers;
    Kenya:Nairobi; Ghana:Accra; Nigeria:Abuja; Ethiopia:Addis Ababa; Senegal:Dakar;
    Uganda:Kampala; Rwanda:Kigali; Zambia:Lusaka; Zimbabwe:Harare; Angola:Luanda; Mali:Bamako;
    Japan:Tokyo; China:Beijing; India:New Delhi; Thailand:Bangkok; Vietnam:Hanoi;
    Indonesia:Jakarta; Malaysia:Kuala Lumpur; Philippines:Manila; South Korea:Seoul;
    Mongolia:Ulaanbaatar; Nepal:Kathmandu; Pakistan:Islamabad; Bangladesh:Dhaka; Iran:Tehran;
    Iraq:Baghdad; Jordan:Amman; Lebanon:Beirut; Qatar:Doha; Oman:Muscat; Saudi Arabia:Riyadh;
    Afghanistan:Kabul; Georgia:Tbilisi; Armenia:Yerevan; Canada:Ottawa; Mexico:Mexico City;
    Cuba:Havana; Jamaica:Kingston; Panama:Panama City; Costa Rica:San Jose; Brazil:Brasilia;
    Argentina:Buenos Aires; Chile:Santiago; Peru:Lima; Colombia:Bogota; Venezuela:Caracas;
    Ecuador:Quito; Uruguay:Montevideo; Paraguay:Asuncion; Bolivia:Sucre; Australia:Canberra;
    New Zealand:Wellington; Fiji:Suva; the United States:Washington; the United Kingdom:London;
    the Netherlands:Amsterdam; Switzerland:Bern; Luxembourg:Luxembourg; Malta:Valletta;
    Cyprus:Nicosia; Albania:Tirana; Cambodia:Phnom Penh; Laos:Vientiane; Kazakhstan:Astana;
    Uzbekistan:Tashkent
    """,
    separator=";",
)
CITIES = [
    *CAPITALS.values(),
    *"""
    Boston Chicago Denver Seattle Miami Dallas Atlanta Phoenix Portland Detroit Toronto Montreal
    Vancouver Munich Hamburg Cologne Milan Naples Turin Venice Florence Barcelona Valencia
    Seville Porto Lyon Marseille Nice Bordeaux Lille Geneva Zurich Basel Krakow Gdansk
    Manchester Liverpool Leeds Glasgow Edinburgh Cardiff Cork Galway Bergen Malmo Aarhus Turku
    Antwerp Ghent Rotterdam Utrecht Istanbul Izmir Dubai Mumbai Chennai Kolkata Karachi Lahore
    Osaka Kyoto Nagoya Sapporo Shanghai Shenzhen Busan Sydney Melbourne Perth Brisbane Auckland
    Lagos Casablanca Durban Recife Salvador Cordoba Rosario Medellin Cusco
    """.split(),
]
COUNTRIES = {
    "Europe": """
        France Germany Italy Spain Portugal Poland Austria Greece Norway Sweden Finland Denmark
    Ireland Belgium Hungary Romania Bulgaria Croatia Serbia Ukraine Estonia Latvia Iceland
    """,
    "Africa": """
        Egypt Morocco Tunisia Algeria Kenya Ghana Nigeria Ethiopia Senegal Uganda Rwanda Zambia
    Angola Mali
    """,
    "Asia": """
        Japan China India Thailand Vietnam Indonesia Malaysia Mongolia Nepal Pakistan Iran Iraq
    Jordan Qatar
    """,
    "South America": """
        Brazil Argentina Chile Peru Colombia Venezuela Ecuador Uruguay Paraguay Bolivia
    """,
    "North America": """
        Canada Mexico Cuba Jamaica Panama
    """,
}
CONTINENT = {country: name for name, text in COUNTRIES.items() for country in text.split()}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """
    January February March April May June July August September October November December
""".split()
MDAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
NUM = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty
""".split()
OPP = pairs("""
    hot:cold big:small up:down left:right day:night black:white fast:slow happy:sad open:closed
    full:empty hard:soft high:low early:late rich:poor strong:weak old:young wet:dry clean:dirty
    loud:quiet light:dark near:far long:short thick:thin true:false start:end win:lose give:take
    push:pull buy:sell laugh:cry love:hate wide:narrow deep:shallow sharp:blunt cheap:expensive
    brave:afraid easy:difficult inside:outside north:south east:west arrive:leave first:last
    always:never everything:nothing friend:enemy heavy:weightless smooth:rough sweet:sour
    summer:winter question:answer
    """)
SOUNDS = pairs("""
    dog:barks cat:meows cow:moos duck:quacks sheep:bleats horse:neighs lion:roars bee:buzzes
    snake:hisses owl:hoots pig:oinks frog:croaks wolf:howls mouse:squeaks rooster:crows
    crow:caws
    """)
YOUNG = pairs("""
    dog:puppy cat:kitten cow:calf duck:duckling sheep:lamb horse:foal lion:cub pig:piglet
    goat:kid frog:tadpole bear:cub hen:chick deer:fawn goose:gosling swan:cygnet kangaroo:joey
    """)
COLORS = """
    red blue green yellow orange purple pink brown black white gray silver gold turquoise violet
    crimson
""".split()
ANIMALS = """
    fox rabbit bear owl mouse cat dog wolf deer hedgehog squirrel otter badger frog turtle
    sparrow goat donkey beaver raven
""".split()
FOODS = """
    pizza pasta soup salad sushi tacos curry rice bread cheese burger sandwich pancakes noodles
    dumplings lasagna risotto ramen falafel waffles
""".split()
FRUIT = """
    apples oranges pears bananas lemons plums cherries melons grapes peaches eggs books pencils
    marbles stamps coins buttons tickets cups candles
""".split()
JOBS = """
    doctor teacher engineer baker painter nurse lawyer farmer pilot writer carpenter chef singer
    programmer gardener plumber dentist librarian sailor tailor
""".split()
LANGS = """
    French German Spanish Italian Portuguese Polish Dutch Swedish Greek Turkish Russian Arabic
    Hindi Japanese Korean Chinese Finnish Czech Danish Norwegian
""".split()
CURR = """
    USD EUR GBP JPY CHF CAD AUD SEK NOK DKK PLN CZK HUF INR CNY BRL MXN ZAR TRY NZD
""".split()
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
ELEMENTS = pairs("""
    hydrogen:H helium:He carbon:C nitrogen:N oxygen:O neon:Ne sodium:Na magnesium:Mg
    aluminium:Al silicon:Si sulfur:S chlorine:Cl potassium:K calcium:Ca iron:Fe copper:Cu
    zinc:Zn silver:Ag tin:Sn iodine:I gold:Au mercury:Hg lead:Pb uranium:U
    """)
PLURAL = pairs("""
    child:children mouse:mice foot:feet tooth:teeth goose:geese man:men woman:women
    person:people ox:oxen leaf:leaves knife:knives wolf:wolves life:lives city:cities
    baby:babies box:boxes bus:buses church:churches potato:potatoes sheep:sheep fish:fish
    cat:cats book:books tree:trees
    """)
PAST = pairs("""
    go:went eat:ate see:saw run:ran take:took give:gave come:came write:wrote speak:spoke
    drink:drank swim:swam sing:sang buy:bought bring:brought think:thought teach:taught
    catch:caught sleep:slept keep:kept leave:left find:found make:made know:knew grow:grew
    fly:flew drive:drove break:broke choose:chose begin:began fall:fell walk:walked play:played
    """)
UNITS = [
    ("kilometers", "meters", 1000),
    ("meters", "centimeters", 100),
    ("kilograms", "grams", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("feet", "inches", 12),
    ("liters", "milliliters", 1000),
    ("dozens", "items", 12),
    ("centimeters", "millimeters", 10),
    ("yards", "feet", 3),
    ("decades", "years", 10),
    ("tonnes", "kilograms", 1000),
    ("pounds", "ounces", 16),
]


def words(r, n):
    """n different words."""
    return r.sample(WORDS, n)


def title(r):
    return " ".join(w.capitalize() for w in words(r, r.choice((2, 2, 3))))


def phrase(r, a=2, b=5):
    return " ".join(words(r, r.randint(a, b)))


def person(r):
    return r.choice(NAMES) + " " + r.choice(LAST)


def code(r):
    return (
        "".join(r.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(r.randint(2, 3)))
        + r.choice(("-", "", "-"))
        + str(r.randint(100, 99999))
    )


def email(r):
    return (
        r.choice(
            (
                r.choice(NAMES).lower() + "." + r.choice(LAST).lower(),
                r.choice(NAMES).lower() + str(r.randint(1, 99)),
                r.choice(WORDS),
            )
        )
        + "@"
        + r.choice(WORDS)
        + r.choice((".com", ".org", ".net", ".io"))
    )


def phone(r):
    return r.choice(("555-", "+1-555-", "0")) + "".join(
        str(r.randint(0, 9)) for _ in range(r.randint(4, 7))
    )


def path(r):
    return (
        r.choice(("/home/", "/data/", "/var/", "docs/", "src/", "/tmp/", "~/"))
        + "/".join(words(r, r.randint(1, 2)))
        + r.choice((".txt", ".md", ".csv", ".json", ".log", ".py", ".pdf"))
    )


def folder(r):
    return r.choice(("/home/", "/data/", "/srv/", "/etc/", "/opt/", "~/")) + "/".join(
        words(r, r.randint(1, 2))
    )


def url(r):
    return (
        "https://"
        + r.choice(("www.", "api.", ""))
        + r.choice(WORDS)
        + r.choice((".com", ".org", ".net"))
        + "/"
        + r.choice(WORDS)
    )


def date(r):
    return f"{r.randint(2024, 2029)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}"


def clock(r):
    return f"{r.randint(0, 23):02d}:{r.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02d}"


def when(r):
    return r.choice(
        (r.choice(DAYS), "tomorrow", "today", f"{r.choice(MONTHS)} {r.randint(1, 28)}", date(r))
    )


def lst(x):
    """a, b and c"""
    return ", ".join(x[:-1]) + " and " + x[-1]
