#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what tiktoken makes of awkward texts: byte_pairs.tiktoken, a small vocabulary, and byte_pairs.txt.

usage: byte_pairs.py GPT2_TIKTOKEN      (with tiktoken installed; the file is that of openai-whisper on PyPI)

A line of byte_pairs.txt: the text's bytes in hexadecimal, its tokens by the small vocabulary, its tokens by GPT-2's;
columns end at tabs. Read by tests/unit/byte_pair_golden_test.cpp and tests/unit/gpt2_vocabulary_test.cpp.
"""
import base64
import pathlib
import random
import sys
from collections import Counter

import regex
import tiktoken

HERE = pathlib.Path(__file__).parent
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MERGES, SEED, RANDOM_TEXTS = 300, 1, 150

TEXTS = [
    "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "a ", "  a", "a  ", "a   b", "a \n b", "a\n\n\nb\n", "x\t\ty",
    " \t \n ",
    "I'm you're he's we'll they've it'd don't", "I'M YOU'RE HE'S WE'LL THEY'VE IT'D DON'T", "l’été ‘quoted’ don’t",
    "'s's 's '",
    "''s '' '' s", "rock'n'roll 'tis 'twas", "can'tve she'dve", "'llama 'vet 'real 'sun 'dog 'mat 'tea",
    "1234567890 3.14159 1,000,000 -1 +2", "a1b2c3 4th x²y³ H₂O ½ ¾ Ⅷ ⅸ ①② ٣٤٥ १२३ ๔๕ 𝟘𝟙 〇一二",
    "12:34:56 2024-06-07T01:02:03Z",
    "été e\u0301te\u0301 naïve nai\u0308ve Å A\u030a ﬁ ﬃ ß ẞ İ ı ǆ", "Ελληνικά кириллица հայերեն ქართული ᏣᎳᎩ",
    "עִבְרִית العَرَبِيَّة فارسی اردو ‏rtl‎", "हिन्दी বাংলা தமிழ் తెలుగు ไทย ລາວ မြန်မာ ខ្មែរ བོད་ཡིག",
    "日本語テキスト。中文字符、全角　空白！ｆｕｌｌ ｗｉｄｔｈ １２３", "한국어 텍스트 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "😀😃 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 ☃️ ♥ ❤️ 1️⃣", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝐛𝐨𝐥𝐝 𐍈𐌰 𓀀𓁐 𠀀𠮷 𞤀𞤣", "\u0300\u0301\u0302", "a\u0300\u0301 b\u20dd",
    "a\u00a0b\u2003c\u2028d\u2029e\u0085f\u1680g\u3000h\u202fi\u205fj",
    "a\u200bb\u200cc\u200dd\ufeffe\u2060f\u180eg\u00adh",
    "\u00a0\u00a0x \u3000y\u3000 z", "a\x0bb\x0cc\x1cd\x1de\x1ef\x1fg", "a\x00b\x01c\x7fd\x80e\x9ff", "\x00",
    "\x1c \x1d",
    "\ue000\uf8ff \ufdd0 \uffff \U000f0000 \U0010ffff \u0378 \U000e0001", "\ufffd\ufffc",
    "ªº ʰʲ ˈˌ ـ ゛ゝ々〆〻 ㍿㌔ ⁿ ™℃ℓΩÅ",
    "<|endoftext|>", "<|endoftext|><|endoftext|> <|fim_prefix|>", "<|endoftext", "the<|endoftext|>the", "|>", "<|",
    "▁ Ġ Ċ",
    "def f(x):\n    return x ** 2  # 平方\n\n\nif __name__ == '__main__':\n\tprint(f(3))\n",
    "{\"k\": [1, 2.5e-3, null]}",
    "https://example.org/a_b?c=%20d&e=f#g", "C++ && || !== <<= ->* ::", "---- ==== .... !!!! ???? ____",
    "$€£¥ ±×÷ ∀∃ ∑∫ ≤≥ → ⇒",
    "SolidGoldMagikarp  petertodd", "ÃÂÃÂÃÂ Ã©",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", " " * 40 + "x", "\n" * 17,
    "ab" * 40, "the" * 30, "ohoho" * 11, "0" * 37, "!?" * 21, "é" * 33, "日" * 19, "😀" * 9, "\u00a0" * 7 + "x",
    "mississippi banana anagram",
    "In the beginning God created the heaven and the earth.\nAnd the earth was without form, and void;",
    "Thus saith the LORD of hosts, the God of Israel;  Behold,\tI will bring upon this city ...",
    "Ａ\u3000Ｂ\n\u3000\n C", "x\u2009\u200ay z\u00a0\n",
    "\u0149 \u1e9e \u01c5 \u2c7d \ua7f1 \u0640\u0651", "\u0e33 \u0eb3 \u0f77 \u0bd7",
    "\U0001e900\U0001e943 \U00011f02 \U00010d40 \U0001ccf0",
]
RANGES = [(0x20, 0x7e)] * 6 + [
    (0x9, 0xd), (0x0, 0x1f), (0x80, 0x2af), (0x300, 0x36f), (0x370, 0x5ff), (0x600, 0x1fff), (0x2000, 0x206f),
    (0x2070, 0x2fff), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7ff), (0xe000, 0xffff), (0x10000, 0x1ffff),
    (0x20000, 0x2fa1f), (0xe0000, 0x10ffff)]


def random_texts():
    pick = random.Random(SEED)
    for _ in range(RANDOM_TEXTS):
        spans = [pick.choice(RANGES) for _ in range(3)] + [(0x20, 0x20)]
        chosen = [pick.choice(spans) for _ in range(14)]
        yield "".join(chr(int(low + pick.random() * (high - low + 1))) for low, high in chosen)


def merged(text, count):
    """Byte-pair encoding's tokens of the text, by rank: each byte, then the most frequent pairs, one after another."""
    words = [[bytes([b]) for b in piece.encode()] for piece in regex.findall(PATTERN, text)]
    tokens = [bytes([b]) for b in range(256)]
    while len(tokens) < 256 + count:
        pairs = Counter(pair for word in words for pair in zip(word, word[1:]))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        tokens.append(best[0] + best[1])
        for word in words:
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == best:
                    word[at:at + 2] = [tokens[-1]]
                at += 1
    return {token: rank for rank, token in enumerate(tokens)}


def encoding(name, ranks):
    return tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)})


def main():
    texts = [*TEXTS, *random_texts()]
    small = merged("".join(TEXTS), MERGES)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in small.items()]
    (HERE / "byte_pairs.tiktoken").write_text("".join(lines))
    lines = [line.split() for line in pathlib.Path(sys.argv[1]).read_text().splitlines() if line]
    large = {base64.b64decode(token): int(rank) for token, rank in lines}
    columns = [encoding("small", small), encoding("gpt2", large)]
    with open(HERE / "byte_pairs.txt", "w", encoding="ascii") as file:
        for text in texts:
            tokens = ["".join(f"{token} " for token in e.encode_ordinary(text)) for e in columns]
            file.write("".join(f"{column}\t" for column in (text.encode().hex(), *tokens)) + "\n")


if __name__ == "__main__":
    main()
