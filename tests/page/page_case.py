"""What every test of the page starts with: one browser for all, and for each test a server and an empty profile."""

import atexit
import unittest

from browser import Browser, find
from mock_server import MockServer

_browser = None


def browser():
    global _browser
    if _browser is None:
        path = find()
        if path is None:
            raise unittest.SkipTest("skipped: no Chromium here (set CHROMIUM to its path)")
        _browser = Browser(path)
        atexit.register(_browser.close)
    return _browser


class PageCase(unittest.TestCase):
    """`self.page` shows the page of `self.server`. A test fails if the browser complained of anything not in `expected`."""

    width, height = 1200, 800

    def setUp(self):
        self.expected = ()
        tab = browser()
        self.server = self.serve()
        self.addCleanup(self.server.close)
        self.page = tab.page(self.width, self.height)
        self.addCleanup(self.page.close)
        self.before_opening()
        self.page.open(self.server.url)
        self.ready()

    def serve(self):
        return MockServer()

    def before_opening(self):
        pass

    def ready(self):
        self.page.wait("document.querySelectorAll('#gears li').length > 0")

    def tearDown(self):
        problems = [text for text in self.page.problems if not any(known in text for known in self.expected)]
        self.assertEqual(problems, [])

    def send(self, text):
        """Types and sends; returns when the answer has begun, ended or failed."""
        self.page.wait("!document.getElementById('message').value && !document.querySelector('.turn.running')")
        self.page.evaluate("document.getElementById('message').focus()")
        self.page.type(text)
        self.page.press("Enter")

    def ask(self, text):
        """Sends and waits for the end, whichever it is. Returns what the last answer shows."""
        self.send(text)
        self.ended()
        return self.answer()

    def ended(self):
        self.page.wait("document.querySelector('.turn.assistant') && !document.querySelector('.turn.running')")

    def answer(self):
        return self.page.evaluate("[...document.querySelectorAll('.turn.assistant')].at(-1).innerText")

    def prose(self):
        return self.page.evaluate("[...document.querySelectorAll('.turn.assistant > .prose')].at(-1).innerText")

    def focused(self):
        """The id, label or text of what has the focus."""
        return self.page.evaluate(
            "(({ id, ariaLabel, innerText, tagName }) => id || ariaLabel || (tagName === 'BODY' ? tagName : innerText))(document.activeElement)"
        )
