"""Signed files as they come: bundles that cannot be read yet, what is missing, and when to ask for it. No I/O, no clock."""

import bundle

ROLES = ("timestamp", "snapshot", "targets", "release", "rollout", "halt")
# The page leaves the first wait to the device: long enough for the bundle that is on its way to arrive.
PATIENCE, AGAIN, LONGEST = 2, 10, 600


class Files:
    def __init__(self, trust):
        self.trust = trust
        self.kept = {}  # topic → the newest bundle of it that cannot be read yet
        self.spoken_root = 0  # the highest root version that a bundle's header named
        self.at_least = {}  # versions that an answer named
        self.due, self.wait = None, AGAIN

    def dictionary(self, versions):
        root, targets = versions
        if targets == 0:
            return bundle.GENERAL
        held = self.trust.version("root"), self.trust.version("targets")
        return bundle.static(self.trust.held["root"][1], self.trust.held["targets"][1]) if versions == held else None

    def take(self, topic, data, now, wall):
        """Returns whether anything new is trusted."""
        self.kept[topic] = data
        changed = self.read(topic, wall)
        # What waited may be readable now, and may in turn bring what another one waits for.
        while changed and any([self.read(other, wall) for other in list(self.kept)]):
            pass
        self.schedule(now, changed)
        return changed

    def read(self, topic, wall):
        data = self.kept.pop(topic)
        root, targets = bundle.header(data)
        try:
            files = bundle.unpack(data, self.dictionary)
        except bundle.Unreadable:
            held = self.trust.version("root"), self.trust.version("targets")
            if root > held[0] or targets > held[1]:
                self.kept[topic] = data
                self.spoken_root = max(self.spoken_root, root)
            return False
        self.spoken_root = max(self.spoken_root, root)
        return self.trust.offer(files, wall)

    def behind(self):
        """Roles to ask for; None of them: nothing is missing."""
        newer = self.trust.newer_root or self.spoken_root > self.trust.version("root")
        wants = ["root"] if newer else []
        if self.kept or wants or "snapshot" not in self.trust.held:
            return wants + list(ROLES)
        named = {role for role, version in self.at_least.items() if version > self.trust.version(role)}
        if named:
            return ["timestamp", "snapshot", *sorted(named)]
        return self.trust.missing()

    def expect(self, versions, now):
        self.at_least = versions
        self.schedule(now, False, at_once=True)

    def schedule(self, now, progress, at_once=False):
        if not self.behind():
            self.due, self.wait = None, AGAIN
        elif at_once or self.due is None or progress:
            self.due = now if at_once else now + PATIENCE

    def request(self, product, now):
        """The `get` that is due, or None."""
        if self.due is None or now < self.due:
            return None
        self.due, self.wait = now + self.wait, min(self.wait * 2, LONGEST)
        wants = [{"product": product, "role": role} for role in self.behind()]
        for want in wants:
            if want["role"] == "root":
                want["version"] = self.trust.version("root") + 1
        request = {"want": [{"file": want} for want in wants]}
        if "targets" in self.trust.held:
            request["dict"] = [self.trust.version("root"), self.trust.version("targets")]
        return request

    def answered(self):
        """After an answer to `get` what still waits is forgotten."""
        self.kept.clear()
