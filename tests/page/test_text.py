"""A model's text is shown well and never obeyed."""

import json
import unittest

from page_case import PageCase

RENDERED = [
    ("one\ntwo", "<p>one<br>two</p>"),
    ("# A *b*", '<h3 class="level-1">A <em>b</em></h3>'),
    ("**a _b_ c** ***d***", "<p><strong>a <em>b</em> c</strong> <strong><em>d</em></strong></p>"),
    ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
    ("`a <b> ``c` ``d ` e``", "<p><code>a &lt;b&gt; ``c</code> <code>d ` e</code></p>"),
    ("a \\*b\\* <i>c</i>", "<p>a *b* &lt;i&gt;c&lt;/i&gt;</p>"),
    ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("1. a\n\n   more\n2. b", "<ol><li>a<p>more</p></li><li>b</li></ol>"),
    ("text\n- a", "<p>text</p><ul><li>a</li></ul>"),
    ("In\n1984. Then", "<p>In<br>1984. Then</p>"),
    ("> a\n> - b", "<blockquote><p>a</p><ul><li>b</li></ul></blockquote>"),
    ("---", "<hr>"),
    ("an **open", "<p>an **open</p>"),
    ("[a](b) [c](ftp://d)", "<p>[a](b) [c](ftp://d)</p>"),
    ("", ""),
]

LINKS = [
    ("https://a.example/x_(y).", "https://a.example/x_(y)"),
    ("(https://a.example/x)", "https://a.example/x"),
    ("[t](https://a.example/?q=1&r=2 \"title\")", "https://a.example/?q=1&r=2"),
    ("<https://a.example>", "https://a.example/"),
    ("![picture](https://a.example/p.png)", "https://a.example/p.png"),
]

# Texts that make a careless parser slow.
SLOW = ["**a " * 30000, "[" * 60000, "`" * 60000, "`a``b" * 15000, "> " * 5000, "- " * 5000, "*a **b " * 10000, "|" * 60000 + "\n" + "|-" * 30000, "![](" * 20000, "_a" * 40000, "\n".join(" " * n + "- x" for n in range(600))]


class Text(PageCase):
    def render(self, text):
        return self.page.evaluate(
            f"""import("/page/markdown.js").then(({{ MarkdownView }}) => {{
              const element = document.createElement("div");
              new MarkdownView(element).show({json.dumps(text)});
              return element.innerHTML;
            }})"""
        )

    def test_markdown_is_rendered(self):
        for text, expected in RENDERED:
            with self.subTest(text):
                self.assertEqual(self.render(text), expected)

    def test_addresses_become_links_that_tell_nothing(self):
        for text, expected in LINKS:
            with self.subTest(text):
                link = self.render(text)
                self.assertIn(f'href="{expected.replace("&", "&amp;")}"', link)
                self.assertIn('rel="noopener noreferrer nofollow"', link)
                self.assertNotIn("<img", link)

    def test_code_is_shown_as_it_is_with_its_language_and_a_copy_button(self):
        self.ask("markdown")
        self.assertEqual(self.page.count(".code"), 2)
        self.assertEqual(
            self.page.evaluate("document.querySelector('.code code').textContent"),
            "// Adds one.\nfn next<'a>(n: &'a u32) -> u32 {\n    n + 1 // \"text\"\n}",
        )
        self.assertEqual(self.page.text(".code figcaption"), "rust")
        self.assertEqual(self.page.text(".code-keyword"), "fn")
        # The last block was never closed.
        self.assertEqual(self.page.evaluate("document.querySelectorAll('.code code')[1].textContent"), 'print("never closed")')

    def test_a_growing_text_ends_up_as_the_whole_one(self):
        grown, whole = self.page.evaluate(
            """Promise.all([import("/page/markdown.js"), fetch("/").then(() => null)]).then(([{ MarkdownView }]) => {
              const text = "# T\\n\\n- a\\n- b\\n\\n  c\\n\\n```js\\nlet x = 1\\n```\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n\\nend **b** `c`\\n";
              const [grown, whole] = [document.createElement("div"), document.createElement("div")];
              const view = new MarkdownView(grown);
              for (let i = 0; i <= text.length; i += 1) view.show(text.slice(0, i));
              new MarkdownView(whole).show(text);
              return [grown.innerHTML, whole.innerHTML];
            })"""
        )
        self.assertEqual(grown, whole)

    def test_blocks_that_are_complete_keep_their_nodes(self):
        self.assertTrue(
            self.page.evaluate(
                """import("/page/markdown.js").then(({ MarkdownView }) => {
                  const element = document.createElement("div");
                  const view = new MarkdownView(element);
                  view.show("one\\n\\ntwo");
                  const first = element.firstChild;
                  view.show("one\\n\\ntwo and more\\n\\nthree");
                  return element.firstChild === first && element.children.length === 3;
                })"""
            )
        )

    def test_no_text_is_slow_to_show(self):
        for text in SLOW:
            with self.subTest(text[:12]):
                took = self.page.evaluate(
                    f"""import("/page/markdown.js").then(({{ MarkdownView }}) => {{
                      const start = performance.now();
                      new MarkdownView(document.createElement("div")).show({json.dumps(text)});
                      return performance.now() - start;
                    }})"""
                )
                # A fraction of a second where nothing else runs; what grows with the square of the length takes minutes.
                self.assertLess(took, 20_000)

    def test_nothing_in_a_models_text_runs_or_loads(self):
        self.ask("xss")
        self.page.evaluate("document.querySelectorAll('.prose a').forEach((link) => link.dispatchEvent(new MouseEvent('mouseover')))")
        self.assertIsNone(self.page.evaluate("window.hit ?? null"))
        self.assertEqual(self.page.count(".prose :is(script, img, iframe, style, svg:not(.icon), object, embed, form)"), 0)
        addresses = self.page.evaluate("[...document.querySelectorAll('.prose a')].map((link) => link.protocol)")
        self.assertEqual(set(addresses) - {"https:"}, set())
        handlers = self.page.evaluate(
            "[...document.querySelectorAll('.prose *')].some((element) => [...element.attributes].some(({ name }) => name.startsWith('on')))"
        )
        self.assertFalse(handlers)
        self.assertIn("<script>window.hit = 1</script>", self.prose())

    def test_titles_names_and_reasons_are_not_obeyed_either(self):
        attack = "<img src=x onerror=window.hit=1>"
        self.server.models[1] |= {"id": attack, "verdict": "quarantined", "reason": attack}
        self.page.reload()
        self.page.wait("document.querySelectorAll('#gears li').length === 4")
        self.ask(f"hello {attack}")
        self.assertIsNone(self.page.evaluate("window.hit ?? null"))
        self.assertEqual(self.page.count("img"), 0)

    def test_bytes_cut_anywhere_are_put_together(self):
        self.assertIn("grüße 🙂", self.ask("split"))


if __name__ == "__main__":
    unittest.main()
