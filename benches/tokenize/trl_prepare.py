"""One measurement of TRL's own preparation, in this process: rows to packs, a line of JSON out.

    python3 trl_prepare.py ROWS MODEL MAX_LENGTH STRATEGY PROCESSES

It reads the Parquet files of ROWS (`prompt`, `completion`) with `datasets` and calls `SFTTrainer._prepare_dataset`, which is what `SFTTrainer(...)` calls
before it trains: end appended, tokenized, labels built, packed. `SFTTrainer` itself is not made, because it would want a model. Nothing is cached
from an earlier run. `seconds` begins before the files are opened and ends when the packed data set is there; imports and the tokenizer are not in it.
"""

import json
import os
import resource
import sys
import tempfile
import time
import types


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    rows, model, max_length, strategy, n_processes = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    os.environ["HF_HUB_OFFLINE"] = "1"
    # As TRL is used: processes of `datasets.map`, each on one thread.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory(prefix="trl_prepare.") as folder:
        os.environ["HF_HOME"] = folder
        print(json.dumps(measure(rows, model, max_length, strategy, n_processes, folder)))


def measure(rows, model, max_length, strategy, n_processes, folder):
    import datasets
    import transformers
    import trl

    datasets.disable_progress_bars()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model)
    config = trl.SFTConfig(
        output_dir=folder,
        max_length=max_length,
        packing=True,
        packing_strategy=strategy,
        dataset_num_proc=n_processes,
        completion_only_loss=True,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    # What the method reads of the trainer.
    trainer = types.SimpleNamespace(_tokenizer=tokenizer, completion_only_loss=True, chat_template=None)
    started = time.perf_counter()
    dataset = datasets.load_dataset("parquet", data_files=f"{rows}/*.parquet", split="train", cache_dir=folder)
    n_rows = len(dataset)
    packed = trl.SFTTrainer._prepare_dataset(trainer, dataset, tokenizer, config, True, None, "train")
    seconds = time.perf_counter() - started
    n_tokens = sum(sum(lengths) for batch in packed.iter(1000) for lengths in batch["seq_lengths"])
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": seconds,
        "cpu_seconds": sum(u.ru_utime + u.ru_stime for u in usage),
        "rows": n_rows,
        "tokens": n_tokens,
        "packs": len(packed),
        "peak_mib": usage[0].ru_maxrss / 1024,
        "versions": {m.__name__: m.__version__ for m in (trl, transformers, datasets)},
    }


if __name__ == "__main__":
    main()
