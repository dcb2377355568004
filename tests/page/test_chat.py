"""Chatting: send, stream, stop, answer again, edit, settings, models, keys."""

import unittest

from page_case import PageCase


class Chat(PageCase):
    def test_an_answer_streams_and_names_its_model_and_speed(self):
        self.send("slow")
        self.page.wait("document.querySelector('.turn > .prose').innerText.includes('word9')")
        self.assertIn("running", self.page.evaluate("document.querySelector('.turn.assistant').className"))
        self.page.press("Escape")
        self.ended()
        answer = self.ask("hello there")
        self.assertIn("You said: hello there", answer)
        self.assertTrue(answer.startswith("large"), answer)
        self.assertIn("40.0 tok/s · 12 tokens", answer)

    def test_a_stop_keeps_what_arrived_and_the_server_is_told(self):
        self.send("slow")
        self.page.wait("document.querySelector('.turn > .prose').innerText.includes('word5')")
        self.assertEqual(self.page.evaluate("document.getElementById('send').ariaLabel"), "Stop")
        self.page.click("#send")
        self.ended()
        self.assertIn("word5", self.prose())
        self.assertIn("Stopped.", self.answer())
        self.assertEqual(self.page.evaluate("document.getElementById('send').ariaLabel"), "Send")
        self.assertTrue(self.server.gone.wait(20), "the server was not told")

    def test_another_answer_is_kept_beside_the_first(self):
        self.ask("drop")
        self.page.click(".again")
        self.page.wait("document.querySelector('.pager')?.innerText.includes('2/2')")
        self.assertEqual(len(self.server.requests), 2)
        self.assertEqual(self.server.requests[0]["messages"], self.server.requests[1]["messages"])
        self.page.click("[aria-label='Previous answer']")
        self.page.wait("document.querySelector('.pager').innerText.includes('1/2')")
        self.page.reload()
        self.page.wait("document.querySelector('.pager')?.innerText.includes('1/2')")

    def test_an_edited_message_replaces_what_followed_and_that_can_be_undone(self):
        self.ask("first question")
        self.ask("second question")
        self.page.click(".turn.user .edit")
        self.page.evaluate("document.querySelector('.editor textarea').select()")
        self.page.type("another question")
        self.page.press("Enter")
        self.page.wait("document.querySelector('.turn > .prose')?.innerText.includes('another question')")
        self.ended()
        self.assertEqual(self.page.count(".turn"), 2)
        self.assertEqual(self.server.requests[2]["messages"], [{"role": "user", "content": "another question"}])
        self.page.click(".toast button")
        self.page.wait("document.querySelectorAll('.turn').length === 4")
        self.assertIn("second question", self.page.text("#thread"))

    def test_the_conversation_is_sent_in_order_and_failures_leave_no_hole(self):
        self.expected = ("500",)
        self.ask("one")
        self.ask("error now")
        self.ask("three")
        roles = [message["role"] for message in self.server.requests[2]["messages"]]
        self.assertEqual(roles, ["user", "assistant", "user"])
        self.assertEqual(self.server.requests[2]["messages"][2]["content"], "error now\n\nthree")

    def test_settings_are_sent_and_empty_ones_are_not(self):
        self.page.press("Control+,")
        self.page.wait("document.querySelector('dialog[open]')")
        for field, text in [("system", "Be short."), ("temperature", "0.3"), ("top_k", "20"), ("seed", "7"), ("max_tokens", "50")]:
            self.page.evaluate(f"document.getElementById('{field}').focus()")
            self.page.type(text)
        self.page.click("#only")
        self.page.press("Escape")
        self.page.wait("!document.querySelector('dialog')")
        self.ask("hello")
        request = self.server.requests[0]
        self.assertEqual(request["messages"][0], {"role": "system", "content": "Be short."})
        expected = {"temperature": 0.3, "top_k": 20, "seed": 7, "max_tokens": 50, "disable_fallbacks": True}
        self.assertEqual({key: request.get(key) for key in expected}, expected)
        self.assertFalse({"top_p", "min_p"} & request.keys())

    def test_a_setting_that_is_not_valid_is_not_sent(self):
        self.page.click("#settings")
        self.page.wait("document.querySelector('dialog[open]')")
        self.page.evaluate("document.getElementById('top_p').focus()")
        self.page.type("7")
        self.page.press("Escape")
        self.ask("hello")
        self.assertNotIn("top_p", self.server.requests[0])

    def test_the_chosen_model_is_asked(self):
        self.page.click("[data-model='small']")
        self.page.wait("document.getElementById('model').value === 'small'")
        self.assertIn("small", self.ask("hello"))
        self.assertEqual(self.server.requests[0]["model"], "small")
        self.assertTrue(self.page.evaluate("document.querySelector('[data-model=embed]').disabled"))

    def test_what_a_model_thought_is_folded(self):
        self.ask("think")
        self.assertEqual(self.prose(), "It is four.")
        self.assertFalse(self.page.evaluate("document.querySelector('.thought').open"))
        self.assertIn("Thought for", self.page.text(".thought summary"))
        self.page.click(".thought summary")
        self.assertIn("Two and two.", self.page.text(".thought .prose"))

    def test_a_message_and_an_answer_can_be_copied(self):
        # A page without the clipboard's own interface, as on plain http from another machine.
        self.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        self.page.evaluate("document.addEventListener('copy', () => { window.copied = document.activeElement.value })")
        self.ask("hello")
        self.page.click("[aria-label='Copy the answer']")
        self.assertEqual(self.page.wait("window.copied"), "You said: hello")
        self.assertEqual(self.page.evaluate("document.querySelector('.foot [aria-label=Copied]') !== null"), True)

    def test_loading_is_shown_while_it_is_waited_for(self):
        self.server.models[0] |= {"state": "loading", "progress": 0.42}
        self.send("load")
        self.page.wait("document.querySelector('.wait')?.innerText.includes('large is loading, 42')")
        self.assertEqual(self.page.evaluate("document.querySelector('.wait progress').value"), 0.42)
        self.assertIn("loading 42 %", self.page.text("[data-model=large]"))
        self.server.models[0] |= {"state": "ready", "progress": None}
        self.server.go_on.set()
        self.ended()
        self.assertEqual(self.prose(), "Loaded.")

    def test_a_long_answer_is_shown_whole(self):
        self.ask("flood")
        self.assertEqual(self.page.count(".turn > .prose > p"), 1500)


