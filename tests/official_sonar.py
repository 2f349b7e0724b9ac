"""Run Meta's own package on the toy's files: `python tests/official_sonar.py FOLDER SENTENCES.json OUT.npz`.

Needs sonar-space (requirements-sonar.txt) and nothing of this project, so that it can run in an environment of its own.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from fairseq2.data.tokenizers import VocabularyInfo
from fairseq2.generation.beam_search.generator import BeamSearchSeq2SeqGenerator
from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer
from fairseq2.models.transformer import TransformerNormOrder
from fairseq2.models.wav2vec2 import Wav2Vec2EncoderConfig
from fairseq2.nn import BatchLayout
from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline, TextToEmbeddingModelPipeline
from sonar.models.sonar_speech.config import SonarSpeechEncoderConfig
from sonar.models.sonar_speech.factory import SonarSpeechEncoderFactory
from sonar.models.sonar_speech.model import SonarSpeechEncoderModel
from sonar.models.sonar_text.checkpoint import _convert_sonar_text_decoder_checkpoint
from sonar.models.sonar_text.config import SonarTextDecoderConfig, SonarTextEncoderConfig
from sonar.models.sonar_text.factory import SonarTextDecoderFactory, SonarTextEncoderFactory

SIZES = {
    "model_dim": 32,
    "max_seq_len": 512,
    "vocab_info": VocabularyInfo(size=606, unk_idx=1, bos_idx=2, eos_idx=3, pad_idx=1),
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_encoder_attn_heads": 4,
    "num_decoder_attn_heads": 4,
    "ffn_inner_dim": 128,
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


def models(folder: Path, languages: list[str]) -> tuple:
    """The toy's encoder, decoder and tokenizer as the package builds them."""
    encoder = SonarTextEncoderFactory(
        SonarTextEncoderConfig(**SIZES, pooling="mean", _from_fairseq=True)
    ).create_model()
    encoder.load_state_dict(torch.load(folder / "sonar_text_encoder.pt", weights_only=True)["model"])
    decoder = SonarTextDecoderFactory(DECODER).create_model()
    checkpoint = torch.load(folder / "sonar_text_decoder.pt", weights_only=True)
    decoder.load_state_dict(_convert_sonar_text_decoder_checkpoint(checkpoint, DECODER))
    config = NllbTokenizerConfig(langs=languages, default_lang="eng_Latn")
    return encoder, decoder, load_nllb_tokenizer(folder / "sentencepiece.source.256000.model", config)


def speech_encoder() -> SonarSpeechEncoderModel:
    """A speech encoder of the package's kind (w2v-BERT and an attention pooler), random and small."""
    sizes = {"model_dim": 32, "ffn_inner_dim": 64}
    listener = Wav2Vec2EncoderConfig(
        **sizes,
        num_encoder_layers=1,
        num_encoder_attn_heads=4,
        use_fbank=True,
        feature_dim=160,
        num_fbank_channels=80,
        fbank_stride=2,
        sample_fbank_every_k=1,
        pos_encoder_type="relative",
        use_conformer=True,
        depthwise_conv_kernel_size=31,
    )
    config = SonarSpeechEncoderConfig(
        **sizes,
        w2v2_encoder_config=listener,
        final_dropout_p=0.1,
        max_seq_len=64,
        pad_idx=1,
        bos_idx=2,
        num_decoder_layers=1,
        num_decoder_attn_heads=4,
        decoder_norm_order=TransformerNormOrder.POST,
        dropout_p=0.1,
    )
    return SonarSpeechEncoderFactory(config).create_model()


def main(folder: Path, sentences: list[tuple[str, str]], languages: list[str]) -> dict[str, np.ndarray]:
    encoder, decoder, tokenizer = models(folder, languages)
    # The decoder's fairseq form, by the package's own conversion. (That of the encoder is broken in sonar-space 0.5.)
    other = SonarTextDecoderFactory(DECODER).create_model()
    checkpoint = torch.load(folder / "fairseq" / "sonar_text_decoder.pt", weights_only=True)
    other.load_state_dict(_convert_sonar_text_decoder_checkpoint(checkpoint, DECODER))
    same = all(torch.equal(a, b) for a, b in zip(decoder.parameters(), other.parameters(), strict=True))

    embed = TextToEmbeddingModelPipeline(encoder, tokenizer)
    vectors = torch.cat([embed.predict([text], lang) for text, lang in sentences])
    found = {"embeddings": vectors.numpy(), "fairseq_form_agrees": np.array(same)}
    for i, (text, lang) in enumerate(sentences):
        found[f"source {i}"] = tokenizer.create_encoder(lang=lang)(text).numpy()

    pipeline = EmbeddingToTextModelPipeline(decoder, tokenizer)
    model = pipeline.model
    with torch.inference_mode():
        target = tokenizer.create_encoder(lang="fra_Latn", mode="target")(sentences[0][0])[None]
        memory = model.encode(vectors[:1], BatchLayout.of(vectors[:1]))
        states = model.decode(target, BatchLayout.of(target), memory, BatchLayout.of(memory))
        found["target"], found["logits"] = target[0].numpy(), model.project(states)[0].numpy()
        generator = BeamSearchSeq2SeqGenerator(model, tokenizer.vocab_info, beam_size=5, max_gen_len=(0, 32))
        prompt = tokenizer.create_encoder(lang="fra_Latn", mode="target")("").expand(len(vectors), -1)[:, :2]
        output = generator(vectors, BatchLayout.of(vectors), prompt, BatchLayout.of(prompt))
    for i, hypotheses in enumerate(output.hypotheses):
        for j, hypothesis in enumerate(hypotheses):
            found[f"beam {i} {j}"] = hypothesis.seq.numpy()
            found[f"score {i} {j}"] = np.float32(hypothesis.score)
    texts = pipeline.predict(vectors, "deu_Latn", max_gen_len=(0, 32))
    found["texts"] = np.array(texts)
    return found


if __name__ == "__main__":
    folder, asked, out = sys.argv[1:]
    question = json.loads(Path(asked).read_text(encoding="utf-8"))
    np.savez_compressed(out, **main(Path(folder), question["sentences"], question["languages"]))
