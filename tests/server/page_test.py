"""The web page in a real browser (Chromium), against the real server. From scripts/test-venv."""

import json
import os
import unittest

from playwright.sync_api import sync_playwright

from support import HERE, Server

PAGE = os.path.join(HERE, "..", "..", "src", "server", "page")
CHROMIUM = os.environ.get("PENSTOCK_CHROMIUM", "/usr/bin/chromium")
QUESTION = "What is the capital of Portugal?"
PATIENCE_MS = 120_000  # a machine at work with other tests is slow, which is no fault of the page
ANSWER = "The capital of Portugal is Lisbon."
# What a model might say to make a page run something.
HOSTILE = (
    "<script>window.hit=1</script> <img src=x onerror='window.hit=1'> [a](javascript:window.hit=1) "
    "<svg onload='window.hit=1'></svg> ![x](data:text/html,<script>window.hit=1</script>)\n\n"
    "```html\n<script>window.hit=1</script>\n```\n" + "x" * 1_000_000
)


def launch(playwright):
    return playwright.chromium.launch(
        executable_path=CHROMIUM, timeout=PATIENCE_MS,
        # Containers give little shared memory and no graphics; a browser that runs out of either just dies.
        args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.playwright = sync_playwright().start()
        cls.browser = launch(cls.playwright)

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.playwright.stop()
        assert cls.server.stop() == 0, cls.server.text()

    def setUp(self):
        self.context = self.browser.new_context(
            # The driver evaluates text in the page, which the page's own policy refuses to everybody.
            bypass_csp=True, viewport={"width": 1400, "height": 900}, accept_downloads=True)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.complaints, self.outside = [], []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda r: self.outside.append(r.url) if not r.url.startswith((self.server.address, "blob:")) else None)
        self.page.goto(self.server.address + "/")
        self.page.wait_for_function("document.querySelector('#status').textContent == 'demo-model'")

    def tearDown(self):
        self.assertEqual(self.complaints, [])
        self.assertEqual(self.outside, [])
        self.context.close()

    # Texts are read as the document has them: what a message shows is not known before the browser has
    # looked which messages are near (content-visibility), and inner_text() of it is empty until then.
    def ask(self, text):
        answers = self.page.locator(".message.assistant").count()
        self.page.fill("#input", text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_function(f"document.querySelectorAll('.message.assistant .figures').length > {answers}")
        return self.page.locator(".message.assistant .md").last.text_content()

    def begin_long_answer(self):
        # A server at work with nothing else answers this in a second or two: it is not to end by itself.
        self.page.route("**/v1/chat/completions", lambda route: route.continue_(
            post_data=json.dumps({**json.loads(route.request.post_data), "ignore_eos": True})))
        self.page.fill("#input", "Tell me a long story about the sea, the wind and the stars.")
        self.page.keyboard.press("Enter")
        self.page.wait_for_function("document.querySelector('.message.assistant .md')?.innerText.length > 0")
        self.page.unroute("**/v1/chat/completions")

    def test_a_conversation_is_kept_edited_branched_and_asked_again(self):
        page = self.page
        self.assertEqual(self.ask(QUESTION), ANSWER)
        self.assertEqual(page.title(), f"{QUESTION} · penstock")
        page.reload()
        page.get_by_role("button", name=QUESTION, exact=True).click()
        self.assertEqual(page.locator(".message").count(), 2)
        page.locator(".message.user").hover()
        page.locator(".message.user").get_by_text("Edit").click()
        page.locator(".editor textarea").fill("What is the capital of Mongolia?")
        page.locator(".editor").get_by_text("Send").click()
        page.wait_for_function("document.querySelector('.message.assistant .figures')")
        self.assertIn("Ulaanbaatar", page.locator(".message.assistant .md").text_content())
        self.assertIn("2/2", page.locator(".message.user .branch").text_content())
        page.get_by_label("Earlier version").click()
        self.assertEqual(page.locator(".message.assistant .md").text_content(), ANSWER)
        page.locator(".message.assistant").get_by_text("Again").click()
        page.wait_for_function("document.querySelector('.message.assistant .branch')")
        page.wait_for_function("document.querySelector('.message.assistant .figures')")
        self.assertIn("2/2", page.locator(".message.assistant .branch").text_content())

    def test_conversations_go_out_and_come_in_and_are_found(self):
        page = self.page
        self.ask(QUESTION)
        with page.expect_download() as download:
            page.click("#export-all")
        path = download.value.path()
        with open(path, encoding="utf-8") as file:
            exported = json.load(file)
        self.assertEqual(len(exported["conversations"]), 1)
        self.assertTrue(exported["conversations"][0]["created"])
        page.set_input_files("#import-file", {"name": "a.json", "mimeType": "application/json", "buffer": json.dumps(exported).encode()})
        page.wait_for_function("document.querySelectorAll('.entry').length == 2")
        page.set_input_files("#import-file", {"name": "b.json", "mimeType": "application/json", "buffer": b"{}"})
        page.wait_for_function("document.querySelector('#status').classList.contains('bad')")
        page.keyboard.press("Control+k")
        page.keyboard.type("Lisbon")
        self.assertEqual(page.locator(".entry").count(), 2)
        page.fill("#search", "no such words")
        self.assertEqual(page.locator(".entry").count(), 0)

    def test_an_answer_is_stopped_by_a_key(self):
        page = self.page
        before = self.server.metric("cancelled_total", reason="disconnect")
        self.begin_long_answer()
        page.keyboard.press("Escape")
        page.wait_for_selector("#send:visible")
        self.server.wait_until_idle(60)
        self.assertEqual(self.server.metric("cancelled_total", reason="disconnect"), before + 1)
        self.assertIn("stopped", page.locator(".message.assistant .figures").text_content())

    def test_an_answer_that_is_stopped_at_its_first_word_says_so(self):
        page = self.page
        # A server of which the page hears one word, whatever else this machine has to do.
        page.evaluate("""() => {
            const realFetch = window.fetch;
            const oneWord = (signal) => new ReadableStream({ start(stream) {
                stream.enqueue(new TextEncoder().encode('data: {"choices": [{"index": 0, "delta": {"content": "Lisbon"}}]}\\n\\n'));
                signal.addEventListener("abort", () => stream.error(signal.reason));
            } });
            window.fetch = async (address, options) =>
                address.endsWith("/chat/completions") ? new Response(oneWord(options.signal)) : realFetch(address, options);
        }""")
        page.fill("#input", QUESTION)
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('.message.assistant .md')?.textContent == 'Lisbon'")
        page.keyboard.press("Escape")
        page.wait_for_selector("#send:visible")
        self.assertEqual(page.locator(".message.assistant .figures").text_content(), "stopped")

    def test_what_is_sent_while_the_page_still_loads_is_kept(self):
        page = self.page
        self.ask(QUESTION)
        self.assertEqual(page.locator(".entry").count(), 1)
        # A browser whose disk is slow: what was kept comes when the next message was sent long ago.
        self.context.add_init_script("""
            const getAll = IDBObjectStore.prototype.getAll;
            IDBObjectStore.prototype.getAll = function (...given) {
              const request = getAll.apply(this, given);
              const transaction = this.transaction;
              Object.defineProperty(transaction, "oncomplete", { set(done) {
                transaction.addEventListener("complete", () => { window.keptCame = () => done.call(transaction); });
              } });
              return request;
            };""")
        page.reload()
        page.wait_for_function("Boolean(window.keptCame)")
        self.assertEqual(self.ask("What is 2 + 3?") != "", True)
        self.assertEqual(page.locator(".entry").count(), 1)
        page.evaluate("keptCame()")
        page.wait_for_function("document.querySelectorAll('.entry').length == 2")

    def test_a_conversation_that_is_deleted_while_it_is_answered_stays_away(self):
        page = self.page
        page.on("dialog", lambda dialog: dialog.accept())
        self.begin_long_answer()
        page.get_by_label("Delete").click()
        page.wait_for_function("document.querySelectorAll('.entry').length == 0")
        page.wait_for_selector("#send:visible")
        self.server.wait_until_idle(60)
        page.wait_for_timeout(300)
        self.assertEqual(page.locator(".entry").count(), 0)
        page.reload()
        self.ask(QUESTION)
        self.assertEqual(page.locator(".entry").count(), 1)

    def test_a_second_press_sends_nothing_twice(self):
        page = self.page
        page.fill("#input", "Tell me a long story about the sea.")
        page.evaluate("""() => {
            const press = () => document.querySelector("#input").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
            press();
            document.querySelector("#input").value = "And another one.";
            press();
        }""")
        self.assertEqual(page.locator(".message.user").count(), 1)
        self.assertEqual(page.input_value("#input"), "And another one.")
        page.keyboard.press("Escape")
        page.wait_for_selector("#send:visible")

    def test_nothing_that_a_model_says_can_run(self):
        conversation = {"id": "x", "title": "hostile", "system": "", "leaf": "b", "nodes": {
            "a": {"id": "a", "parent": None, "role": "user", "content": HOSTILE},
            "b": {"id": "b", "parent": "a", "role": "assistant", "content": HOSTILE, "reasoning": HOSTILE,
                  "calls": [{"id": "1", "name": "<script>window.hit=1</script>", "arguments": HOSTILE}]}}}
        data = json.dumps({"format": "penstock-conversations", "version": 1, "conversations": [conversation]}).encode()
        self.page.set_input_files("#import-file", {"name": "a.json", "mimeType": "application/json", "buffer": data})
        self.page.get_by_role("button", name="hostile", exact=True).click()
        self.page.wait_for_selector(".message.assistant .code")
        self.page.wait_for_timeout(300)
        self.assertIsNone(self.page.evaluate("window.hit ?? null"))
        self.assertEqual(self.page.locator("#messages script, #messages img, #messages svg, #messages iframe").count(), 0)
        links = self.page.eval_on_selector_all("#messages a", "nodes => nodes.map(n => n.getAttribute('href'))")
        self.assertTrue(all(link.startswith(("http://", "https://", "mailto:")) for link in links), links)

    def test_ten_thousand_messages_stay_usable(self):
        nodes, parent = {}, None
        for i in range(10_000):
            nodes[str(i)] = {"id": str(i), "parent": parent, "role": "assistant" if i % 2 else "user", "content": f"message {i}"}
            parent = str(i)
        data = {"format": "penstock-conversations", "version": 1, "conversations": [{"title": "long", "nodes": nodes, "leaf": parent}]}
        self.page.set_input_files("#import-file", {"name": "a.json", "mimeType": "application/json", "buffer": json.dumps(data).encode()})
        self.page.get_by_role("button", name="long", exact=True).click()
        self.page.wait_for_function("document.querySelectorAll('.message').length == 100")
        self.page.get_by_text("earlier messages").click()
        self.page.wait_for_function("document.querySelectorAll('.message').length == 200")

    def test_the_panel_tells_what_the_engine_does(self):
        page = self.page
        if page.locator("#panel").is_hidden():
            page.click("#toggle-panel")
        self.ask(QUESTION)
        page.wait_for_function("document.querySelector('#panel').innerText.includes('waiting for the disk')")
        # Asked for every half a second, whatever an answer does meanwhile.
        page.wait_for_function("document.querySelector('#panel').innerText.includes('512 of 512 experts fit')")
        page.keyboard.press("Control+.")
        self.assertTrue(page.locator("#panel").is_hidden())

    def test_a_phone_sees_one_column(self):
        self.page.set_viewport_size({"width": 390, "height": 800})
        self.page.reload()
        self.assertEqual(self.ask(QUESTION), ANSWER)
        self.assertLessEqual(self.page.evaluate("document.documentElement.scrollWidth"), 390)
        self.page.click("#open-sidebar")
        self.assertTrue(self.page.locator("#new-chat").is_visible())
        self.page.click("#close-sidebar")


class PolicyTest(unittest.TestCase):
    def test_all_of_the_page_works_under_its_policy(self):
        server = Server()
        try:
            with sync_playwright() as playwright:
                browser = launch(playwright)
                page = browser.new_page(viewport={"width": 1400, "height": 900})  # its policy holds here
                page.set_default_timeout(PATIENCE_MS)
                complaints = []
                page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
                page.on("pageerror", lambda error: complaints.append(str(error)))
                page.goto(server.address + "/")
                page.locator("#status", has_text="demo-model").wait_for()
                page.locator("#input").fill(QUESTION)
                page.keyboard.press("Enter")
                page.locator(".message.assistant .figures").wait_for()
                self.assertEqual(page.locator(".message.assistant .md").text_content(), ANSWER)
                page.locator("#panel", has_text="waiting for the disk").wait_for()
                page.locator("#open-settings").click()
                page.locator("#settings").get_by_text("Done").click()
                page.keyboard.press("?")
                browser.close()
                self.assertEqual(complaints, [])
        finally:
            self.assertEqual(server.stop(), 0)

    def test_the_page_may_load_from_here_alone(self):
        server = Server("--api-key", "secret")
        try:
            status, headers, body = server.get("/")
            self.assertEqual(status, 200)
            self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
            self.assertNotIn("http://", body.replace(server.address, ""))
            names = sorted(os.listdir(PAGE))
            self.assertIn("app.js", names)
            for name in names:
                self.assertEqual(server.get("/" if name == "index.html" else "/page/" + name)[0], 200, name)
            self.assertEqual(server.get("/page/../server.h")[0], 404)
        finally:
            server.stop()


if __name__ == "__main__":
    unittest.main()
