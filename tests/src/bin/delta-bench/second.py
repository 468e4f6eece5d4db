"""A second decoder of deltas, written from docs/delta-format.md alone, to show that the page says enough. Slow.

python3 second.py FOLDER OLD OUT      FOLDER holds manifest, pack-0, pack-1, ...
"""
import hashlib, struct, sys

M32 = 0xFFFFFFFF
PROFILES = {1: (True, 18, 16, 12, 15), 2: (True, 16, 14, 12, 15), 3: (True, 13, 11, 10, 14), 4: (False, 17, 14, 12, 14)}
RATES = (36000, 24000, 17000, 12500, 9000, 7000, 5500, 4300)
WORTH = (1, 2, 4, 7, 11, 16, 20, 24)
BLOCKS = ((64, 32), (512, 256), (8192, 4096))
OPERANDS = bytes.fromhex("8b8d893b83806315ff10116fc7")


def hash_(id_, a, b):
    h = ((a ^ id_ * 0x9E3779B1) & M32) * 0x85EBCA6B & M32
    h ^= h >> 15
    h = (h ^ b) * 0xC2B2AE35 & M32
    return h ^ h >> 16


def clamp(v, low, high):
    return low if v < low else high if v > high else v


def log2(v):
    return v.bit_length() - 1


POWER = [1 << 32]
for _ in range(2815):
    POWER.append(POWER[-1] * 4311777253 >> 32)
