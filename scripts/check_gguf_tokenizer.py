#!/usr/bin/env python3
"""Compare the tokenizers that transformers makes of a GGUF's vocabulary with the tokenizer.json of the same models, on real texts.

    venv/bin/pip install 'transformers==5.23.0' 'gguf==0.19.0' sentencepiece pyarrow
    venv/bin/python scripts/check_gguf_tokenizer.py "$PIPE_TEST_DATA"

A GGUF without weights is written with gguf-py from tokenizers/gpt2 (tokens and merges) and tokenizers/llama2 (tokenizer.model) as llama.cpp's
converter does. stages/shared/tokenizer/tests/gguf.rs holds that `pipe` makes the very tokenizer.json of both; this counts the texts of which
transformers, reading the GGUF, makes other ids. It does where a text begins with a space: its Llama puts none before it then.
"""

import json
import sys
import tempfile
from pathlib import Path

import gguf
import pyarrow.parquet
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer


def texts(data):
    for path in sorted(data.rglob("*.parquet")):
        for column in pyarrow.parquet.read_table(path).columns:
            yield from (text for text in column.to_pylist() if isinstance(text, str))
    for path in sorted(data.iterdir()):
        if path.suffix in (".json", ".jsonl", ".txt"):
            yield from path.read_text().splitlines(keepends=True)


def write_gpt2(writer, folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    special = {token["id"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokens))])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(50256)
    writer.add_eos_token_id(50256)


def write_llama2(writer, folder):
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = range(pieces.vocab_size())

    def kind(i):
        return 2 if pieces.IsUnknown(i) else 3 if pieces.IsControl(i) else 6 if pieces.IsByte(i) else 1

    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces.IdToPiece(i).encode() for i in ids])
    writer.add_token_scores([pieces.GetScore(i) for i in ids])
    writer.add_token_types([kind(i) for i in ids])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)


def main():
    root = Path(sys.argv[1])
    for name, architecture, write in (("gpt2", "gpt2", write_gpt2), ("llama2", "llama", write_llama2)):
        folder = root / "tokenizers" / name
        with tempfile.TemporaryDirectory() as out:
            writer = gguf.GGUFWriter(Path(out) / "a.gguf", architecture)
            writer.add_block_count(1)
            write(writer, folder)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            theirs = AutoTokenizer.from_pretrained(out, gguf_file="a.gguf")
        own = Tokenizer.from_file(str(folder / "tokenizer.json"))
        n_texts, n_other, n_spaced = 0, 0, 0
        for text in texts(root / "data"):
            n_texts += 1
            if theirs(text)["input_ids"] != own.encode(text).ids:
                n_other += 1
                n_spaced += text.startswith(" ")
        print(f"{name}: {n_texts} texts, {n_other} with other ids, of which {n_spaced} begin with a space")


if __name__ == "__main__":
    main()
