"""What tests of several processes in one consumer group need: the group, who owns what in it, and whether it has settled."""

import json

import harness


class Group(harness.EndToEnd):

    def group(self, count, **options):
        """Installations that share one prefix: processes of one group, each with a directory of its own."""
        members = [self.assay("kafka", **options) for _ in range(count)]
        for member in members[1:]:
            member.prefix = members[0].prefix
        return members

    def owned(self, member):
        """Tasks that run in this process, by its own word; None while it does not say."""
        status, text = member.http("/ready")
        if status == 0:
            return None
        return {row["task"] for row in json.loads(text)["tasks"] if row["state"] == "running"}

    def settle(self, members, tasks=10):
        """Waits until every task runs in exactly one of the processes, and all of them have some."""

        def look():
            owned = [self.owned(member) for member in members]
            if None in owned or not all(owned):
                return None
            return owned if sum(map(len, owned)) == len(set().union(*owned)) == tasks else None

        return harness.wait_until("every task in one process", look, timeout_s=90)

    def folded(self, member, reports):
        seen = []

        def look():
            done = member.call("lag", "-o", "json")
            seen[:] = [done.code, done.err, *(row for row in json.loads(done.out or b"[]") if row["recordsBehind"])]
            return done.code == 0 and len(seen) == 2

        try:
            harness.wait_until("no lag", look, timeout_s=90)
        except AssertionError as late:
            raise AssertionError(f"{late}: {seen}") from late
        status, text = member.http("/query/tally")
        self.assertEqual((status, json.loads(text)["delivered"]), (200, reports))
