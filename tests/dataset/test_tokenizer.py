"""The tokenizer: any text there and back, the same from the same texts, refused when broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrobio.dataset.tokenizer import WorldTokenizer
from astrobio.errors import InputError

TEXTS = [
    f"Teff {2500 + 7 * i} K, radius {0.9 + i / 100:.2f} Earth; CH4 1e-{i % 7} µm, star M{i % 9}V" for i in range(200)
]
TOKENIZER = WorldTokenizer.train(TEXTS, 400)


@given(st.text())
def test_any_text_returns(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize("text", ["", " ", "\x00", "🪐 Ωμέγα", "a\r\nb\tc", "é" * 3000, "0123456789" * 50])
def test_hostile_texts_return(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text and all(0 <= i < TOKENIZER.vocab_size for i in ids)


def test_digits_stand_alone() -> None:
    pieces = [TOKENIZER.decode([i]) for i in TOKENIZER.encode("radius 2566")]
    assert [p for p in pieces if any(c.isdigit() for c in p)] == ["2", "5", "6", "6"]
    assert all(sum(c.isdigit() for c in TOKENIZER.decode([i])) <= 1 for i in range(TOKENIZER.vocab_size))


def test_specials_are_no_text() -> None:
    ids = {TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id}
    assert len(ids) == 3 and TOKENIZER.decode(ids) == ""


def test_words_are_learnt() -> None:
    assert len(TOKENIZER.encode(TEXTS[0])) < 0.6 * len(TEXTS[0]) and TOKENIZER.vocab_size <= 400


def test_training_is_deterministic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        WorldTokenizer.train(iter(TEXTS), 400).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert WorldTokenizer.load(tmp_path / "a").encode(TEXTS[3]) == TOKENIZER.encode(TEXTS[3])


def test_training_without_texts_still_encodes() -> None:
    empty = WorldTokenizer.train([], 300)
    assert empty.decode(empty.encode("CO2 is 0.1 bar")) == "CO2 is 0.1 bar"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3}'])
def test_broken_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(InputError, match="tokenizer"):
        WorldTokenizer.load(path)
    with pytest.raises(InputError, match="tokenizer"):
        WorldTokenizer.load(tmp_path / "none.json")
