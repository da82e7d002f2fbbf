"""`assay scenario` from outside: what comes out otherwise is 7 with a diff, what cannot be read is 2, and --update writes what is made."""
import harness

GOOD = """# one
at 2026-01-05T00:00:00Z a m=0.5
at 2026-01-05T03:00:00Z a m=0.5 id:x
at 2026-01-05T03:00:00Z a m=0.5 id:x
----
# below, too
filtered a DUPLICATE
"""


class Scenario(harness.EndToEnd):
    def file(self, text, name="s.scenario"):
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def test_agrees_or_is_7_with_a_diff(self):
        here = self.assay()
        good, bad = self.file(GOOD), self.file(GOOD.replace("DUPLICATE", "LATE") + "and more\n", "bad.scenario")
        self.assertEqual([row["result"] for row in here.json("scenario", good)], ["agrees"])
        rows = here.json("scenario", good, bad, code=7)
        self.assertEqual([row["result"] for row in rows], ["agrees", "differs"])
        self.assertEqual(sorted(rows[1]["difference"]), ["+ filtered a DUPLICATE", "- and more", "- filtered a LATE"])
        done = here.ok("scenario", bad, code=7)
        self.assertIn("- filtered a LATE", done.out.decode())
        self.assertIn("1 of 1 scenarios", done.err)
        self.assertFalse(here.data.exists(), "nothing is written")

    def test_update_writes_what_is_made(self):
        here = self.assay()
        bad = self.file(GOOD.replace("DUPLICATE", "LATE"))
        self.assertEqual(here.json("scenario", "--update", bad)[0]["result"], "updated")
        self.assertEqual(bad.read_text(), GOOD.replace("# below, too\n", ""))
        self.assertEqual(here.json("scenario", bad)[0]["result"], "agrees")

    def test_the_configuration_decides(self):
        here = self.assay()
        text = "every 12m from 2026-01-05T00:00:00Z to 2026-01-05T03:00:00Z a m=0.9\nat 2026-01-05T05:00:00Z a m=0.9\n----\n"
        made = here.json("scenario", self.file(text), code=7)[0]["difference"]
        self.assertTrue(any(" promote a " in line for line in made), made)
        here.sets = ["promotion.enter=0.95"]
        self.assertEqual(here.json("scenario", self.file(text))[0]["result"], "agrees")

    def test_what_cannot_be_read_is_2_and_names_the_line(self):
        here = self.assay()
        for line, part in (("on 2026-01-05T00:00:00Z a m=1", '"on"'), ("at noon a m=1", '"noon"'), ("at 2026-01-05T00:00:00Z a m=x", '"m=x"'),
                           ("every 0m from 2026-01-05T00:00:00Z to 2026-01-06T00:00:00Z a m=1", '"0m"'), ("show everything", '"everything"'),
                           ("config promotion.entre = 1", "entre"), ("config topics.partitions = 1", "topics"), ("at 2026-01-05T00:00:00Z a who:me", "who:me"),
                           ("config promotion.enter = 7", "promotion.enter")):
            with self.subTest(line):
                done = here.ok("scenario", self.file(f"# one\n{line}\n----\n"), code=2)
                self.assertIn("line 2", done.err)
                self.assertIn(part, done.err)
        self.assertIn("line of dashes", here.ok("scenario", self.file("# nothing\n"), code=2).err)
        self.assertIn("nowhere", here.ok("scenario", self.directory / "nowhere", code=2).err)


if __name__ == "__main__":
    harness.main()
