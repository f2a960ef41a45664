#!/usr/bin/env python3
"""Write tests/fixtures/parity/NAME: what PyTorch, transformers and PEFT compute, for our engine to match.

    python3 -m venv venv && venv/bin/pip install 'torch==2.15.0' 'transformers==5.23.0' 'peft==0.21.2'
    venv/bin/python scripts/make_parity_fixtures.py            # two minutes; rewrites the folders
    venv/bin/python scripts/make_parity_fixtures.py gpt2 rope  # only these; `tokens` needs the folders of its families

Random models of 2 layers with unit-scale logits, seeded; nothing is downloaded. float32, eager attention, LoRA dropout 0.
They cover what the architectures differ in:

    llama         grouped-query attention, untied head, theta 50,000; LoRA on PEFT's default, q_proj and v_proj
    qwen2         bias on q, k and v, tied head, theta 1,000,000; LoRA on all seven linear layers
    llama3        Llama 3.1's scaled rope: a long, a middle and a short wave; PEFT's default
    mistral       a sliding window of 6 tokens on each layer; PEFT's default
    qwen2_window  a window of 9 on the upper layer only, YaRN; `all-linear`
    qwen3         norms of q and k, heads wider than hidden / heads; `all-linear`
    phi3          fused matrices, partial rotary positions, LongRoPE with a border of 16 tokens, a window; `all-linear`
    gemma2        norms with 1 + w before and after, capped scores and logits, a window on the lower layer; PEFT's default
    gemma3        norms of q and k, a rope for each kind of layer, a linear one on the upper; `all-linear`
    gpt2          learned positions, LayerNorm, Conv1D, n_inner; `all-linear` (PEFT's default, c_attn, is among them)

Some folders have `tokens/` too: an adapter with rows of three tokens (`trainable_token_indices`) beside A and B, of the embedding and a
head of its own (llama, phi3) or of a tied one (gemma2, gpt2), and `tokens.safetensors` with its results.

Beside them rope/frequencies.json: what modeling_rope_utils.py makes of many configs, in both spellings.

Files of a folder (tensor names are PEFT's and transformers' own):

    config.json           transformers 5: `rope_parameters`, `dtype`
    config_classic.json   the same model as older releases wrote it: `rope_theta`, `rope_scaling`, `torch_dtype`
    model.safetensors     the base
    adapter_init/         a fresh PEFT adapter (B = 0);   adapter/   the same with B ~ N(0, 0.05)
    io.safetensors        input_ids, labels, position_ids, doc_ids, packed_labels: int64 (4 batches, 2, 32), -100 = ignored
    expected.safetensors  results, by the prefixes below
    full.safetensors      full training without an adapter, by the prefixes below
    meta.json             versions, cases, and the reference's own errors

    base.{logits,loss}                      no adapter, plain causal, batch 0
    base_packed.{logits_row1,loss}          no adapter, documents apart (position_ids restart), packed_labels
    init_plain.{loss,grad.*}                adapter_init; the gradient of every lora_A is exactly 0
    lora_plain.{logits_row0,loss,grad.*}    adapter, plain causal
    lora_packed.{logits_row0,loss,grad.*}   adapter, documents apart
    t_sched_wd001.{losses,grad_norms,lrs}   20 optimizer steps of AdamW from adapter_init, packed, step s on batch s % 4;
    t_sched_wd001.step20.*                  losses before the update, norms before clipping, the adapter afterwards

    full_packed.{loss,grad.*}               every weight's gradient, documents apart
    t_full_wd01.{losses,grad_norms}         20 optimizer steps from the base, packed, as above; weight decay 0.1 on matrices only,
    t_full_wd01.step20.*                    as transformers' Trainer groups parameters; the weights afterwards

    tokens.{logits_row0,loss,grad.*}        tokens.safetensors: adapter `tokens`, documents apart
    t_tokens.{losses,grad_norms}            20 optimizer steps from it, as t_sched_wd001;
    t_tokens.step20.*                       the rows of tokens afterwards

The loss is transformers' causal loss: labels shifted by one, mean over the labels that are not -100.
"""