SQUASH = [
    clamp((POWER[x] << 16) // (POWER[x] + (1 << 32)) if x >= 0 else (1 << 48) // (POWER[-x] + (1 << 32)), 1, 65535)
    for x in range(-2815, 2816)
]


def squash(x):
    return SQUASH[clamp(x, -2815, 2815) + 2815]


def inverse(p):
    low, high = 0, len(SQUASH)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if SQUASH[middle] < p else (low, middle)
    return min(low - 2815, 2815)


STRETCH = [inverse(p * 8 + 4) for p in range(8192)]


def learnt(cell, bit):
    p, n = cell >> 3, cell & 7
    step = (8191 - p if bit else p) * RATES[n] + 65535 >> 16
    return (p + step if bit else p - step) << 3 | n + (n < 7)


class Mixer:
    def __init__(self, weight, rate):
        self.sets = [[[weight // 2] * 8 for _ in range(256)] for _ in range(2)]
        self.rate = rate

    def dot(self, x, first, second):
        self.a, self.b = self.sets[0][first], self.sets[1][second]
        total = sum(clamp(a + b, -32768, 32767) * v for a, b, v in zip(self.a, self.b, x))
        return clamp(total >> 14, -2815, 2815)

    def update(self, x, error):
        step = error * self.rate >> 6
        for i, v in enumerate(x):
            change = v * step + 32768 >> 16
            self.a[i] = clamp(self.a[i] + change, -32768, 32767)
            self.b[i] = clamp(self.b[i] + change, -32768, 32767)


class Word:
    def __init__(self):
        self.age, self.target, self.old, self.change, self.sure = 4, 0, 0, 0, 0

    def difference(self):
        if self.age > 3:
            return 0
        shift = 8 * self.age
        return ((self.old + self.change & M32) >> shift) - (self.old >> shift) & 255


class Memory:
    def __init__(self, w):
        self.w, self.exact, self.near = w, {}, {}

    def places(self, target):
        e, n = hash_(90, target, 0), hash_(91, target >> 8, 0)
        return e >> 32 - self.w, e & 0xFFFF | 1, n >> 33 - self.w, n & 0xFFFF | 1

    def guess(self, target):
        e, ec, n, nc = self.places(target)
        entry = self.exact.get(e)
        if entry and entry[0] == ec:
            return entry[1], 2 + entry[2]
        entry = self.near.get(n)
        return (entry[1], 1) if entry and entry[0] == nc else (0, 0)

    def learn(self, target, change):
        e, ec, n, nc = self.places(target)
        entry = self.exact.get(e)
        same = entry and entry[0] == ec and entry[1] == change
        self.exact[e] = (ec, change, min(entry[2] + 1, 3) if same else 0)
        self.near[n] = (nc, change)


class Pack:
    def __init__(self, code, profile):
        self.full, self.f, self.n, w, self.h = PROFILES[profile]
        self.levels = BLOCKS if self.full else ((16, 8), *BLOCKS)
        self.bytes, self.at = code, 0
        self.low, self.high, self.code = 0, M32, 0
        for _ in range(4):
            self.code = self.code << 8 | self.next()
        self.flags, self.singles, self.lines = {}, {}, {}
        self.choices, self.guesses = Mixer(4000, 12), Mixer(4000, 12)
        self.patches, self.symbols = Mixer(5000, 18), Mixer(5000, 18)
        self.numbers = [32768] * (43 * 504)
        self.absolute, self.relative = Memory(w), Memory(w)
        self.ring, self.index, self.pushed, self.follows, self.match = bytearray(1 << self.h), {}, 0, 0, 0
        self.recent = self.since = self.last = self.lasts = 0
        self.differences = [0] * 32
        self.shifts, self.source_end, self.kind = [0] * 4, 0, 0
        self.before = bytes(32)

    def next(self):
        self.at += 1
        return self.bytes[self.at - 1] if self.at <= len(self.bytes) else 0

    def bit(self, p):
        span = self.high - self.low
        middle = self.low + (span >> 16) * p + ((span & 0xFFFF) * p >> 16)
        bit = self.code <= middle
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while (self.low ^ self.high) >> 24 == 0:
            self.low = self.low << 8 & M32
            self.high = self.high << 8 & M32 | 0xFF
            self.code = self.code << 8 & M32 | self.next()
        return int(bit)

    def direct(self, n):
        v = 0
        for _ in range(n):
            v = v << 1 | self.bit(32768)
        return v

    # numbers and choices
    def cell(self, at):
        bit = self.bit(clamp(self.numbers[at], 64, 65472))
        self.numbers[at] += (65535 * bit - self.numbers[at]) >> 4
        return bit

    def choice(self, kind, which):
        return self.cell(kind * 504 + which)

    def number(self, kind):
        base, node = kind * 504, 1
        for _ in range(6):
            node = 2 * node + self.cell(base + node)
        n = min(node - 64, 48)
        got = 1
        for k in range(n):
            place = n - 1 - k
            at = 64 + 8 * n + (1 << k | got & (1 << k) - 1) if k < 3 else 456 + place
            got = got << 1 | self.cell(base + at)
        return got - 1

    # flags and bytes
    def single(self, slot):
        v = self.singles.get(slot, 1 << 31)
        bit = self.bit(clamp(v >> 16, 16, 65520))
        p, n = v >> 10, v & 0x3FF
        p += ((((1 << 22) - 1) * bit - p) >> 3) * (2048 // (2 * n + 3)) >> 7
        self.singles[slot] = p << 10 | n + (n < 60)
        return bit

    def mix(self, mixer, cells, first, second):
        x = [STRETCH[(c & 0xFFF8 | 4) >> 3] for c in cells]
        x += [0] * (7 - len(x)) + [256]
        p = squash(mixer.dot(x, first, second))
        bit = self.bit(p)
        mixer.update(x, (bit << 16) - p)
        return bit

    def flag(self, mixer, contexts, first, second):
        slots = [c & (1 << self.f) - 1 for c in contexts]
        bit = self.mix(mixer, [self.flags.get(s, 0x8000) for s in slots], first, second)
        for s in slots:
            self.flags[s] = learnt(self.flags.get(s, 0x8000), bit)
        return bit

    def line(self, h):
        first, check = h >> 32 - self.n, h & 0xFFFF
        new = [0x8000] * 16
        a, b = (self.lines.setdefault(i, list(new)) for i in (first, first ^ 1))
        for cells in (a, b):
            if cells[0] == check:
                return cells
        cells = a if a[1] & 7 <= b[1] & 7 else b
        cells[:] = new
        cells[0] = check
        return cells

    def symbol(self, mixer, contexts, chosen):
        node = 1
        for place in range(7, -1, -1):
            if place in (7, 3):
                lines = [self.line(hash_(99, c, node if place == 3 else 0)) for c in contexts]
                cell = 1
            bit = self.mix(mixer, [cells[cell] for cells in lines], chosen, node)
            for cells in lines:
                cells[cell] = learnt(cells[cell], bit)
            node, cell = 2 * node + bit, 2 * cell + bit
        return node & 255

    def simple(self, contexts):
        node = 1
        for place in range(7, -1, -1):
            if place in (7, 3):
                lines = [self.line(hash_(99, c, node if place == 3 else 0)) for c in contexts]
                cell = 1
            worth = [WORTH[cells[cell] & 7] for cells in lines]
            total = sum((cells[cell] & 0xFFF8 | 4) * w for cells, w in zip(lines, worth))
            bit = self.bit(clamp(total * ((1 << 20) // sum(worth)) >> 20, 32, 65503))
            for cells in lines:
                cells[cell] = learnt(cells[cell], bit)
            node, cell = 2 * node + bit, 2 * cell + bit
        return node & 255

    # history
    def push(self, byte):
        mask = len(self.ring) - 1
        if self.match and self.ring[self.follows & mask] == byte:
            self.match = min(self.match + 1, 63)
            self.follows += 1
        else:
            self.match = 0
        self.ring[self.pushed & mask] = byte
        self.pushed += 1
        if self.pushed < 5:
            return
        back = [self.ring[self.pushed - k & mask] for k in range(1, 6)]
        h = hash_(92, back[0] << 24 | back[1] << 16 | back[2] << 8 | back[3], back[4]) >> 32 - (self.h - 2)
        found = self.index.get(h, 0)
        if not self.match and found and self.pushed - found < mask:
            common = 0
            while common < 24 and self.ring[found - common - 1 & mask] == self.ring[self.pushed - common - 1 & mask]:
                common += 1
            if common >= 5:
                self.follows, self.match = found, common
        self.index[h] = self.pushed

    def literals(self, out, count, beside):
        if not count:
            return
        self.match = 0
        for b in out[-6:]:
            self.push(b)
        for i in range(count):
            c = lambda n: out[-n]
            o0, o1 = beside[16 + i], beside[15 + i]
            m, expected = self.match, self.ring[self.follows & len(self.ring) - 1]
            if m >= 16 and self.single(1024 + 2 * m + (c(1) == o1)):
                byte = expected
            else:
                length = min(m, 15) + (m > 24) + (m > 32)
                expected = expected if m else 0
                contexts = [hash_(42, c(1), 0), hash_(43, c(1) << 8 | c(2), 0), hash_(46, expected << 8 | length, 0)]
                if self.full:
                    contexts += [hash_(48, o0 << 8 | o1, c(1)), hash_(50, c(24) << 8 | c(4), 0),
                                 hash_(44, c(1) << 16 | c(2) << 8 | c(3), 0)]
                    byte = self.symbol(self.symbols, contexts, 8 * length + (c(1) == o1))
                else:
                    byte = self.simple(contexts)
            out.append(byte)
            self.push(byte)
        self.since, self.recent, self.differences = 8, (self.recent << 8 | 0x80) & (1 << 64) - 1, [0] * 32

    def same(self, n):
        self.recent = self.recent << n & (1 << 64) - 1 if n < 64 else 0
        self.since += n

    # copies
    def copy(self, out, source, start, at, length):
        i, words = 0, (Word(), Word())
        near, shortest = self.levels[0]
        while i < length:
            if self.since >= near:
                skipped = self.blocks(out, source, start, i, length)
                i += skipped
                if i == length:
                    break
                if skipped:
                    words = (Word(), Word())
            certain = min(i + shortest, length) if self.since >= near else 0
            while i < (certain or length):
                differs = self.byte(out, source[i:i + 32], start + i, at + i, i + 1 == certain, *words)
                i += 1
                if (certain and differs) or (not certain and self.since >= near):
                    break

    def blocks(self, out, source, start, first, length):
        i, within, levels = first, None, self.levels
        level = max(l for l in range(len(levels)) if self.since >= levels[l][0])
        while i < length:
            end = min(i + levels[level][1], length if within is None else within)
            piece = source[16 + i:16 + end]
            same = 0
            if within != end:
                hot = 0
                if level == 0:
                    hot = min(3 if self.full else 1, sum(b in (0xE8, 0xE9) for b in piece))
                if level == 0 and not self.full:
                    words = (struct.unpack_from("<I", source, 16 + at)[0] for at in range(i, end) if (start + at) % 4 == 0)
                    hot += 2 * any(change and sure > 1 for change, sure in map(self.absolute.guess, words))
                context = 256 * level + 64 * hot + 4 * min(15, log2(self.since) - (5 if self.full else 3)) + 2 * (self.recent != 0) + (within is not None)
                same = self.single(context)
            if same:
                out += piece
                self.same(end - i)
                i = end
                if within is None and level + 1 < len(levels) and self.since >= levels[level + 1][0]:
                    level += 1
            elif level == 0:
                break
            else:
                within, level = end, level - 1
        if i != first:
            self.differences = [0] * 32
        return i - first

    def begin(self, word, memory, target, old, shift):
        word.age, word.target, word.old = 0, target, old
        change, word.sure = memory.guess(target)
        word.change = change - shift & M32

    def byte(self, out, old, start, at, known, absolute, relative):
        shift = at - start & M32
        o = lambda n: old[16 + n]
        w0 = struct.unpack_from("<I", old, 16)[0]
        code = o(-1) in (0xE8, 0xE9) or (o(-2) == 0x0F and o(-1) & 0xF0 == 0x80) or (o(-1) & 0xC7 == 5 and o(-2) in OPERANDS)

        def begin_relative():
            self.begin(relative, self.relative, w0 + start & M32, w0, shift)

        def begin_absolute():
            self.begin(absolute, self.absolute, w0, w0, 0)

        if relative.age > 3 and (code or start % 4 == 0):
            begin_relative()
        if absolute.age > 3 and start % 4 == 0:
            begin_absolute()
        recent, d = self.recent, lambda n: self.differences[(at - n) % 32]
        differs = 1
        if not known:
            s = self.since
            steps = (s if s < 6 else 6 if s < 8 else 7 if s < 12 else 8 if s < 16 else 9 if s < 24 else 10 if s < 32
                     else 11 if s < 64 else 12 + min(3, log2(s) - 6))
            column = at % 8
            state = lambda w: min(w.age, 4) << 4 | (7 if w.age > 3 else w.sure) << 1 | (w.difference() != 0)
            rel, abs_ = state(relative), state(absolute)
            contexts = [hash_(1, recent & 0xFFFF, 0), hash_(2, steps << 3 | column, rel),
                        hash_(7, rel << 8 | relative.difference(), (recent & 3) << 8 | abs_),
                        hash_(8, abs_ << 8 | absolute.difference(), recent & 3),
                        hash_(9, recent & 0xFF, o(-1) << 8 | o(-2)), hash_(4, w0, 0),
                        hash_(5, o(1) << 16 | o(0) << 8 | self.last, recent & 1)]
            second = (rel >> 1 & 7) << 5 | (abs_ >> 1 & 7) << 2 | (rel & 1) << 1 | abs_ & 1
            differs = self.flag(self.choices, contexts[:7 if self.full else 5], (steps << 3 | recent & 7) & 255, second)
        difference = 0
        if differs:
            if relative.age > 3:
                begin_relative()
            if absolute.age > 3:
                begin_absolute()
            run = 0
            while run < 3 and recent >> run & 1:
                run += 1
            rel, abs_ = relative.difference(), absolute.difference()
            sure = lambda w: 7 if w.age > 3 else w.sure
            states = sure(relative) << 3 | relative.age, sure(absolute) << 3 | absolute.age
            kind, guess = ((3, rel) if rel and relative.sure else (2, abs_) if abs_ and absolute.sure
                           else (1, d(8)) if d(8) else (0, self.last))
            known = kind << 8 | guess
            contexts = [hash_(61, known, states[0] << 8 | states[1]), hash_(62, w0, known), hash_(63, d(4) << 8 | d(8), known),
                        hash_(64, self.last << 2 | run, known), hash_(65, o(0) << 8 | o(-1), known),
                        hash_(66, kind, recent & 0xFF), hash_(67, self.lasts, known)]
            first = kind << 6 | run << 4 | min(3, relative.sure) << 2 | min(3, absolute.sure)
            if self.flag(self.guesses, contexts, first, guess):
                difference = guess
            else:
                contexts = [hash_(21, rel, states[0]), hash_(22, abs_, states[1]), hash_(23, self.last, run),
                            hash_(24, d(4) << 8 | d(8), run), hash_(27, w0, 0), hash_(26, self.lasts, run),
                            hash_(31, o(0) << 8 | out[-1], o(1))]
                chosen = (run << 6 | min(3, relative.age) << 4 | min(3, absolute.age) << 2 | (relative.sure > 1) << 1 | (absolute.sure > 1)) & 255
                difference = self.symbol(self.patches, contexts[:7 if self.full else 5], chosen)
            self.last, self.lasts, self.since = difference, (self.lasts << 8 | difference) & M32, 0
        else:
            self.since += 1
        out.append(o(0) + difference & 255)
        self.recent = (recent << 1 | differs) & (1 << 64) - 1
        self.differences[at % 32] = difference
        for word in (relative, absolute):
            if word.age > 3:
                continue
            if word.difference() != difference:
                word.sure = 0
            word.age += 1
            if word.age == 4:
                change = struct.unpack("<I", out[-4:])[0] - word.old & M32
                if word is relative:
                    self.relative.learn(word.target, change + shift & M32)
                elif change or word.sure:
                    self.absolute.learn(word.target, change)
        return differs

    def place(self, at):
        candidates = [self.shifts[0], self.source_end - at, *self.shifts[1:]]
        for which, shift in enumerate(candidates):
            if shift not in candidates[:which] and self.choice(0, which):
                break
        else:
            back = self.choice(0, 8)
            size = self.number(1)
            shift = candidates[1] + (-size if back else size)
        if shift in self.shifts:
            self.shifts.remove(shift)
        self.shifts = [shift, *self.shifts][:4]
        return at + shift

    def chunk(self, read, at, length):
        """Returns (chunks, bytes or None for a move, digest or None, place of a move)."""
        which = 4 * self.kind
        if not self.choice(2, which):
            count = self.number(3) + 1
            self.kind = 1
            return count, None, None, self.place(at)
        kind = "coded" if self.choice(2, which + 1) else "listed" if self.choice(2, which + 2) else "raw"
        self.kind = {"coded": 0, "listed": 2, "raw": 3}[kind]
        digest = None if kind == "listed" else self.direct(64)
        out = bytearray(self.before)
        if kind == "raw":
            out += bytes(self.direct(8) for _ in range(length))
        class_ = 0
        while len(out) - 32 < length:
            left = length - (len(out) - 32)
            if kind == "coded":
                count = left if self.choice(4, class_) else self.number(5 + class_)
                here = at + len(out) - 32
                self.literals(out, count, read(here + self.shifts[0] - 16, count + 32))
                class_ = min(7, log2(count + 1))
                left -= count
                if not left:
                    break
            size = left if self.choice(4, 16 + class_) else self.number(24 + class_)
            here = at + len(out) - 32
            start = self.place(here)
            log = min(15, log2(size))
            exact = kind == "listed" or self.choice(42, log)
            source = read(start - 16, size + 32)
            if exact:
                out += source[16:16 + size]
                self.same(size)
                self.differences = [0] * 32
            else:
                self.copy(out, source, start, here, size)
            self.source_end = start + size
            class_ = min(15, 8 + log // 2)
        assert len(out) == 32 + length
        self.before = bytes(out[-32:])
        return 1, bytes(out[32:]), digest, None


def tree_root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_root(leaves[:split]) + tree_root(leaves[split:])).digest()


def main(folder, old_path, out_path):
    manifest = open(f"{folder}/manifest", "rb").read()
    version, profile, log, packs = struct.unpack_from("<BBBI", manifest)
    old_length, new_length = (struct.unpack_from("<Q", manifest, p)[0] for p in (15, 55))
    old, new = open(old_path, "rb").read(), bytearray()
    assert version == 1 and len(old) == old_length
    leaves = []
    for n in range(packs):
        pack = open(f"{folder}/pack-{n}", "rb").read()
        leaves.append(hashlib.sha256(b"\0" + pack).digest())
        _, _, _, first, chunks = struct.unpack_from("<BBBII", pack)
        coder, chunk = Pack(pack[11:], profile), first
        while chunk < first + chunks:
            at = chunk << log
            length = min(1 << log, new_length - at)
            whole = bytes(old) + bytes(new[:at])

            def read(position, count):
                lead = max(0, min(count, -position))
                part = whole[max(0, position):max(0, position + count)]
                return (bytes(lead) + part).ljust(count, b"\0")

            count, out, digest, start = coder.chunk(read, at, length)
            if out is None:
                length = min(count << log, new_length - at)
                out = whole[start:start + length]
                coder.before = (coder.before + out)[-32:]
                coder.source_end, coder.since, coder.recent, coder.differences = start + length, 65536, 0, [0] * 32
            elif digest is not None:
                assert hashlib.sha256(b"\0" + out).digest()[:8] == digest.to_bytes(8, "big"), f"chunk {chunk}"
            new[at:at + length] = out
            chunk += count
        assert coder.at >= len(coder.bytes) and coder.at <= len(coder.bytes) + 4
    open(out_path, "wb").write(new)


if __name__ == "__main__":
    main(*sys.argv[1:])
