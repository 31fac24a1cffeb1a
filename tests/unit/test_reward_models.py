"""ArmoRM and ImageReward give what their published networks give; no padding moves a score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from alignment.rewards.classifier import ClassifierReward
from alignment.rewards.clip import ClipReward
from alignment.rewards.image import ImageReward, load_clip, scorer
from alignment.rows import ImageFile
from alignment.settings import RecipeError
from tests.tiny_models import byte_level_tokenizer
from tests.tiny_pipelines import (
    IMAGE_REWARD_SIZES,
    TEXT,
    armorm,
    clip_model,
    image_reward,
    reward_model,
)

TALKS = [
    ("Describe the image in detail.", "A red dog stands next to a man."),
    ("Is there a cat?", "No."),
    ("What is it?", "A bus, a car and a bicycle are in the street in front of a bench."),
    ("Count the cups.", "There are two cups on the table."),
    ("Is it a dog?", "Yes"),
]


def rewarded(folder: Path, batch: int, **more) -> list[float]:
    rows = []
    for number, (instruction, text) in enumerate(TALKS):
        row = {"key": str(number), "image": "0", "instruction": instruction, "text": text}
        rows.append(row)
    reward = ClassifierReward(kind="classifier", model=str(folder), batch=batch, **more)
    scores = []
    for items in reward.rewards(rows, {}, Path()):
        scores += [item.reward for item in items]
    return scores


def armorm_by_hand(folder: Path) -> list[float]:
    """The paper's formula on the raw tensors, a conversation at a time."""
    tensors = load_file(folder / "model.safetensors")
    config = hf.LlamaConfig.from_pretrained(folder)
    llama = hf.LlamaModel(config).eval()
    own = {}
    for name, tensor in tensors.items():
        if name.startswith("model."):
            own[name.removeprefix("model.")] = tensor
    llama.load_state_dict(own)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    scores = []
    for instruction, text in TALKS:
        # Written out: the instruction ends where the header of the assistant's turn is opened.
        user = f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{instruction}"
        reply = f"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{text}<|eot_id|>"
        before = tokenizer.encode(user, add_special_tokens=False)
        ids = [*before, *tokenizer.encode(reply, add_special_tokens=False)]
        with torch.no_grad():
            states = llama(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rewards = tensors["regression_layer.weight"] @ states[-1]
        rewards = tensors["reward_transform_matrix"].T @ rewards
        gate = states[len(before)]
        for layer in range(4):
            weight = tensors[f"gating.layers.{layer}.weight"]
            gate = weight @ gate + tensors[f"gating.layers.{layer}.bias"]
            if layer < 3:
                gate = gate.clamp(min=0)
        shares = torch.exp(gate / 10) / torch.exp(gate / 10).sum()
        scores.append(float(tensors["gating.logit_scale"] * (shares * rewards).sum()))
    return scores


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_armorm_is_the_papers_formula_at_every_batch_size(tmp_path, batch):
    folder = armorm(tmp_path / "armorm")
    expected = armorm_by_hand(folder)
    assert rewarded(folder, batch) == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1


def test_armorm_runs_no_code_of_its_checkpoint_even_where_it_may(tmp_path):
    folder = armorm(tmp_path / "armorm")
    assert rewarded(folder, 8, trust_remote_code=True) == pytest.approx(
        armorm_by_hand(folder), abs=1e-4
    )


def test_armorm_without_a_tensor_is_told(tmp_path):
    folder = armorm(tmp_path / "armorm")
    tensors = load_file(folder / "model.safetensors")
    del tensors["gating.layers.2.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RecipeError, match=r"lacks 1 tensors(.|\n)*gating.layers.2.bias"):
        rewarded(folder, 8)


def test_armorm_with_a_tokenizer_of_another_type_is_told(tmp_path):
    folder = armorm(tmp_path / "armorm")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": "long"}))
    settings = ClassifierReward(kind="classifier", model=str(folder))
    with pytest.raises(RecipeError, match="cannot be loaded"):
        settings._load("cpu")


def test_armorm_with_another_template_is_told(tmp_path):
    folder = armorm(tmp_path / "armorm")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(RecipeError, match="no turn of the assistant"):
        rewarded(folder, 8)


def without_pad(folder: Path, kind: str) -> Path:
    """A sequence classifier whose config and tokenizer name no pad token, as most have none."""
    torch.manual_seed(1)
    words = byte_level_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>")
    words.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    )
    config_class = {"llama": hf.LlamaConfig, "qwen2": hf.Qwen2Config, "mistral": hf.MistralConfig}
    config = config_class[kind](**TEXT, num_key_value_heads=4, vocab_size=len(words), num_labels=1)
    config.pad_token_id = None
    model = hf.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    assert saved.get("pad_token_id") is None
    return folder


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_without_a_pad_token_the_score_is_read_at_the_last_token(tmp_path, kind, batch):
    folder = without_pad(tmp_path / kind, kind)
    model = hf.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    expected = []
    for instruction, text in TALKS:
        written = f"<s>user: {instruction}</s><s>assistant: {text}</s>"
        ids = torch.tensor([tokenizer.encode(written, add_special_tokens=False)])
        with torch.no_grad():
            states = model.model(input_ids=ids).last_hidden_state[0, -1]
            expected.append(float(model.score.weight @ states))
    assert rewarded(folder, batch) == pytest.approx(expected, abs=1e-4)


def test_a_model_that_padding_moves_is_refused_before_the_second_batch(tmp_path, monkeypatch):
    """As one that looks at padding would be: attention without a mask in both directions."""
    folder = reward_model(tmp_path / "reward")
    network = hf.LlamaForSequenceClassification
    forward = network.forward

    def sees_padding(self, input_ids, attention_mask):
        output = forward(self, input_ids=input_ids, attention_mask=attention_mask)
        output.logits = output.logits + (attention_mask == 0).sum(-1, keepdim=True)
        return output

    monkeypatch.setattr(network, "forward", sees_padding)
    with pytest.raises(RecipeError, match="Set `batch: 1`"):
        rewarded(folder, 3)
    assert len(rewarded(folder, 1)) == len(TALKS)


def attend(tensors, name, query, source, heads):
    """Multi-head attention of BERT's layers, without a mask."""

    def by_head(part, states):
        projected = linear(tensors, f"{name}.self.{part}", states)
        return projected.unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, tokens, width)

    queries, keys, values = (
        by_head("query", query),
        by_head("key", source),
        by_head("value", source),
    )
    weights = (queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5).softmax(-1)
    mixed = (weights @ values).transpose(0, 1).flatten(1)
    output = linear(tensors, f"{name}.output.dense", mixed)
    return normed(tensors, f"{name}.output.LayerNorm", output + query, 1e-12)