import json
import math
import shutil
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "parity"
VOCAB, HIDDEN, MLP, LAYERS, HEADS, KV_HEADS, POSITIONS = 128, 32, 88, 2, 4, 2, 64
BATCHES, ROWS, T = 4, 2, 32
# Of the families that came later: their files are smaller.
SMALL = dict(vocab_size=64, hidden_size=24, intermediate_size=40)
LORA_RANK, LORA_ALPHA = 4, 8
STEPS, WARMUP, LEARNING_RATE, WEIGHT_DECAY, CLIP = 20, 2, 2e-3, 0.01, 1.0
FULL_WEIGHT_DECAY = 0.1
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Lengths of the documents of each row: one alone, very short ones, many equal ones.
DOCUMENTS = [[[10, 15, 7], [20, 5, 7]], [[32], [1, 16, 15]], [[5, 5, 22], [15, 17]], [[3, 29], [8, 8, 8, 8]]]


def llama():
    config = transformers.LlamaConfig(
        **sizes(), rms_norm_eps=1e-5, tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}
    )
    return transformers.LlamaForCausalLM, config, ["q_proj", "v_proj"]


def qwen2():
    config = transformers.Qwen2Config(
        **sizes(), rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}
    )
    return transformers.Qwen2ForCausalLM, config, ALL_LINEAR


def llama3():
    rope = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32}  # fmt: skip
    config = transformers.LlamaConfig(**small(head_dim=8), rms_norm_eps=1e-5, tie_word_embeddings=True, rope_parameters=rope)
    return transformers.LlamaForCausalLM, config, None


def mistral():
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = transformers.MistralConfig(**small(), rms_norm_eps=1e-5, sliding_window=6, rope_parameters=rope)
    return transformers.MistralForCausalLM, config, None


def qwen2_window():
    rope = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0}
    config = transformers.Qwen2Config(
        **small(), rms_norm_eps=1e-6, use_sliding_window=True, sliding_window=9, max_window_layers=1, rope_parameters=rope
    )
    return transformers.Qwen2ForCausalLM, config, "all-linear"


def qwen3():
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    config = transformers.Qwen3Config(**small(head_dim=10), rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=rope)
    return transformers.Qwen3ForCausalLM, config, "all-linear"


def phi3():
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1], "long_factor": [1.3, 4.0],
            "partial_rotary_factor": 0.67}  # fmt: skip
    config = transformers.Phi3Config(
        **small(), rms_norm_eps=1e-5, original_max_position_embeddings=16, sliding_window=11, rope_parameters=rope
    )
    return transformers.Phi3ForCausalLM, config, "all-linear"


def gemma2():
    config = transformers.Gemma2Config(
        **small(head_dim=8), query_pre_attn_scalar=10, sliding_window=7, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    return transformers.Gemma2ForCausalLM, config, None


def gemma3():
    rope = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}  # fmt: skip
    config = transformers.Gemma3TextConfig(
        **small(head_dim=8), query_pre_attn_scalar=10, sliding_window=7, sliding_window_pattern=2, rope_parameters=rope
    )
    return transformers.Gemma3ForCausalLM, config, "all-linear"


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=SMALL["vocab_size"], n_embd=SMALL["hidden_size"], n_inner=SMALL["intermediate_size"], n_layer=LAYERS, n_head=HEADS,
        n_positions=POSITIONS, bos_token_id=1, eos_token_id=2, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel, config, "all-linear"


FAMILIES = {
    "llama": (llama, 11), "qwen2": (qwen2, 12), "llama3": (llama3, 13), "mistral": (mistral, 14), "qwen2_window": (qwen2_window, 15),
    "qwen3": (qwen3, 16), "phi3": (phi3, 17), "gemma2": (gemma2, 18), "gemma3": (gemma3, 19), "gpt2": (gpt2, 20),
}  # fmt: skip

WITH_TOKENS = ["llama", "phi3", "gemma2", "gpt2"]


def sizes():
    return dict(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=POSITIONS, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        attn_implementation="eager", dtype=torch.float32,
    )  # fmt: skip


def small(**more):
    return {**sizes(), **SMALL, **more}


