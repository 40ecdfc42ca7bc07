"""bench/svg_plot.py: well-formed, the same every time, everything in its place, readable without colours."""

import re
import unittest
import xml.etree.ElementTree as ElementTree

import scripts  # noqa: F401  (finds the next)
import svg_plot
from svg_plot import Axis, Band, Group, Limit, Series, bars, plot

SVG = "{http://www.w3.org/2000/svg}"


def a_plot(**words):
    return plot("Time & <law>", Axis("experts"), Axis("time (ms)"),
                [Series("measured", [(1, 2, 1.5, 3), (2, 4), (4, None)], "points"),
                 Series("law", [(1, 2), (2, 4)], "dashed", 0), Series("steps", [(1, 1), (2, 3)], "steps")],
                [Band("within 10 %", [(1, 1, 2), (2, 3, 5)])], description="What <it> says.", **words)  # fmt: skip


def some_bars(**words):
    return bars("Speed", "cap", Axis("tok/s"), ["none", "8 GiB"],
                [Group("a", [19, 6], [(18, 20), None]), Group("b", [11, None])], **words)  # fmt: skip


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter(SVG + "text")]


class Plots(unittest.TestCase):
    def test_all_kinds_are_well_formed_and_the_same_every_time(self):
        for draw in (a_plot, some_bars, lambda: some_bars(stacked=True), lambda: some_bars(notes=["x & y"]),
                     lambda: plot("", Axis("x", log=True), Axis("y", log=True), []),
                     lambda: bars("", "x", Axis("y"), [], [])):  # fmt: skip
            ElementTree.fromstring(draw())
            self.assertEqual(draw(), draw())
            self.assertNotRegex(draw(), r"\b(nan|inf|None)\b")

    def test_names_stay_text_and_are_read_out(self):
        svg = a_plot(notes=["Law: linear."])
        root = ElementTree.fromstring(svg)
        self.assertEqual(root.find(SVG + "title").text, "Time & <law>")
        self.assertEqual(root.find(SVG + "desc").text, "What <it> says. Law: linear.")
        self.assertEqual(root.get("role"), "img")
        for words in ("Time & <law>", "experts", "time (ms)", "measured", "law", "within 10 %", "Law: linear."):
            self.assertIn(words, texts(svg))

    def test_colours_follow_the_page_and_nothing_covers_it(self):
        self.assertIn("prefers-color-scheme:dark", a_plot())
        self.assertNotIn('fill="white"', a_plot())

    def test_series_differ_in_shape_and_dash_as_well(self):
        svg = a_plot()
        self.assertEqual(svg.count("<circle"), 2 + 1, "two points and the key")
        self.assertEqual(svg.count('class="line s0 dashed"'), 2)
        marks = {re.sub(r"[0-9.]+", "", svg_of_mark(i)) for i in range(4)}
        self.assertEqual(len(marks), 4)

    def test_an_error_bar_spans_its_range(self):
        svg = plot("", Axis("x"), Axis("y"), [Series("m", [(1, 2, 1, 4)], "points")])
        frame = re.findall(r'class="s0" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', svg)
        (x0, low, x1, high), *_ = frame
        middle = re.search(r'cy="([\d.]+)" r="4"/>\n', svg).group(1)
        self.assertEqual(x0, x1)
        self.assertGreater(float(low), float(middle))
        self.assertAlmostEqual(float(middle) - float(high), 2 * (float(low) - float(middle)), delta=0.2)

    def test_scales_put_values_in_their_places(self):
        linear = svg_plot.Scale(Axis("x"), [0, 10], 100, 200)
        self.assertEqual([linear(v) for v in (0, 5, 10)], [100, 150, 200])
        log = svg_plot.Scale(Axis("x", log=True, low=1, high=100), [1, 100], 0, 2)
        self.assertAlmostEqual(log(10), 1)

    def test_ticks_are_round_and_cover_the_values(self):
        self.assertEqual(svg_plot.round_ticks(0, 10), [0, 2, 4, 6, 8, 10])
        self.assertEqual(svg_plot.round_ticks(0, 3.5), [0, 1, 2, 3, 4])
        self.assertEqual(svg_plot.log_ticks(0.9, 60), [1, 2, 5, 10, 20, 50])

    def test_numbers_have_no_powers_of_ten(self):
        pairs = [(0, "0"), (32768, "32,768"), (0.25, "0.25"), (19.0879, "19.09"), (-2, "-2"), (1e-3, "0.001")]
        for value, text in pairs:
            self.assertEqual(svg_plot.number_text(value), text)
        self.assertEqual(svg_plot.number_text(19.0879, 3), "19.1")


class Bars(unittest.TestCase):
    def test_missing_bars_are_left_out_and_limits_drawn_across(self):
        svg = some_bars(limits=[Limit("hardware", [20, 7])])
        self.assertEqual(len(re.findall("<rect", svg)), 3 + 2, "three bars and two keys")
        self.assertEqual(svg.count('class="limit"'), 2 + 1)
        self.assertIn("11", texts(svg))

    def test_stacked_bars_stand_on_one_another(self):
        svg = bars("", "x", Axis("y"), ["c"], [Group("a", [1]), Group("b", [3])], stacked=True)
        rects = [(float(y), float(h)) for y, h in re.findall(r'<rect class="f\d" x="[\d.]+" y="([\d.]+)" '
                                                             r'width="[\d.]+" height="([\d.]+)"/>', svg)][:2]
        self.assertAlmostEqual(rects[0][0], rects[1][0] + rects[1][1], delta=0.11)
        self.assertAlmostEqual(rects[1][1], 3 * rects[0][1], delta=0.3)
        self.assertIn("4", texts(svg))


def svg_of_mark(colour):
    canvas = svg_plot.Canvas()
    canvas.mark(colour, 0, 0)
    return canvas.lines[0].replace(f"f{colour}", "f")


if __name__ == "__main__":
    unittest.main()