def linear(tensors, name, states):
    return states @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def normed(tensors, name, states, eps):
    return functional.layer_norm(
        states, states.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps
    )


def image_reward_by_hand(folder: Path, prompt: str, image: Image.Image) -> float:
    """The published forward pass on the published names: timm's ViT, BLIP's BERT, the head."""
    tensors = torch.load(folder / "ImageReward.pt", weights_only=True)
    sizes = IMAGE_REWARD_SIZES
    side = sizes["side"]
    scale = side / min(image.size)
    size = [max(side, int(length * scale)) for length in image.size]
    small = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in size)
    small = small.crop((left, top, left + side, top + side))
    pixels = torch.tensor(list(small.getdata())).reshape(side, side, 3).permute(2, 0, 1) / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pixels = (pixels - mean) / std

    eye = {}
    reader = {}
    for name, tensor in tensors.items():
        if name.startswith("blip.visual_encoder."):
            eye[name.removeprefix("blip.visual_encoder.")] = tensor
        if name.startswith("blip.text_encoder."):
            reader[name.removeprefix("blip.text_encoder.")] = tensor
    patches = functional.conv2d(
        pixels[None], eye["patch_embed.proj.weight"], eye["patch_embed.proj.bias"], stride=16
    )
    states = torch.cat([eye["cls_token"][0], patches[0].flatten(1).T]) + eye["pos_embed"][0]
    heads = sizes["width"] // 64
    for layer in range(sizes["layers"]):
        block = f"blocks.{layer}"
        inner = normed(eye, f"{block}.norm1", states, 1e-6)
        qkv = inner @ eye[f"{block}.attn.qkv.weight"].T + eye[f"{block}.attn.qkv.bias"]
        query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) / 8).softmax(-1)
        mixed = (weights @ value).transpose(0, 1).flatten(1)
        states = (
            states + mixed @ eye[f"{block}.attn.proj.weight"].T + eye[f"{block}.attn.proj.bias"]
        )
        inner = normed(eye, f"{block}.norm2", states, 1e-6)
        inner = functional.gelu(linear(eye, f"{block}.mlp.fc1", inner))
        states = states + linear(eye, f"{block}.mlp.fc2", inner)
    image_states = normed(eye, "norm", states, 1e-6)

    pieces = (folder / "vocab.txt").read_text().splitlines()
    ids = [pieces.index("[CLS]")]
    for word in prompt.split():
        ids.append(pieces.index(word[0]))
        for letter in word[1:]:
            ids.append(pieces.index(f"##{letter}"))
    ids.append(pieces.index("[SEP]"))
    words = reader["embeddings.word_embeddings.weight"][ids]
    words = words + reader["embeddings.position_embeddings.weight"][: len(ids)]
    words = normed(reader, "embeddings.LayerNorm", words, 1e-12)
    for layer in range(sizes["layers"]):
        block = f"encoder.layer.{layer}"
        words = attend(reader, f"{block}.attention", words, words, 4)
        words = attend(reader, f"{block}.crossattention", words, image_states, 4)
        inner = functional.gelu(linear(reader, f"{block}.intermediate.dense", words))
        inner = linear(reader, f"{block}.output.dense", inner)
        words = normed(reader, f"{block}.output.LayerNorm", inner + words, 1e-12)
    score = words[0]
    for number in (0, 2, 4, 6, 7):
        score = linear(tensors, f"mlp.layers.{number}", score)
    return (float(score) - 0.16717362830052426) / 1.0333394966054072


