"""One image from packs: pieces of the tree first, then chunks, each believed only for what it hashes to. No I/O."""

import wire

WINDOW = 96
AGAIN, LONGEST = 10, 600


class Download:
    def __init__(self, offer, write_chunk):
        self.length, self.root = offer["length"], bytes.fromhex(offer["root"])
        self.count = wire.chunk_count(self.length)
        self.leaves = {0: self.root} if self.count == 1 else {}
        self.tops = {0: self.root} if self.count <= wire.PIECE else {}
        self.missing = set(range(self.count))
        self.write_chunk = write_chunk
        self.asked, self.wait = None, AGAIN
        self.window = set()

    @property
    def complete(self):
        return not self.missing

    def wants(self, now):
        """The next request, if the last one is worked off or was not answered for its while."""
        if self.asked is not None and self.window and now < self.asked + self.wait:
            return None
        self.wait = min(self.wait * 2, LONGEST) if self.window else AGAIN
        self.asked = now
        of = self.root.hex()
        if self.count > wire.PIECE and not self.tops:
            self.window = {("piece", 1, 0)}
        else:
            chunks = sorted(self.missing)[:WINDOW]
            pieces = sorted({index // wire.PIECE for index in chunks if index not in self.leaves})
            self.window = {("piece", 0, piece) for piece in pieces} or {("chunk", 0, index) for index in chunks}
        pieces = [{"piece": {"of": of, "level": level, "index": index}} for kind, level, index in self.window if kind == "piece"]
        return pieces or [{"packs": {"of": of, "ranges": ranges(sorted(index for _, _, index in self.window))}}]

    def take(self, pack, now):
        """Returns whether the pack was one of ours and good."""
        if pack.of != self.root[:8]:
            return False
        if pack.kind == wire.Pack.CHUNK:
            good = self.chunk(pack)
        else:
            good = self.piece(pack)
        if good:
            self.window.discard(("chunk" if pack.kind == wire.Pack.CHUNK else "piece", pack.level, pack.index))
            self.asked = now
        return good

    def chunk(self, pack):
        index = pack.index
        if pack.level or index not in self.missing or self.leaves.get(index) != wire.leaf(pack.payload):
            return False
        self.write_chunk(index, pack.payload)
        self.missing.discard(index)
        return True

    def piece(self, pack):
        digests = pack.digests()
        if pack.level == 1:
            if self.count <= wire.PIECE or pack.index or wire.tree(digests) != self.root:
                return False
            self.tops = dict(enumerate(digests))
            return True
        if pack.level != 0 or self.tops.get(pack.index) != wire.tree(digests):
            return False
        self.leaves |= {pack.index * wire.PIECE + place: digest for place, digest in enumerate(digests)}
        return True


def ranges(indices):
    out = []
    for index in indices:
        if out and out[-1][1] == index:
            out[-1][1] = index + 1
        else:
            out.append([index, index + 1])
    return out[:64]
