"""Write a language model of 290 tokens and one layer with random weights: ``python tiny_model.py FILE.gguf``.

The environment of llama.cpp runs this, because ``gguf`` is only installed there. What the model says has no meaning,
but its server is the real one.
"""

from __future__ import annotations

import sys
from typing import Any

EMBEDDING, HEADS, LAYERS, FEED_FORWARD, CONTEXT = 32, 2, 1, 64, 512
WORDS = [b"<unk>", b"<s>", b"</s>"]
BYTES = [f"<0x{byte:02X}>".encode() for byte in range(256)]
LETTERS = ["\u2581".encode(), *(bytes([letter]) for letter in range(ord("a"), ord("z") + 1))]


def write(path: str) -> None:
    import gguf  # type: ignore[import-not-found]

    tokens = [*WORDS, *BYTES, *LETTERS]
    kinds = gguf.TokenType
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * len(BYTES) + [kinds.NORMAL] * len(LETTERS)
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    _add_weights(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_weights(writer: Any, vocabulary: int) -> None:
    import numpy  # type: ignore[import-not-found]

    random = numpy.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.1).astype(numpy.float32))

    def add_ones(name: str) -> None:
        writer.add_tensor(name, numpy.ones(EMBEDDING, dtype=numpy.float32))

    add("token_embd.weight", vocabulary, EMBEDDING)
    add_ones("output_norm.weight")
    add("output.weight", vocabulary, EMBEDDING)
    for layer in range(LAYERS):
        add_ones(f"blk.{layer}.attn_norm.weight")
        add_ones(f"blk.{layer}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", EMBEDDING, EMBEDDING)
        add(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, EMBEDDING)
        add(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, EMBEDDING)
        add(f"blk.{layer}.ffn_down.weight", EMBEDDING, FEED_FORWARD)


if __name__ == "__main__":
    write(sys.argv[1])
