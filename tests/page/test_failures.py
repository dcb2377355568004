"""What goes wrong is said, what arrived is kept, and there is a way on."""

import unittest

from page_case import PageCase


class Gears(PageCase):
    def test_a_dropped_gear_says_who_answers_instead_of_whom_and_why(self):
        self.ask("drop")
        self.assertIn("middle answers, because large’s file is cut short.", self.page.text(".shift summary"))
        self.assertEqual(self.page.text(".who"), "middle")
        self.assertEqual(self.page.evaluate("document.querySelector('.gear').dataset.lost"), "1")
        self.page.click(".shift summary")
        self.page.wait("document.querySelector('.shift').open")
        self.assertIn("tensor `output.weight` needs 4 more bytes", self.page.text(".attempts"))
        self.assertIn("cpu · while loading · 3 ms", self.page.text(".attempts"))

    def test_a_takeover_within_the_text_leaves_one_text_and_says_so(self):
        self.ask("takeover")
        self.assertEqual(self.prose(), "It began well and small ended it.")
        self.assertIn("small wrote the rest, because large ran out of memory.", self.answer())
        self.assertEqual(self.page.text(".who"), "small")

    def test_states_sizes_and_verdicts_of_models_are_shown(self):
        self.server.models[1] |= {"verdict": "quarantined", "reason": "middle.gguf: is truncated"}
        self.server.models[2] |= {"verdict": "cooling", "reason": "crashed twice"}
        self.page.reload()
        self.page.wait("document.querySelector('#gears .reason')")
        rows = self.page.text("#gears")
        for text in ["5.0 GB", "2.1 GB", "640 MB", "ready", "cannot load", "middle.gguf: is truncated", "resting after a failure"]:
            self.assertIn(text, rows)
        self.assertEqual(
            self.page.evaluate("document.querySelector('.memory').ariaLabel"), "Models take 5.9 GB of 16.0 GB; 7.4 GB are free"
        )


class Errors(PageCase):
    def test_no_model_could_answer(self):
        self.expected = ("500",)
        self.ask("error")
        self.assertIn("No model could answer.", self.page.text(".failure"))
        self.assertIn("large large.gguf: is truncated", self.page.text(".attempts"))
        self.assertIn("middle the worker ended by signal 11", self.page.text(".attempts"))

    def test_a_failed_answer_can_be_tried_again_and_leaves_no_trace(self):
        self.expected = ("503",)
        self.ask("busy")
        self.assertIn("The server cannot answer right now.", self.page.text(".failure"))
        self.assertIn("try again in 7 s", self.page.text(".failure"))
        self.page.click(".failure .retry")
        self.page.wait("performance.getEntriesByName(location.origin + '/v1/chat/completions').length === 2")
        self.ended()
        self.assertEqual(len(self.server.requests), 2)
        self.assertEqual(self.page.count(".pager"), 0)

    def test_a_broken_connection_keeps_the_text(self):
        self.ask("broken")
        self.assertEqual(self.prose(), "Half of an")
        self.assertIn("before it was complete. What arrived is kept.", self.page.text(".failure"))
        self.assertEqual(self.page.count(".failure .retry"), 1)

    def test_a_stream_that_ends_with_an_error_says_which(self):
        self.ask("honest")
        self.assertEqual(self.prose(), "Half of an")
        self.assertIn("Large ran out of memory and nobody could go on. What arrived is kept.", self.page.text(".failure"))

    def test_a_chat_that_is_too_long_offers_a_new_one(self):
        self.expected = ("400",)
        self.ask("long")
        self.assertIn("This chat is longer than the model can take.", self.page.text(".failure"))
        self.assertIn("9000 tokens", self.page.text(".failure"))
        self.page.click(".failure .primary")
        self.page.wait("document.querySelector('.welcome')")

    def test_a_server_that_is_gone_is_noticed_and_its_return_too(self):
        self.expected = ("ERR_",)
        self.server.down = True
        self.ask("hello")
        self.assertIn("The server cannot be reached.", self.page.text(".failure"))
        self.page.wait("document.getElementById('offline').innerText.includes('cannot be reached')")
        self.server.down = False
        self.page.click("#offline button")
        self.page.wait("document.getElementById('offline').hidden")
        self.page.click(".failure .retry")
        self.page.wait("document.querySelector('.turn > .prose').innerText.includes('You said: hello')")


class Key(PageCase):
    def before_opening(self):
        self.server.key = "opensesame"
        self.expected = ("401",)

    def ready(self):
        self.page.wait("document.querySelector('dialog[open]')")

    def enter(self, key):
        self.page.wait("document.activeElement.id === 'key'")
        self.page.type(key)
        self.page.press("Enter")

    def test_the_key_is_asked_for_until_it_is_right_and_then_kept(self):
        self.enter("wrong")
        self.page.wait("document.querySelector('dialog[open] #key')?.value === ''")
        self.enter("opensesame")
        self.page.wait("document.querySelectorAll('#gears li').length === 4")
        self.assertIn("You said: hello", self.ask("hello"))
        self.page.reload()
        self.page.wait("document.querySelectorAll('#gears li').length === 4")
        self.assertEqual(self.page.count("dialog"), 0)

    def test_a_message_that_was_refused_goes_again_with_the_key(self):
        self.page.press("Escape")
        self.page.wait("!document.querySelector('dialog')")
        self.assertIn("asks for an API key", self.page.text("#offline"))
        self.send("hello")
        self.enter("opensesame")
        self.page.wait("document.querySelector('.turn > .prose').innerText.includes('You said: hello')")
        self.ended()
        self.assertEqual(self.page.count(".failure"), 0)


if __name__ == "__main__":
    unittest.main()
