"""Both themes are readable, small screens hold everything, and nothing comes from elsewhere."""

import unittest

from page_case import PageCase

# The least contrast of any text that is seen, with the text that has it. Backgrounds are mixed from the ancestors'.
CONTRAST = """(() => {
  const rgba = (text) => {
    const parts = text.match(/^rgba?\\(([^)]+)\\)$/)?.[1].split(/[ ,/]+/).map(Number);
    if (!parts) throw new Error("not rgb: " + text);
    return parts.length === 4 ? parts : [...parts, 1];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((value, i) => value * a + under[i] * (1 - a));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.push(rgba(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let least = { ratio: 99 };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const box = element.getBoundingClientRect();
    const disabled = element.closest(":disabled") && !element.closest("#gears");
    if (!node.data.trim() || box.width < 2 || disabled || element.closest("noscript, .unseen, .skip")) continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const below = ground(element);
    const [a, b] = [luminance(over(rgba(getComputedStyle(element).color), below)), luminance(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least.ratio) least = { ratio, text: node.data.trim().slice(0, 40), of: element.className || element.tagName };
  }
  return least;
})()"""


class Looks(PageCase):
    def each_theme(self):
        for scheme in ("light", "dark"):
            self.page.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            yield scheme

    def readable(self, where):
        for scheme in self.each_theme():
            with self.subTest(where, scheme=scheme):
                least = self.page.evaluate(CONTRAST)
                self.assertGreaterEqual(least["ratio"], 4.5, least)

    def test_all_text_has_contrast_in_both_themes(self):
        self.expected = ("500",)
        self.server.models[1] |= {"verdict": "quarantined", "reason": "middle.gguf: is truncated"}
        self.server.models[2] |= {"verdict": "cooling", "reason": "crashed twice"}
        self.page.reload()
        self.ready()
        self.readable("welcome")
        for text in ("markdown", "think", "drop", "takeover", "error"):
            self.ask(text)
            self.page.evaluate("document.querySelectorAll('#thread details').forEach((details) => { details.open = true })")
            self.readable(text)
        self.page.click("#settings")
        self.page.wait("document.querySelector('dialog[open]')")
        self.readable("settings")
        self.page.press("Escape")
        self.server.down = True
        self.expected = ("500", "ERR_")
        self.page.wait("!document.getElementById('offline').hidden")
        self.readable("offline")

    def test_the_switch_overrules_the_system_and_is_kept(self):
        ground = "getComputedStyle(document.documentElement).backgroundColor"
        self.page.prefer(prefers_color_scheme="light")
        light = self.page.evaluate(ground)
        self.page.prefer(prefers_color_scheme="dark")
        dark = self.page.evaluate(ground)
        self.assertNotEqual(light, dark)
        self.page.click("#theme")
        self.assertEqual(self.page.evaluate(ground), light)
        self.page.reload()
        self.assertEqual(self.page.evaluate(ground), light)
        self.page.click("#theme")
        self.page.click("#theme")
        self.assertEqual(self.page.evaluate(ground), dark)
        self.assertEqual(self.page.evaluate("document.getElementById('theme').title"), "Theme: as the system")

    def test_who_asked_for_less_motion_gets_none(self):
        self.page.prefer(prefers_reduced_motion="reduce")
        self.send("load")
        self.page.wait("document.querySelector('.dots i')")
        self.assertEqual(self.page.evaluate("document.getAnimations().length"), 0)
        self.page.prefer(prefers_reduced_motion="no-preference")
        self.page.wait("document.getAnimations().length > 0")
        self.page.press("Escape")
        self.ended()

    def test_everything_comes_from_the_server(self):
        self.ask("xss")
        self.ask("markdown")
        addresses = self.page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
        self.assertGreater(len(addresses), 15)
        self.assertEqual([address for address in addresses if not address.startswith((self.server.url, "data:"))], [])

    def test_every_control_has_a_name(self):
        self.ask("markdown")
        self.page.click("#settings")
        nameless = self.page.evaluate(
            """[...document.querySelectorAll("button, input, select, textarea, [role=log], dialog, progress")]
              .filter((element) => !(element.ariaLabel || element.innerText?.trim() || element.labels?.length))
              .map((element) => element.outerHTML)"""
        )
        self.assertEqual(nameless, [])

    def test_every_script_is_fetched_beside_the_first(self):
        preloaded = set(self.page.evaluate("[...document.querySelectorAll('[rel=modulepreload]')].map((link) => link.href)"))
        scripts = set(
            self.page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => name.endsWith('.js'))")
        )
        self.assertEqual({name.rsplit("/")[-1] for name in scripts - preloaded}, {"app.js", "theme.js"})


class SmallScreen(PageCase):
    width, height = 375, 667

    def test_nothing_is_wider_than_the_screen(self):
        for text in ("markdown", "drop", "takeover", "xss"):
            self.ask(text)
            self.assertLessEqual(self.page.evaluate("document.documentElement.scrollWidth"), 375)
            self.assertLessEqual(
                self.page.evaluate("document.getElementById('scroller').scrollWidth - document.getElementById('scroller').clientWidth"), 0
            )

    def test_the_sidebar_lies_over_the_page_and_goes_away(self):
        self.assertTrue(self.page.evaluate("document.getElementById('sidebar').inert"))
        self.page.click("#show-sidebar")
        self.page.wait("!document.getElementById('sidebar').inert && document.getElementById('sidebar').getBoundingClientRect().x === 0")
        self.assertTrue(self.page.evaluate("document.querySelector('main').inert"))
        self.page.press("Escape")
        self.page.wait("document.getElementById('sidebar').inert")
        self.assertEqual(self.focused(), "show-sidebar")

    def test_the_message_field_stays_on_the_screen(self):
        self.ask("markdown")
        self.page.type("line\n" * 60)
        bottom, height = self.page.evaluate(
            "[document.getElementById('composer').getBoundingClientRect().bottom, document.getElementById('composer').offsetHeight]"
        )
        self.assertLessEqual(bottom, 667)
        self.assertLess(height, 400)


if __name__ == "__main__":
    unittest.main()