def fill_unit_scale(model, generator):
    """Weights N(0, 1 / hidden), norms 1 + N(0, 0.1^2), biases N(0, 0.1^2): logits get a standard deviation near 1."""
    # Gemma multiplies by 1 + w.
    centre = 0.0 if model.config.model_type.startswith("gemma") else 1.0
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "norm" in name or ".ln_" in name:
                parameter.copy_(centre + 0.1 * noise)
            else:
                parameter.copy_(noise / math.sqrt(model.config.hidden_size))


def make_io(generator, vocab_size):
    """Random ids; a prompt of random length is unlabelled in each row (`labels`) and in each document (`packed_labels`)."""
    shape = (BATCHES, ROWS, T)
    input_ids = torch.randint(3, vocab_size, shape, generator=generator)
    labels, packed_labels = input_ids.clone(), input_ids.clone()
    position_ids, doc_ids = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    for b in range(BATCHES):
        for row in range(ROWS):
            labels[b, row, : draw(4, 12)] = -100
            start = 0
            for doc, length in enumerate(DOCUMENTS[b][row]):
                end = start + length
                position_ids[b, row, start:end] = torch.arange(length)
                doc_ids[b, row, start:end] = doc
                # At least the first token: it can only be predicted from another document.
                packed_labels[b, row, start : start + draw(1, max(2, length // 2))] = -100
                start = end
            assert start == T
    return dict(input_ids=input_ids, labels=labels, position_ids=position_ids, doc_ids=doc_ids, packed_labels=packed_labels)


def forward(model, io, batch, packed):
    """(logits, loss) of one batch. Packed: transformers reads the documents' borders from the restarting positions."""
    ids = io["input_ids"][batch]
    if packed and is_longrope(model.config):
        return forward_apart(model, io, batch)
    if packed:
        out = model(ids, position_ids=io["position_ids"][batch], labels=io["packed_labels"][batch], use_cache=False)
    else:
        out = model(ids, labels=io["labels"][batch], use_cache=False)
    return out.logits, out.loss


def is_longrope(config):
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "longrope"


def forward_apart(model, io, batch):
    """As [forward], a document at a time: in a packed pass transformers takes the factors of the longest document for all of them."""
    rows, losses, n_labels = [], [], 0
    for row in range(ROWS):
        start, parts = 0, []
        for length in DOCUMENTS[batch][row]:
            part = slice(start, start + length)
            logits = model(io["input_ids"][batch, row : row + 1, part], use_cache=False).logits[0]
            labels = io["packed_labels"][batch, row, part]
            losses.append(torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=-100))
            n_labels += int((labels[1:] != -100).sum())
            parts.append(logits)
            start += length
        rows.append(torch.cat(parts))
    return torch.stack(rows), torch.stack(losses).sum() / n_labels


def packed_error(model, io):
    """Largest difference between the packed logits of all batches and those of each document run alone."""
    worst = 0.0
    with torch.no_grad():
        for b in range(BATCHES):
            logits, _ = forward(model, io, b, packed=True)
            for row in range(ROWS):
                start = 0
                for length in DOCUMENTS[b][row]:
                    alone = model(io["input_ids"][b, row : row + 1, start : start + length], use_cache=False).logits[0]
                    worst = max(worst, (alone - logits[row, start : start + length]).abs().max().item())
                    start += length
    return worst


def lora_parameters(model):
    """PEFT name as in adapter_model.safetensors -> parameter, sorted."""
    named = ((n.replace(".default", ""), p) for n, p in model.named_parameters() if p.requires_grad)
    return dict(sorted(named))


def gradients(model, io, packed, prefix, expected, cases):
    model.zero_grad()
    logits, loss = forward(model, io, 0, packed)
    loss.backward()
    squares = 0.0
    for name, parameter in lora_parameters(model).items():
        expected[f"{prefix}.grad.{name}"] = parameter.grad.clone()
        squares += parameter.grad.double().pow(2).sum().item()
    expected[f"{prefix}.loss"] = loss.detach()
    cases[prefix] = {"loss": loss.item(), "grad_norm": math.sqrt(squares)}
    return logits.detach()


def train(model, io, expected, cases, prefix="t_sched_wd001", start="adapter_init"):
    """20 optimizer steps: linear schedule with 2 warmup steps (so the first has learning rate 0), clipping at 1."""
    parameters = list(lora_parameters(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=WEIGHT_DECAY)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, norms, rates = [], [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        _, loss = forward(model, io, step % BATCHES, packed=True)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, CLIP).item())
        losses.append(loss.item())
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected[f"{prefix}.losses"] = torch.tensor(losses)
    expected[f"{prefix}.grad_norms"] = torch.tensor(norms)
    expected[f"{prefix}.lrs"] = torch.tensor(rates, dtype=torch.float64)
    for name, parameter in lora_parameters(model).items():
        expected[f"{prefix}.step{STEPS}.{name}"] = parameter.detach().clone()
    cases[prefix] = {
        "start": start, "packed": True, "lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "betas": [0.9, 0.999],
        "eps": 1e-8, "clip": CLIP, "schedule": f"linear, {WARMUP} warm-up of {STEPS} (lr at first step is 0)",
        "batches": f"step s uses batch s%{BATCHES}", "snapshots": [STEPS],
    }  # fmt: skip


def full(base, io, cases):
    """Gradients of every weight, and 20 optimizer steps on all of them. The base is left trained."""
    prefix, expected = "t_full_wd01", {}
    base.train()
    parameters = dict(sorted(base.named_parameters()))
    base.zero_grad()
    _, loss = forward(base, io, 0, packed=True)
    loss.backward()
    expected["full_packed.loss"] = loss.detach()
    for name, parameter in parameters.items():
        expected[f"full_packed.grad.{name}"] = parameter.grad.clone()
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": FULL_WEIGHT_DECAY},
        {"params": [p for p in parameters.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        _, loss = forward(base, io, step % BATCHES, packed=True)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP).item())
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    expected[f"{prefix}.losses"], expected[f"{prefix}.grad_norms"] = torch.tensor(losses), torch.tensor(norms)
    for name, parameter in parameters.items():
        expected[f"{prefix}.step{STEPS}.{name}"] = parameter.detach().clone()
    cases["full"] = {"lr": LEARNING_RATE, "weight_decay": FULL_WEIGHT_DECAY, "eps": 1e-8, "clip": CLIP, "steps": STEPS}
    return expected


def classic_config(config):
    """The same config in the keys that transformers before 5 wrote."""
    config = dict(config)
    if config["model_type"] == "gemma3_text":
        full, windowed = (config["rope_parameters"].pop(kind) for kind in ("full_attention", "sliding_attention"))
        config["rope_parameters"], config["rope_local_base_freq"] = full, windowed["rope_theta"]
        config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
        del config["layer_types"]
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    if config["model_type"] == "phi3":
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        rope.pop("original_max_position_embeddings", None)
        rope = {"type": rope.pop("rope_type"), **rope}
    config["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    return dict(sorted(config.items()))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def save_adapter(model, folder):
    """As PEFT saves it, without its README, and with the target modules sorted (PEFT writes a set, in any order)."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    # Full paths where it was `all-linear`: the last parts say the same.
    config["target_modules"] = list({name.split(".")[-1] for name in config["target_modules"]})
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = None
    write_json(folder / "adapter_config.json", config)


def target_names(model):
    return sorted({name.split(".")[-1] for name in model.peft_config["default"].target_modules})


def make(name, describe, seed):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model_class, config, targets = describe()
    generator = torch.Generator().manual_seed(seed)
    base = model_class(config).eval()
    fill_unit_scale(base, generator)
    io = make_io(generator, config.vocab_size)
    state = {k: v.clone() for k, v in base.state_dict().items() if not (config.tie_word_embeddings and k == "lm_head.weight")}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    base.config.save_pretrained(folder)
    shown = json.loads((folder / "config.json").read_text())
    shown["architectures"] = [model_class.__name__]
    write_json(folder / "config.json", shown)
    if "rope_parameters" in shown:
        write_json(folder / "config_classic.json", classic_config(json.loads(json.dumps(shown))))
    save_file(io, folder / "io.safetensors", metadata={"format": "pt"})

    expected, cases = {}, {}
    with torch.no_grad():
        logits, loss = forward(base, io, 0, packed=False)
        expected["base.logits"], expected["base.loss"] = logits, loss
        packed_logits, packed_loss = forward(base, io, 0, packed=True)
        expected["base_packed.logits_row1"], expected["base_packed.loss"] = packed_logits[1], packed_loss
        separate_error = packed_error(base, io)
        assert separate_error <= 5e-6, separate_error
        logits_f64, loss_f64 = forward(base.double(), io, 0, packed=False)
        f64_error = (logits_f64 - logits).abs().max().item()
        base.float().load_state_dict(state, strict=not config.tie_word_embeddings)

    trained = model_class(config)
    trained.load_state_dict(state, strict=not config.tie_word_embeddings)
    results = {k: v.contiguous().clone() for k, v in full(trained, io, cases).items()}
    save_file(results, folder / "full.safetensors", metadata={"format": "pt"})

    torch.manual_seed(seed)  # PEFT draws A from the global generator.
    lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).train()
    save_adapter(model, folder / "adapter_init")
    start = {n: p.detach().clone() for n, p in lora_parameters(model).items()}
    gradients(model, io, False, "init_plain", expected, cases)
    train(model, io, expected, cases)
    with torch.no_grad():
        for n, p in lora_parameters(model).items():
            p.copy_(start[n] if "lora_A" in n else 0.05 * torch.randn(p.shape, generator=generator))
    save_adapter(model, folder / "adapter")
    expected["lora_plain.logits_row0"] = gradients(model, io, False, "lora_plain", expected, cases)[0]
    expected["lora_packed.logits_row0"] = gradients(model, io, True, "lora_packed", expected, cases)[0]
    effect = (expected["lora_plain.logits_row0"] - expected["base.logits"][0]).abs().max().item()
    assert effect > 1e-2, "the adapter must change the logits"
    expected = {k: v.contiguous().clone() for k, v in sorted(expected.items())}
    save_file(expected, folder / "expected.safetensors", metadata={"format": "pt"})
    write_json(folder / "meta.json", {
        "name": name, "arch": [model_class.__name__], "torch": torch.__version__.split("+")[0], "attn": "eager",
        "transformers": transformers.__version__, "peft": peft.__version__, "dtype": "float32", "doc_lengths": DOCUMENTS,
        "targets": target_names(model), "cases": cases, "packed_vs_separate_docs_max_abs": separate_error,
        "f32_vs_f64_logits_max_abs": f64_error, "base_loss_f64": loss_f64.item(), "logits_std": logits.std().item(),
        "adapter_vs_base_logits_max_abs": effect,
    })  # fmt: skip
    bytes_all = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{name}: {bytes_all} bytes, base loss {loss.item():.6f}, f32 error {f64_error:.1e}, packed error {separate_error:.1e}, "
          f"losses {expected['t_sched_wd001.losses'][0]:.4f} -> {expected['t_sched_wd001.losses'][-1]:.4f}")  # fmt: skip


def make_tokens(name, describe, seed):
    """tokens/ and tokens.safetensors of a folder that is there: rows of three tokens, of which the last is in no row of batch 0."""
    folder = OUT / name
    model_class, config, _ = describe()
    base = model_class(config).eval()
    base.load_state_dict(load_file(folder / "model.safetensors"), strict=not config.tie_word_embeddings)
    io = load_file(folder / "io.safetensors")
    seen = io["input_ids"][0].flatten()
    unseen = next(i for i in range(3, config.vocab_size) if i not in seen)
    ids = [int(seen[5]), int(seen[40]), unseen]
    assert len(set(ids)) == 3
    # The list form means the embedding, and with it a tied head.
    indices = ids if config.tie_word_embeddings else {"embed_tokens": ids, "lm_head": ids}
    torch.manual_seed(seed)
    lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM",
                      trainable_token_indices=indices)  # fmt: skip
    model = get_peft_model(base, lora).train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for n, p in lora_parameters(model).items():
            if "lora_A" not in n:
                scale = 0.05 if "lora_B" in n else 1 / math.sqrt(p.shape[1])
                p.copy_(scale * torch.randn(p.shape, generator=generator))
    save_adapter(model, folder / "tokens")
    results, cases = {}, {}
    results["tokens.logits_row0"] = gradients(model, io, True, "tokens", results, cases)[0]
    train(model, io, results, cases, prefix="t_tokens", start="tokens")
    # What the other cases show of A and B need not be kept a second time.
    kept = {k: v.contiguous().clone() for k, v in sorted(results.items()) if "lora_" not in k or ".0." in k and ".grad." in k}
    save_file(kept, folder / "tokens.safetensors", metadata={"format": "pt"})
    losses = results["t_tokens.losses"]
    print(f"{name}: tokens {ids}, losses {losses[0]:.4f} -> {losses[-1]:.4f}, {', '.join(k for k in kept if 'token_adapter' in k)}")


def rope_cases():
    """Names, config classes, entries as transformers 5 has them, other fields, and a length at which to look."""
    llama, phi3 = transformers.LlamaConfig, transformers.Phi3Config
    of_llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                 "original_max_position_embeddings": 8192, "rope_theta": 500000.0}  # fmt: skip
    yarn = {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 32768}
    deep = {**yarn, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.707, "beta_fast": 16.0, "beta_slow": 2.0}
    short, long = [1.0 + 0.01 * i for i in range(24)], [1.0 + 0.1 * i * i for i in range(24)]
    longrope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short, "long_factor": long, "partial_rotary_factor": 0.75}
    head = dict(hidden_size=512, num_attention_heads=8, max_position_embeddings=131072)
    return [
        ("default", llama, {"rope_type": "default", "rope_theta": 500000.0}, head, 1),
        ("linear", llama, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}, head, 1),
        ("dynamic", llama, {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}, head, 1),
        ("llama 3.1", llama, of_llama3, head, 1),
        ("llama 3.2", llama, {**of_llama3, "factor": 32.0}, head, 1),
        ("llama3 without the pretrained length", llama, without(of_llama3, "original_max_position_embeddings"), head, 1),
        ("yarn", llama, yarn, head, 1),
        ("yarn, not truncated", llama, {**yarn, "truncate": False}, head, 1),
        ("yarn with mscale", llama, deep, head, 1),
        ("yarn with an attention factor", llama, {**yarn, "attention_factor": 0.9}, head, 1),
        ("yarn, factor of the lengths", llama, {**yarn, "factor": None}, head, 1),
        ("longrope, short", phi3, longrope, {**head, "original_max_position_embeddings": 4096}, 4096),
        ("longrope, long", phi3, longrope, {**head, "original_max_position_embeddings": 4096}, 4097),
        ("longrope with an attention factor", phi3, {**longrope, "attention_factor": 1.25}, head, 1),
    ]


def without(entries, name):
    return {key: value for key, value in entries.items() if key != name}


def make_rope():
    """rope/frequencies.json: configs, the length of a document, its frequencies, and the factor of cosines and sines."""
    folder = OUT / "rope"
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for name, config_class, entries, fields, length in rope_cases():
        config = config_class(**fields, rope_parameters=dict(entries))
        rope_type = entries["rope_type"]
        if rope_type == "default":
            dim = config.hidden_size // config.num_attention_heads
            frequencies, factor = 1.0 / (entries["rope_theta"] ** (torch.arange(0, dim, 2).float() / dim)), 1.0
        else:
            compute = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[rope_type]
            frequencies, factor = compute(config, torch.device("cpu"), seq_len=length)
        shown = {"architectures": [config_class.__name__.replace("Config", "ForCausalLM")], "vocab_size": 8, "intermediate_size": 8,
                 "num_hidden_layers": 1, **fields}  # fmt: skip
        classic = {"type": rope_type, **without(without(without(entries, "rope_type"), "rope_theta"), "partial_rotary_factor")}
        outer = {key: entries[key] for key in ("rope_theta", "partial_rotary_factor") if key in entries}
        cases.append({
            "name": name, "length": length, "frequencies": frequencies.tolist(), "attention_factor": float(factor),
            "config": {**shown, "rope_parameters": entries}, "config_classic": {**shown, **outer, "rope_scaling": classic},
        })  # fmt: skip
    write_json(folder / "frequencies.json", {"transformers": transformers.__version__, "cases": cases})
    print(f"rope: {len(cases)} cases")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    wanted = sys.argv[1:] or [*FAMILIES, "tokens", "rope"]
    for name in wanted:
        if name == "rope":
            make_rope()
        elif name == "tokens":
            for family in WITH_TOKENS:
                make_tokens(family, *FAMILIES[family])
        else:
            make(name, FAMILIES[name][0], seed=FAMILIES[name][1])


if __name__ == "__main__":
    main()