class Keyboard(PageCase):
    def test_a_whole_conversation_goes_by_keys_alone(self):
        self.assertEqual(self.focused(), "message")
        self.page.type("first")
        self.page.press("Shift+Enter")
        self.page.type("second")
        self.page.press("Enter")
        self.ended()
        self.assertEqual(self.server.requests[0]["messages"][0]["content"], "first\nsecond")
        self.page.press("ArrowUp")
        self.assertEqual(self.focused(), "Edit the message")
        self.page.press("Escape")
        self.assertEqual(self.focused(), "Edit and send again")
        self.page.press("/")
        self.assertEqual(self.focused(), "message")
        self.page.type("slow")
        self.page.press("Enter")
        self.page.wait("document.querySelectorAll('.turn > .prose')[1]?.innerText.includes('word3')")
        self.page.press("Escape")
        self.ended()
        self.page.press("Control+k")
        self.page.wait("document.querySelector('.welcome')")
        self.assertEqual(self.focused(), "message")
        self.page.press("Alt+ArrowUp")
        self.page.wait("document.querySelectorAll('.turn').length === 4")

    def test_every_control_is_reached_by_tab_and_shows_it(self):
        self.ask("markdown")
        seen = []
        self.page.evaluate("document.activeElement.blur()")
        # Twice round: what the page shows anew while it has the focus may let the browser begin again.
        while len(seen) < 120 and seen.count("Skip to the message field") < 3:
            self.page.press("Tab")
            name = self.focused()
            seen.append(name)
            visible = self.page.evaluate(
                """(() => { const style = getComputedStyle(document.activeElement);
                  return document.activeElement.id === "message" || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) })()"""
            )
            self.assertTrue(visible or name == "BODY", f"{name} has the focus and does not show it")
        expected = ["Skip to the message field", "hide-sidebar", "new-chat", "theme", "shortcuts", "title", "export", "settings"]
        for name in [*expected, "Copy the answer", "Answer again", "Copy the code", "message", "model"]:
            self.assertIn(name, seen)

    def test_shortcuts_are_listed(self):
        self.page.evaluate("document.activeElement.blur()")
        self.page.press("?")
        self.page.wait("document.querySelector('dialog[open]')")
        self.assertIn("New chat", self.page.text("dialog"))
        self.page.press("Escape")
        self.page.wait("!document.querySelector('dialog')")
        self.page.press("Control+b")
        self.assertEqual(self.focused(), "show-sidebar")
        self.page.press("Control+b")
        self.assertEqual(self.focused(), "hide-sidebar")

    def test_only_what_matters_is_read_aloud(self):
        self.page.evaluate(
            """(() => { window.said = [];
              new MutationObserver(() => window.said.push(document.getElementById("announcer").textContent))
                .observe(document.getElementById("announcer"), { childList: true }) })()"""
        )
        self.ask("drop")
        said = self.page.wait("window.said.length > 2 && window.said")
        self.assertEqual(
            said,
            ["Waiting for the answer.", "middle answers, because large’s file is cut short.", "middle has answered in 12 tokens."],
        )
        self.assertEqual(self.page.evaluate("document.querySelector('#thread').ariaLive"), "off")


if __name__ == "__main__":
    unittest.main()
