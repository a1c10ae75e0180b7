"""Llama-shaped decoders from safetensors files: what they answer depends on every weight, and is the same each time."""

import json
import os
import sys
import time

# The PyTorch of the machine: its wheels are too large to be installed for a test.
sys.path.append(os.environ["TORCH_SITE"])

import torch
from safetensors.torch import load_file


class Llama:
    def load(self, model):
        device = torch.device("cuda" if model.device.startswith("cuda") else "cpu")
        weights = {}
        for file in sorted(model.path.glob("*.safetensors")):
            weights.update(load_file(file, device=str(device)))
        return {"config": json.loads((model.path / "config.json").read_text()), "weights": weights, "device": device}

    def size(self, model):
        return sum(tensor.nbytes for tensor in model["weights"].values())

    def offload(self, model):
        # Pinned, so that the way back is a plain copy.
        model["weights"] = {name: self.pinned(tensor) for name, tensor in model["weights"].items()}

    def pinned(self, tensor):
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return host.copy_(tensor)

    def restore(self, model):
        began = time.perf_counter()
        device = model["device"]
        model["weights"] = {name: tensor.to(device, non_blocking=True) for name, tensor in model["weights"].items()}
        synchronize(device)
        model["restored"] = self.size(model) / (time.perf_counter() - began)

    @torch.inference_mode()
    def predict(self, input, context):
        model = context.model
        if input.get("bandwidth"):
            return {"pinned_copy": copy_rate(model["device"]), "restored": model.get("restored")}
        tokens = torch.tensor(input["tokens"], device=model["device"])
        written = []
        for _ in range(input.get("count", 4)):
            written.append(int(next_scores(model, tokens).argmax()))
            tokens = torch.cat([tokens, tokens.new_tensor(written[-1:])])
        return {"tokens": written, "model": context.model_name}


def next_scores(model, tokens):
    """The scores of the token after these: attention and feed-forward layers, without positions."""
    weights, config = model["weights"], model["config"]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        y = norm(x, weights[name + "input_layernorm.weight"])
        q, k, v = ((y @ weights[f"{name}self_attn.{part}_proj.weight"].T) for part in "qkv")
        q = q.view(len(tokens), heads, -1).transpose(0, 1)
        k, v = (
            part.view(len(tokens), shared, -1).transpose(0, 1).repeat_interleave(heads // shared, 0) for part in (k, v)
        )
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + y.transpose(0, 1).reshape(len(tokens), -1) @ weights[name + "self_attn.o_proj.weight"].T
        y = norm(x, weights[name + "post_attention_layernorm.weight"])
        gate = torch.nn.functional.silu(y @ weights[name + "mlp.gate_proj.weight"].T)
        x = x + (gate * (y @ weights[name + "mlp.up_proj.weight"].T)) @ weights[name + "mlp.down_proj.weight"].T
    last = norm(x[-1], weights["model.norm.weight"])
    return last @ weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).T


def norm(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * weight


def copy_rate(device, size=1 << 30):
    """Bytes a second from pinned memory to the device, the best of five."""
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        host.to(device, non_blocking=True, copy=True)
        synchronize(device)
        rates.append(size / (time.perf_counter() - began))
    return max(rates)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
