"""Byte-level BPE, trained on a data set's own training texts, with single digits so that numbers stay readable."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from astrobio.errors import InputError

SPECIALS = ("<pad>", "<bos>", "<eos>")


class WorldTokenizer:
    """Text ↔ token ids; any text has an encoding, because the alphabet is all 256 bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        ids = [found for token in SPECIALS if (found := tokenizer.token_to_id(token)) is not None]
        if len(ids) < len(SPECIALS):
            missing = [token for token in SPECIALS if tokenizer.token_to_id(token) is None]
            raise InputError(f"tokenizer: expected the special tokens {SPECIALS}, found none of {missing}")
        self.pad_id, self.bos_id, self.eos_id = ids

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 2048) -> WorldTokenizer:
        """Learn merges from texts; the same texts in the same order give the same tokenizer."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIALS), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def save(self, path: Path | str) -> None:
        """Write the tokenizer as JSON (the `tokenizers` format)."""
        Path(path).write_text(self._tokenizer.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> WorldTokenizer:
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or not a tokenizer.
        """
        try:
            return cls(Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"{path}: expected a tokenizer file, found {error.strerror or error}") from None
        except InputError:
            raise
        except Exception as error:  # the library raises bare Exception for anything malformed
            raise InputError(f"{path}: expected a tokenizer in JSON, found {str(error)[:200]}") from None
