"""Numbers, epoch, outbox, challenge and grant: docs/protocol.md, «Reports» and «Answers». Sends by the function it is given."""

import secrets

import mac

LONGEST = 600
OUTBOX = 256
FRESH = 120
HELLOS = 3
UNHEARD = 5


class Reports:
    def __init__(self, journal, device, identity, publish, enrol, save, first_wait):
        self.j = journal
        self.device, self.identity = device, identity
        self.publish, self.enrol, self.save = publish, enrol, save
        self.first_wait = first_wait
        self.codes = None
        self.greeted = False  # the hello of this connection was acknowledged
        self.challenge = None
        self.due = {}  # n → (when it is sent again, how long after that)
        self.hellos = 0  # sent since the last enrolment
        self.unheard = 0  # rounds since the service was heard
        self.nonce = None  # (nonce, when it was made), of the question that is open

    def number(self):
        self.j["n"] += 1
        return self.j["n"]

    def add(self, kind, **fields):
        """A report that is kept until it is acknowledged. It is in the journal before it is sent."""
        body = {"n": self.number(), "t": kind} | fields
        self.j["outbox"].append(body)
        self.make_room()
        self.save()
        return body

    def make_room(self):
        while len(self.j["outbox"]) > OUTBOX:
            order = {"transition": 0, "hello": 1}
            victim = min(self.j["outbox"], key=lambda body: (order.get(body["t"], 2), body["n"]))
            self.j["outbox"].remove(victim)

    def greet(self, **fields):
        """The first report of a connection and of an epoch. An older hello says nothing that this one does not."""
        self.greeted, self.challenge, self.unheard, self.hellos = False, None, 0, 0
        self.j["outbox"] = [body for body in self.j["outbox"] if body["t"] != "hello"]
        self.due.clear()
        return self.add("hello", **fields)

    @property
    def hello(self):
        return next((body for body in self.j["outbox"] if body["t"] == "hello"), None)

    @property
    def deaf(self):
        """Greeted, and not heard for rounds: a service that was restored drops everything until it is greeted."""
        return self.greeted and self.unheard >= UNHEARD

    def start_waits(self):
        return any(body["t"] == "started" for body in self.j["outbox"])

    def send_due(self, now):
        """Until the hello is acknowledged nothing else goes out: the numbers of a lost journal may be another's."""
        if not self.codes:
            return
        for body in list(self.j["outbox"]):
            at, wait = self.due.get(body["n"], (0, self.first_wait))
            if at > now or not (self.greeted or body["t"] == "hello"):
                continue
            self.due[body["n"]] = (now + wait, min(wait * 2, LONGEST))
            if body["t"] == "hello":
                if not self.j["enrolled"] or self.hellos >= HELLOS:
                    self.hellos = 0
                    self.enrol()
                self.hellos += 1
            self.unheard += body is self.j["outbox"][0]
            self.send(body)

    def next_due(self):
        return min((at for at, _ in self.due.values()), default=None)

    def send(self, body):
        low = min([kept["n"] for kept in self.j["outbox"]], default=body["n"])
        sealed = {"e": self.j["epoch"], "k": self.codes.kid, "n": body["n"], "low": low} | body
        if body["t"] == "hello" and self.challenge:
            sealed["proof"] = mac.proof(self.identity, self.device, self.challenge, self.j["n"])
        self.publish("report", self.codes.seal(sealed))

    # Questions.

    def new_nonce(self, now):
        self.nonce = (secrets.token_hex(16), now)
        return self.nonce[0]

    def ask(self, now, **attempt):
        """Not kept: who asks later asks with another nonce."""
        body = {"n": self.number(), "t": "ask", "nonce": self.new_nonce(now)} | attempt
        self.save()
        if self.greeted and self.codes:
            self.send(body)

    # Answers.

    def open(self, message):
        """Returns the body of an authentic answer of the present epoch, or of a challenge or grant, whose epoch is 0."""
        body = self.codes and self.codes.open(message, (self.j["epoch"], 0))
        if not body or body.get("k") != self.codes.kid or (body["t"] in ("challenge", "grant")) != (body["e"] == 0):
            return None
        self.unheard = 0
        return body

    def acked(self, ranges):
        """Returns whether the hello of this connection is among them."""
        gone = [b for b in self.j["outbox"] if any(first <= b["n"] <= last for first, last in ranges)]
        self.j["outbox"] = [body for body in self.j["outbox"] if body not in gone]
        for body in gone:
            self.due.pop(body["n"], None)
        if any(body["t"] == "hello" for body in gone):
            self.greeted, self.challenge = True, None
        self.save()
        return self.greeted

    def answers_ours(self, body, now):
        return self.nonce is not None and body["nonce"] == self.nonce[0] and now - self.nonce[1] <= FRESH

    def challenged(self, body):
        """Answers only while a hello waits: an old challenge that somebody repeats makes this device sign nothing."""
        if self.hello and not self.greeted:
            self.challenge = body["challenge"]
            self.send(self.hello)

    def granted(self, body):
        """Returns whether the grant was for us; then a new hello is owed."""
        if self.challenge != body["challenge"] or body["epoch"] <= self.j["epoch"]:
            return False
        self.j["epoch"], self.j["n"] = body["epoch"], max(self.j["n"], body["counter"])
        self.challenge = None
        self.save()
        return True
