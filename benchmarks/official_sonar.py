"""What `benchmarks.sonar` measures, by the pipelines of sonar-space in their default fp32: run by it, not by hand."""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from fairseq2.data.tokenizers import VocabularyInfo
from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer
from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline, TextToEmbeddingModelPipeline
from sonar.models.sonar_text.config import SonarTextDecoderConfig, SonarTextEncoderConfig
from sonar.models.sonar_text.factory import SonarTextDecoderFactory, SonarTextEncoderFactory

SIZES = {
    "model_dim": 1024,
    "max_seq_len": 512,
    "vocab_info": VocabularyInfo(size=256_206, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
    "num_encoder_layers": 24,
    "num_decoder_layers": 24,
    "num_encoder_attn_heads": 16,
    "num_decoder_attn_heads": 16,
    "ffn_inner_dim": 8192,
}
DECODER = SonarTextDecoderConfig(
    **SIZES,
    activation_fn="ReLU",
    no_scale_embedding=False,
    no_token_positional_embeddings=False,
    learned_pos=False,
    emb_dropout_p=0.1,
    attention_dropout_p=0.1,
    activation_dropout_p=0.1,
    normalize_before=True,
)


def filled(model: torch.nn.Module, path: Path) -> torch.nn.Module:
    state = torch.load(path, weights_only=True, mmap=True)["model"]
    model.load_state_dict(state, strict=False, assign=True)
    if "decoder_frontend.embed.weight" in state:
        model.final_proj.weight = model.decoder_frontend.embed.weight
    return model.eval()


def main(folder: Path) -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.integers(0, 250_000, 26)) for _ in range(64)]
    cards = Path(sys.modules["sonar"].__file__).parent / "cards" / "text_sonar_basic_encoder.yaml"
    languages = [line.strip(" -\n") for line in cards.open() if line.strip().startswith("- ")]
    config = NllbTokenizerConfig(langs=languages, default_lang="eng_Latn")
    tokenizer = load_nllb_tokenizer(folder / "sentencepiece.source.256000.model", config)
    encoder = SonarTextEncoderFactory(
        SonarTextEncoderConfig(**SIZES, pooling="mean", _from_fairseq=True)
    ).create_model()
    pipeline = TextToEmbeddingModelPipeline(filled(encoder, folder / "sonar_text_encoder.pt"), tokenizer)
    pipeline.predict(texts, "eng_Latn")  # what is mapped is read now, not while the clock runs
    start = time.perf_counter()
    vectors = pipeline.predict(texts, "eng_Latn")
    print(f"sonar-space: encodes {64 / (time.perf_counter() - start):.1f} sentences of 28 tokens a second")
    ours = np.load(folder / "float32.npy")
    print(f"sonar-space: its embeddings differ from ours by at most {np.abs(vectors.numpy() - ours).max():.1e}")
    del pipeline, encoder
    decoder = SonarTextDecoderFactory(DECODER).create_model()
    decode = EmbeddingToTextModelPipeline(filled(decoder, folder / "sonar_text_decoder.pt"), tokenizer)
    start = time.perf_counter()
    decode.predict(vectors[:20], "fra_Latn", max_gen_len=(0, 24))
    print(f"sonar-space: decodes {20 / (time.perf_counter() - start):.2f} sentences of 24 tokens a second, beam 5")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
