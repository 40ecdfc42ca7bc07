"""What the flags of `serve` change in what it answers."""

import unittest

from support import Server, chat, user

QUESTION = "What is the capital of Portugal?"
ORIGIN = "https://chat.example"


class StrictTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--alias", "sluice,Other-Name", "--strict-model", "--strict-fields", "--reasoning-field", "both",
                            "--reasoning-budget", 5, "--max-tokens", 40, "--page", "off", "--cors-origin", ORIGIN, "--allowed-host", "box.example")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, cls.server.text()

    def test_a_model_goes_by_its_names_and_by_no_other(self):
        self.assertEqual([model["id"] for model in self.server.get("/v1/models")[2]["data"]], ["demo-model", "sluice", "Other-Name"])
        self.assertEqual(self.server.get("/v1/models/sluice")[0], 200)
        self.assertEqual([model["name"] for model in self.server.get("/api/tags")[2]["models"]], ["demo-model", "sluice", "Other-Name"])
        for name, expected in (("demo-model", 200), ("SLUICE", 200), ("other-name", 200), (None, 200), ("gpt-4", 404)):
            for path, body in (("/v1/chat/completions", chat("x", max_tokens=1)), ("/v1/messages", {"messages": user("x"), "max_tokens": 1}),
                               ("/v1/responses", {"input": "x", "max_output_tokens": 1}),
                               ("/api/chat", {"messages": user("x"), "stream": False, "options": {"num_predict": 1}})):
                status, _, answer = self.server.post(path, {**body, "model": name})
                self.assertEqual(status, expected, (path, name, answer))
        answer = self.server.post("/v1/chat/completions", chat("x", model="sluice", max_tokens=1))[2]
        self.assertEqual(answer["model"], "demo-model")  # what is served, whatever it was called

    def test_fields_that_nobody_knows_are_refused_wherever_they_stand(self):
        for path, body, name in (
            ("/v1/chat/completions", chat("x", temprature=1), "temprature"),
            ("/v1/chat/completions", chat("x", stream_options={"usage": True}), "stream_options.usage"),
            ("/v1/messages", {"messages": user("x"), "max_tokens": 1, "output_config": {"effort": "low"}}, "output_config.effort"),
            ("/v1/responses", {"input": "x", "reasoning": {"summary": "auto"}}, "reasoning.summary"),
            ("/v1/responses", {"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
            ("/api/chat", {"messages": user("x"), "options": {"num_ctx": 5}}, "options.num_ctx"),
        ):
            status, _, answer = self.server.post(path, body)
            self.assertEqual(status, 400, path)
            self.assertIn(name, str(answer["error"]))
        self.assertEqual(self.server.post("/v1/chat/completions", chat("x", user="me", metadata={}, store=False, max_tokens=1))[0], 200)

    def test_reasoning_is_told_under_both_names_and_ends_at_its_budget(self):
        body = {"messages": user(QUESTION), "temperature": 0}
        answer = self.server.post("/v1/chat/completions", body)[2]
        message = answer["choices"][0]["message"]
        self.assertTrue(message["reasoning_content"])
        self.assertEqual(message["reasoning"], message["reasoning_content"])
        self.assertLessEqual(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 6)
        together = self.server.post("/v1/chat/completions", {**body, "reasoning_format": "none"})[2]["choices"][0]["message"]
        self.assertNotIn("reasoning_content", together)
        self.assertIn("</think>", together["content"])
        self.assertIn(message["reasoning"], together["content"])

    def test_answers_are_as_long_as_the_server_says_where_a_request_does_not(self):
        story = chat("Tell me a story.", ignore_eos=True)
        self.assertEqual(self.server.post("/v1/chat/completions", story)[2]["usage"]["completion_tokens"], 40)
        self.assertEqual(self.server.post("/v1/chat/completions", {**story, "max_tokens": 50})[2]["usage"]["completion_tokens"], 50)

    def test_pages_of_allowed_origins_may_ask_and_the_page_is_off(self):
        status, headers, _ = self.server.get("/v1/models", headers={"Origin": ORIGIN})
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (200, ORIGIN))
        status, headers, _ = self.server.ask("OPTIONS", "/v1/chat/completions", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (204, ORIGIN))
        self.assertIn("POST", headers["Access-Control-Allow-Methods"])
        self.assertEqual(self.server.get("/v1/models", headers={"Origin": "https://other.example"})[0], 403)
        self.assertEqual(self.server.get("/v1/models", headers={"Host": "box.example"})[0], 200)
        self.assertEqual(self.server.get("/v1/models", headers={"Host": "other.example"})[0], 403)
        self.assertEqual(self.server.get("/page/app.js")[0], 404)
        self.assertEqual(self.server.get("/")[2], "penstock is running\n")


if __name__ == "__main__":
    unittest.main()
