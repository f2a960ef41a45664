"""One measurement of PyTorch + PEFT, in this process: a request as JSON in, a result as JSON out.

    python3 measure.py '{"model": "MODEL_DIR", "ids": "ids.safetensors", ...}'

compare.py starts it; REQUEST below lists the fields. It takes one optimizer step to warm up and `n_steps` that count, each over `batch` rows of
the file of ids, cut into micro-batches. An optimizer step is what a training loop does: forward and backward of every micro-batch, the loss
divided once by all supervised tokens, gradients clipped to a norm of 1, AdamW.

The last line of standard output is the result: `seconds`, `n_tokens`, `n_supervised` of each counted optimizer step, `loss` and `grad_norm` of the
first one (the warm-up), and `peak_rss_mib` of the process (VmHWM).
"""

import json
import os
import sys
import time

REQUEST = {
    "model": None,            # a model folder
    "ids": None,              # safetensors with input_ids, labels, position_ids, doc_ids, attention_mask of shape (N, T), int64
    "method": "lora",         # or `full`
    "adapter": None,          # a PEFT folder to start from, instead of a fresh adapter
    "lora_r": 16,             # alpha is twice that
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "batch": 4,               # rows of an optimizer step
    "micro_batch": 1,         # rows of a forward and backward
    "mode": "plain",          # `chunked` loss, `checkpointing`, `both`, `compile`
    "layout": "rows",         # `packed`: documents apart; `padded`: documents sorted by length, one a row, padded
    "n_steps": 5,             # 0: only the first one, for its loss and gradient norm
    "threads": 2,
    "device": "cpu",          # or `cuda`
    "dtype": "float32",       # of weights and arithmetic; an adapter's stay float32
    "seed": 42,
}  # fmt: skip
LOSS_CHUNK = 256  # Rows of logits at a time with a chunked loss: 50 MB for a vocabulary of 49,152.
LEARNING_RATE = 2e-4


def main():
    request = REQUEST | json.loads(sys.argv[1])
    unknown = set(request) - set(REQUEST)
    if unknown:
        sys.exit(f"measure.py: unknown fields {sorted(unknown)}")
    os.environ["OMP_NUM_THREADS"] = str(request["threads"])
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    print(json.dumps(measure(request)))


def measure(request):
    import torch

    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    rows = read_rows(request["ids"])
    model = load(request).to(request["device"])
    forward = loss_function(model, request)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    seconds, n_tokens, n_supervised, first = [], [], [], None
    for step in range(1 + request["n_steps"]):
        batch = take(rows, step * request["batch"], request["batch"])
        micro_batches = list(cut(batch, request))
        n_labels = sum(int((labels[:, 1:] != -100).sum()) for _, labels, _ in micro_batches)
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for input_ids, labels, more in micro_batches:
            input_ids, labels = input_ids.to(request["device"]), labels.to(request["device"])
            more = {name: tensor.to(request["device"]) for name, tensor in more.items()}
            part = forward(input_ids, labels, more, n_labels)
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        optimizer.step()
        if request["device"] == "cuda":
            torch.cuda.synchronize()
        if step == 0:
            first = {"loss": loss, "grad_norm": norm}
        else:
            seconds.append(time.perf_counter() - begin)
            n_tokens.append(sum(len(ids) for ids, *_ in batch))
            n_supervised.append(n_labels)
    return {**first, "seconds": seconds, "n_tokens": n_tokens, "n_supervised": n_supervised, "peak_rss_mib": peak_rss_mib()}


def peak_rss_mib():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


# Rows


def read_rows(path):
    """Each row without its padding: input_ids, labels, position_ids, with no label where a document begins."""
    from safetensors.torch import load_file

    file = load_file(path)
    rows = []
    for row in range(file["input_ids"].shape[0]):
        length = int(file["attention_mask"][row].sum()) if "attention_mask" in file else file["input_ids"].shape[1]
        ids, labels, positions = (file[name][row, :length].clone() for name in ("input_ids", "labels", "position_ids"))
        # A token that begins a document can only be predicted from another one.
        labels[positions == 0] = -100
        rows.append((ids, labels, positions))
    return rows


