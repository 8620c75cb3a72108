"""Byte-level BPE, trained on a data set's own training texts, with single digits so that numbers stay readable.

The tokenizer of a pretrained model is read the same way; `tokenizer_config.json` beside it names its special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from astrobio.errors import InputError

SPECIALS = ("<pad>", "<bos>", "<eos>")
ROLES = ("pad_token", "bos_token", "eos_token")  # their keys in Hugging Face's tokenizer_config.json


class WorldTokenizer:
    """Text ↔ token ids; any text has an encoding, because the alphabet is all 256 bytes.

    Args:
        specials: the tokens that pad, begin and end a text.
    """

    def __init__(self, tokenizer: Tokenizer, specials: Sequence[str] = SPECIALS) -> None:
        self._tokenizer, self._specials = tokenizer, tuple(specials)
        ids = [found for token in specials if (found := tokenizer.token_to_id(token)) is not None]
        if len(ids) < len(SPECIALS):
            missing = [token for token in specials if tokenizer.token_to_id(token) is None]
            raise InputError(f"tokenizer: expected the special tokens {tuple(specials)}, found none of {missing}")
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
        """Write the tokenizer as JSON (the `tokenizers` format), and special tokens that differ beside it."""
        if self._specials != SPECIALS:
            roles = json.dumps(dict(zip(ROLES, self._specials, strict=True)), indent=1)
            _beside(path).write_text(roles + "\n", encoding="utf-8")
        Path(path).write_text(self._tokenizer.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> WorldTokenizer:
        """Read what `save` wrote, or a `tokenizer.json` of Hugging Face.

        Raises:
            InputError: no such file, or not a tokenizer.
        """
        try:
            return cls(Tokenizer.from_str(Path(path).read_text(encoding="utf-8")), _special_tokens(path))
        except OSError as error:
            raise InputError(f"{path}: expected a tokenizer file, found {error.strerror or error}") from None
        except InputError:
            raise
        except Exception as error:  # the library raises bare Exception for anything malformed
            raise InputError(f"{path}: expected a tokenizer in JSON, found {str(error)[:200]}") from None


def _beside(path: Path | str) -> Path:
    return Path(path).with_name("tokenizer_config.json")


def _special_tokens(path: Path | str) -> tuple[str, ...]:
    """Special tokens named beside a tokenizer; one without a padding token pads with its last."""
    if not _beside(path).is_file():
        return SPECIALS
    data = json.loads(_beside(path).read_text(encoding="utf-8"))
    named = {role: _content(data.get(role)) for role in ROLES}
    end = named["eos_token"]
    if end is None:
        raise InputError(f"{_beside(path)}: eos_token: expected a token, found none")
    return tuple(named[role] or end for role in ROLES)


def _content(entry: str | dict[str, str] | None) -> str | None:
    """A token, which Hugging Face writes as text or as an object."""
    return entry["content"] if isinstance(entry, dict) else entry