def test_imagereward_is_the_published_network(tmp_path):
    folder = image_reward(tmp_path / "image-reward")
    images = []
    for number, size in enumerate([(48, 32), (32, 40), (64, 64)]):
        image = Image.effect_noise(size, 60).convert("RGB")
        image.putpixel((number, 3), (255, 0, 0))
        images.append(image)
    score = scorer(ImageReward(kind="imagereward", model=str(folder), processor=str(folder)))
    for prompt in ("a dog on a table", "two red cups"):
        expected = [image_reward_by_hand(folder, prompt, image) for image in images]
        assert score(prompt, images) == pytest.approx(expected, abs=1e-3)
        assert max(expected) - min(expected) > 0.01


def test_other_weights_than_the_published_are_told(tmp_path):
    folder = image_reward(tmp_path / "image-reward")
    settings = ImageReward(kind="imagereward", model=str(folder), processor=str(folder))
    tensors = torch.load(folder / "ImageReward.pt", weights_only=True)
    for name, changed in {
        "lacks": {k: v for k, v in tensors.items() if "blocks.1.norm1.bias" not in k},
        "more": tensors | {"blip.other": torch.ones(1)},
        "shape": tensors | {"mlp.layers.7.weight": torch.ones(1, 9)},
    }.items():
        torch.save(changed, folder / "ImageReward.pt")
        with pytest.raises(RecipeError, match="ImageReward cannot be loaded"):
            scorer(settings)
            pytest.fail(name)
    (folder / "ImageReward.pt").write_bytes(b"no pickle")
    with pytest.raises(RecipeError, match="ImageReward cannot be loaded"):
        scorer(settings)


def test_clip_rates_a_response_by_its_sentences(tmp_path):
    """The mean over sentences of the cosine of features, times the logit scale."""
    folder = clip_model(tmp_path / "clip")
    image = tmp_path / "0.png"
    Image.effect_noise((40, 30), 60).convert("RGB").save(image)
    model = hf.CLIPModel.from_pretrained(folder).eval()
    processor = hf.AutoProcessor.from_pretrained(folder, use_fast=False)
    texts = {"a": ["A red dog.", "It stands next to a man!"], "b": ["no"], "c": [""]}
    expected = []
    for sentences in texts.values():
        inputs = processor(
            text=sentences, images=Image.open(image), return_tensors="pt", padding=True
        )
        with torch.no_grad():
            seen = model.vision_model(inputs["pixel_values"]).pooler_output
            read = model.text_model(
                inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).pooler_output
            seen = functional.normalize(model.visual_projection(seen), dim=-1)
            read = functional.normalize(model.text_projection(read), dim=-1)
            expected.append(float((model.logit_scale.exp() * read @ seen.T).mean()))
    rows = []
    for key, sentences in texts.items():
        rows.append({"key": key, "image": "0", "instruction": "?", "text": " ".join(sentences)})
    reward = ClipReward(kind="clip", model=str(folder))
    items = []
    for batch in reward.rewards(rows, {"0": ImageFile(image, "")}, tmp_path):
        items += batch
    assert [item.reward for item in items] == pytest.approx(expected, abs=1e-4)
    assert [item.response["key"] for item in items] == ["a", "b", "c"]


@pytest.mark.parametrize("size", [{"height": 10**40, "width": 32}, {"height": 16, "width": 16}])
def test_an_image_text_model_with_anothers_processor_is_told(tmp_path, size):
    folder = clip_model(tmp_path / "clip")
    settings = hf.AutoProcessor.from_pretrained(folder, use_fast=False)
    settings.image_processor.size = size
    settings.image_processor.crop_size = size
    settings.save_pretrained(folder)
    score = load_clip(str(folder), None)
    with pytest.raises(RecipeError, match="cannot score an image"):
        score("a dog", [Image.new("RGB", (40, 30))])


def test_other_weights_are_another_identity(tmp_path):
    folder = image_reward(tmp_path / "image-reward")
    settings = ImageReward(kind="imagereward", model=str(folder))
    before = settings.identity()
    tensors = torch.load(folder / "ImageReward.pt", weights_only=True)
    torch.save(tensors | {"mlp.layers.7.bias": torch.ones(1)}, folder / "ImageReward.pt")
    assert settings.identity() != before
    classifier = ClassifierReward(kind="classifier", model=str(armorm(tmp_path / "armorm")))
    before = classifier.identity()
    (tmp_path / "armorm" / "config.json").write_text(
        (tmp_path / "armorm" / "config.json")
        .read_text()
        .replace('"gating_temperature": 10', '"gating_temperature": 5')
    )
    assert classifier.identity() != before