def take(rows, first, count):
    return [rows[i % len(rows)] for i in range(first, first + count)]


def cut(batch, request):
    """Micro-batches of an optimizer step: (input_ids, labels, further arguments of the model), each (B, T)."""
    size = request["micro_batch"]
    if request["layout"] == "padded":
        yield from padded(batch, size)
        return
    for first in range(0, len(batch), size):
        rows = batch[first : first + size]
        ids, labels, positions = stack(rows)
        # Positions that begin again tell transformers where documents do: its mask then keeps them apart.
        yield ids, labels, {"position_ids": positions} if request["layout"] == "packed" else {}


def padded(batch, size):
    """Documents by falling length, as many in a micro-batch as `size` rows have room for: hardly any padding."""
    documents = sorted((d for row in batch for d in split(row)), key=lambda d: -len(d[0]))
    budget = size * max(len(ids) for ids, *_ in batch)
    while documents:
        n = max(1, budget // len(documents[0][0]))
        ids, labels, positions = stack(documents[:n])
        mask = (stack_one([torch_ones(len(d[0])) for d in documents[:n]], 0)).long()
        yield ids, labels, {"attention_mask": mask}
        documents = documents[n:]


def torch_ones(length):
    import torch

    return torch.ones(length, dtype=torch.int64)


def split(row):
    """The documents of a packed row."""
    ids, labels, positions = row
    starts = (positions == 0).nonzero().flatten().tolist() + [len(ids)]
    return [(ids[a:b], labels[a:b], positions[a:b]) for a, b in zip(starts, starts[1:])]


def stack(rows):
    ids, labels, positions = zip(*rows)
    # Positions of padding begin at 0: it is a document of its own, and sees no other.
    longest = max(len(p) for p in positions)
    positions = [torch_cat_range(p, longest) for p in positions]
    return stack_one(ids, 0), stack_one(labels, -100), stack_one(positions, 0)


def torch_cat_range(positions, length):
    import torch

    return torch.cat([positions, torch.arange(length - len(positions))])


def stack_one(rows, filler):
    import torch

    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filler)


# Model and loss


def load(request):
    import torch
    import transformers
    from peft import LoraConfig, PeftModel, get_peft_model

    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(request["model"], dtype=getattr(torch, request["dtype"]), attn_implementation="sdpa")
    model.config.use_cache = False
    if request["mode"] in ("checkpointing", "both"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if request["method"] == "full":
        return model.train()
    if request["adapter"]:
        return PeftModel.from_pretrained(model, request["adapter"], is_trainable=True).train()
    targets = request["target_modules"]
    lora = LoraConfig(
        r=request["lora_r"], lora_alpha=2 * request["lora_r"], lora_dropout=request["lora_dropout"], task_type="CAUSAL_LM",
        target_modules="all-linear" if targets == ["all-linear"] else targets,
    )  # fmt: skip
    return get_peft_model(model, lora).train()


def loss_function(model, request):
    """A function from a micro-batch to the sum of its losses divided by the supervised tokens of the optimizer step."""
    import torch

    if request["mode"] in ("chunked", "both"):
        causal = model if request["method"] == "full" else model.get_base_model()
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=LOSS_CHUNK)

        def forward(input_ids, labels, more, n_labels):
            hidden = causal.model(input_ids=input_ids, **more).last_hidden_state[:, :-1]
            targets = labels[:, 1:]
            is_supervised = targets != -100
            loss = torch.nn.functional.linear_cross_entropy(
                hidden[is_supervised], causal.lm_head.weight, targets[is_supervised], reduction="sum", options=options
            )
            return loss / n_labels

        return forward

    module = torch.compile(model) if request["mode"] == "compile" else model
    return lambda input_ids, labels, more, n_labels: module(
        input_ids=input_ids, labels=labels, num_items_in_batch=n_labels, **more
    ).loss


if __name__ == "__main__":
    main()
