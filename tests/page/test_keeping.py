"""Conversations are kept in the browser, within limits."""

import json
import unittest

from page_case import PageCase


class Keeping(PageCase):
    def titles(self):
        return self.page.evaluate("[...document.querySelectorAll('#conversations .open')].map((open) => open.textContent)")

    def test_a_reload_keeps_the_conversation(self):
        before = self.ask("drop") and self.page.text("#thread")
        self.page.reload()
        self.page.wait("document.querySelectorAll('.turn').length === 2")
        self.assertEqual(self.page.text("#thread"), before)
        self.assertIn("middle answers, because large", before)

    def test_an_answer_cut_off_by_the_pages_end_says_so(self):
        self.send("slow")
        self.page.wait("document.querySelector('.turn > .prose').innerText.includes('word9')")
        self.page.reload()
        self.page.wait("document.querySelector('.failure')")
        self.assertIn("word5", self.prose())
        self.assertIn("The page was closed before the answer was complete.", self.page.text(".failure"))

    def test_chats_have_titles_and_are_opened_renamed_and_deleted(self):
        self.ask("first chat")
        self.page.click("#new-chat")
        self.ask("second chat")
        self.assertEqual(self.titles(), ["second chat", "first chat"])
        self.page.evaluate("document.getElementById('title').select()")
        self.page.type("Renamed")
        self.page.press("Enter")
        self.page.wait("document.querySelector('#conversations .open').textContent === 'Renamed'")
        self.page.click("#conversations li:nth-child(2) .open")
        self.page.wait("document.getElementById('thread').innerText.includes('You said: first chat')")
        self.page.click("#conversations li:nth-child(2) .quiet")
        self.page.wait("document.querySelectorAll('#conversations li').length === 1")
        self.assertEqual(self.titles(), ["Renamed"])
        self.page.click(".toast button")
        self.page.wait("document.querySelectorAll('#conversations li').length === 2")
        self.assertIn("You said: first chat", self.page.text("#thread"))

    def test_an_answer_goes_on_while_another_chat_is_open(self):
        self.send("slow")
        self.page.wait("document.querySelector('.turn > .prose').innerText.includes('word3')")
        self.page.press("Control+k")
        self.assertIn("You said: meanwhile", self.ask("meanwhile"))
        self.assertEqual(self.page.count("#conversations .running"), 1)
        self.page.click("#conversations .running .open")
        self.page.wait("document.querySelector('.turn > .prose').innerText.includes('word40')")
        self.page.press("Escape")
        self.ended()

    def test_room_is_made_by_the_oldest_chats(self):
        kept = self.page.evaluate(
            """import("/page/store.js").then((store) => {
              let gone = [];
              for (let i = 0; i < 9; i += 1) {
                const chat = { ...store.create(), title: `chat ${i}`, turns: [{ role: "user", content: "x".repeat(600_000) }] };
                chat.updated = i;
                gone = gone.concat(store.save(chat));
              }
              return { gone, left: store.list().map((entry) => entry.title), whole: store.list().every((entry) => store.load(entry.id)) };
            })"""
        )
        self.assertEqual(kept["gone"], ["chat 0", "chat 1", "chat 2"])
        self.assertEqual(kept["left"], [f"chat {i}" for i in range(8, 2, -1)])
        self.assertTrue(kept["whole"])

    def test_what_is_exported_can_be_imported(self):
        self.ask("drop")
        exported, markdown, again = self.page.evaluate(
            """import("/page/store.js").then((store) => {
              const text = store.exportAll();
              const chat = store.load(store.list()[0].id);
              store.remove(chat.id);
              return [text, store.markdown(chat), [store.importAll(text), store.list().length]];
            })"""
        )
        self.assertEqual(json.loads(exported)["chats"][0]["turns"][0], {"role": "user", "content": "drop"})
        self.assertEqual(markdown, "# drop\n\n## You\n\ndrop\n\n## middle\n\nMiddle is here.\n")
        self.assertEqual(again, [1, 1])
        self.assertRaises(AssertionError, self.page.evaluate, "import('/page/store.js').then((store) => store.importAll('{}'))")

    def test_an_import_of_anything_is_shown_as_far_as_it_makes_sense(self):
        turns = [{"role": "user", "content": "whole"}, {"role": "assistant"}, {"role": "assistant", "answers": [{}], "shown": 5}, None, 7]
        chats = [{"id": "odd", "title": "odd", "turns": turns, "settings": 3, "updated": "never"}, {"id": 4}, None]
        text = json.dumps({"format": "downshift-chats-1", "chats": chats})
        self.assertEqual(self.page.evaluate(f"import('/page/store.js').then((store) => store.importAll({json.dumps(text)}))"), 1)
        self.page.reload()
        self.page.click("#conversations .open")
        self.page.wait("document.querySelectorAll('.turn').length === 1")
        # The imported message had no answer, so it goes along.
        self.assertIn("You said: whole\n\nagain", self.ask("again"))

    def test_damaged_storage_does_not_stop_the_page(self):
        self.ask("hello")
        self.page.evaluate("for (const key of Object.keys(localStorage)) localStorage.setItem(key, '{broken')")
        self.page.reload()
        self.page.wait("document.querySelector('.welcome')")
        self.assertIn("You said: again", self.ask("again"))


if __name__ == "__main__":
    unittest.main()
