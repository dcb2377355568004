"""The page on the real `downshift serve` with the demo models. DOWNSHIFT_BIN names the program."""

import os
import pathlib
import re
import subprocess
import tempfile
import threading
import unittest

from page_case import PageCase

TOP = pathlib.Path(__file__).resolve().parents[2]
MODELS = TOP / "models"


def chain(large="demo-large.gguf"):
    names = {"large": large, "middle": "demo-middle.gguf", "small": "demo-small.gguf"}
    tables = [f'[models.{name}]\npath = "{file}"\ntemperature = 0.0\n' for name, file in names.items()]
    return f'[settings]\nmodels_dir = "{MODELS}"\n' + "".join(tables)


class Serve:
    """The program, listening on a free port."""

    def __init__(self, models_toml, *args, **environment):
        program = os.environ.get("DOWNSHIFT_BIN")
        if not program:
            raise unittest.SkipTest("skipped: DOWNSHIFT_BIN does not name the program")
        self._folder = tempfile.TemporaryDirectory(prefix="page-test-")
        config = pathlib.Path(self._folder.name, "models.toml")
        config.write_text(models_toml)
        known = {name: value for name, value in os.environ.items() if not name.startswith("DOWNSHIFT_")}
        self._process = subprocess.Popen(
            [os.path.abspath(program), "serve", "--config", config, "--port", "0", *args],
            env={**known, "DOWNSHIFT_LOG": "warn", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        for line in self._process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.url = f"{found[0]}/"
                break
        else:
            raise AssertionError("".join(said))
        # What it says from now on is read, so that it never waits, and forgotten.
        threading.Thread(target=self._process.stderr.read, daemon=True).start()

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stderr.close()
        self._folder.cleanup()


class ServerCase(PageCase):
    models_toml = chain()
    arguments = ()
    environment = {}

    def serve(self):
        return Serve(self.models_toml, *self.arguments, **self.environment)


class Plain(ServerCase):
    def test_a_question_is_answered_and_kept_and_asked_again(self):
        self.assertIn("42", self.ask("What is 17 + 25?"))
        self.assertEqual(self.page.text(".who"), "large")
        self.assertRegex(self.page.text(".figures"), r"tok/s · \d+ tokens? · ")
        self.page.reload()
        self.ready()
        self.assertIn("42", self.answer())
        self.page.click(".again")
        self.page.wait("document.querySelector('.pager')?.innerText.includes('2/2')")
        self.ended()
        self.assertIn("42", self.prose())
        self.assertIn("Paris", self.ask("What is the capital of France?"))

    def test_models_are_shown_with_their_states_and_memory(self):
        self.page.wait("document.querySelector('[data-model=large] .state').innerText === 'ready'")
        rows = self.page.text("#gears")
        self.assertRegex(rows, r"\d\.\d MB")
        self.assertIn("on disk", rows)
        self.assertRegex(self.page.evaluate("document.querySelector('.memory').ariaLabel"), r"^Models take .+ of .+ are free$")

    def test_the_chosen_model_answers_and_settings_are_understood(self):
        self.page.evaluate("localStorage.clear()")
        self.page.press("Control+,")
        self.page.wait("document.querySelector('dialog[open]')")
        fields = [("system", "You are Ruby, a pilot."), ("temperature", "0.1"), ("top_p", "0.9"), ("top_k", "20"), ("min_p", "0.05"), ("seed", "7"), ("max_tokens", "40")]
        for field, text in fields:
            self.page.evaluate(f"document.getElementById('{field}').focus()")
            self.page.type(text)
        self.page.press("Escape")
        self.page.click("[data-model=small]")
        self.ask("What is your name?")
        self.assertEqual(self.page.count(".failure"), 0, self.answer())
        self.assertEqual(self.page.text(".who"), "small")

    def test_a_chat_that_is_too_long_says_so(self):
        self.expected = ("400",)
        self.ask("count " * 3000)
        self.assertIn("This chat is longer than the model can take.", self.page.text(".failure"))


class MissingFile(ServerCase):
    models_toml = chain("gone.gguf")

    def test_the_next_gear_answers_and_says_why(self):
        self.assertIn("42", self.ask("What is 17 + 25?"))
        self.assertEqual(self.page.text(".who"), "middle")
        self.assertIn("middle answers, because large’s file is missing.", self.page.text(".shift summary"))
        self.page.evaluate("document.querySelector('.shift').open = true")
        self.assertIn("gone.gguf", self.page.text(".attempts"))
        self.page.wait("document.querySelector('[data-model=large] .state').innerText === 'cannot load'")


class Crash(ServerCase):
    environment = {"DOWNSHIFT_FAULT": "large@token=3:segv!"}

    def test_a_crash_within_the_text_leaves_a_whole_answer_and_is_told(self):
        answer = self.ask("Count from 1 to 10.")
        self.assertEqual(self.page.count(".failure"), 0, answer)
        self.assertIn("crashed", self.page.text(".shift"), answer)
        self.assertTrue(self.prose().strip())


class NobodyLeft(ServerCase):
    environment = {"DOWNSHIFT_FAULT": "large@load:corrupt!;middle@load:corrupt!;small@load:corrupt!"}

    def test_all_that_was_tried_is_listed(self):
        self.expected = ("500", "503")
        self.ask("What is 17 + 25?")
        self.assertIn("No model could answer.", self.page.text(".failure"))
        for name in ("large", "middle", "small"):
            self.assertIn(name, self.page.text(".failure .attempts"))


class Stop(ServerCase):
    environment = {"DOWNSHIFT_FAULT": "large@token=2:slow!"}

    def test_a_slow_answer_is_stopped_and_the_model_is_free_again(self):
        self.send("Count from 1 to 20.")
        self.page.wait("document.querySelector('.turn > .prose')?.innerText.length > 0")
        self.page.press("Escape")
        self.ended()
        self.assertIn("Stopped.", self.answer())
        self.page.wait("document.querySelector('[data-model=large] .state').innerText === 'ready'")


class Key(ServerCase):
    arguments = ("--api-key", "opensesame")

    def ready(self):
        self.expected = ("401",)
        self.page.wait("document.querySelector('dialog[open]')")

    def test_the_page_asks_for_the_key(self):
        self.page.wait("document.activeElement.id === 'key'")
        self.page.type("opensesame")
        self.page.press("Enter")
        self.page.wait("document.querySelectorAll('#gears li').length === 3")
        self.assertIn("42", self.ask("What is 17 + 25?"))


if __name__ == "__main__":
    unittest.main()
