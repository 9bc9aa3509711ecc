"""Train the feature network for FID and KID for when the Inception weights are not available.

    python scripts/train_features.py                     # writes results/features/own.pt and own.json
    python scripts/train_features.py --out /tmp/features --epochs 1

A CIFAR-10 classifier trained by a fixed recipe; its features are the inputs of its last linear layer. It is a
measuring instrument: committed, so that everybody uses the same one, and identified by the digest of its weights in
the name of every measure. Trained again (rounding differs between machines) it is another instrument, with another
name.
"""

import argparse
import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

from gbn import cli
from gbn.arguments import Number, output_folder

RECIPE = (
    "dataset=cifar10",
    "dataset.augment=crop_flip",
    "model=cnn",
    "model.width=0.25",
    "norm=bn",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "optimizer.weight_decay=1e-4",
    "schedule=one_cycle",
    "trainer.batch_size=128",
    "trainer.evaluation.points=6",
    "trainer.evaluation.exact=false",
    "trainer.evaluation.test_every=0",
    "tracker.mode=disabled",
    "seed=0",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, statuses={1: "the run did not finish"})
    add = result.add_argument
    add("--out", type=output_folder, default="results/features", metavar="DIR", help="(%(default)s)")
    add("--epochs", type=Number(most=10**6), default=10.0, metavar="N", help="epochs of the recipe (10)")
    add(
        "--results",
        type=output_folder,
        default="results/scratch",
        metavar="DIR",
        help="seed of the run (%(default)s)",
    )
    add("--replace", action="store_true", help="replace an existing instrument")
    return result


def network_of(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Write a checkpoint's weights without the classifier; return the file's description."""
    import torch

    from gbn.engine.checkpoint import load_checkpoint
    from gbn.store.files import write_bytes_atomically

    state = load_checkpoint(checkpoint, torch.device("cpu"))["model"]
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    file = out / "own.pt"
    out.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(kept, content)
    write_bytes_atomically(file, content.getvalue())
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    return {
        "file": file.name,
        "sha256": sha256,
        "digest": sha256[:8],
        "features": int(state["head.weight"].shape[1]),
        "made_with": f"torch {torch.__version__}",
    }


def run(args: argparse.Namespace) -> int:
    """Train, write the weights, then the file that describes them."""
    from gbn.config.compose import compose
    from gbn.engine.run import run as train
    from gbn.store.files import write_atomically
    from gbn.store.records import RunStore

    description = args.out / "own.json"
    if description.exists() and not args.replace:
        raise ValueError(
            f"{description} exists: numbers measured with another network have another name; to replace "
            "it add --replace, to try the recipe add --out DIR"
        )
    began = time.monotonic()
    overrides = [*RECIPE, f"trainer.epochs={args.epochs:g}"]
    # Not as an override: a path may contain characters that Hydra's grammar does not accept.
    config = compose(overrides).model_copy(update={"results_dir": str(args.results)})
    outcome = train(config)
    print(f"{outcome.run_id}: {outcome.message}")
    if outcome.status != "finished":
        return 1
    from gbn.data import load

    record = RunStore(args.results).load(outcome.run_id)
    images = load("cifar10", config.dataset.root, config.dataset.download)
    made = network_of(RunStore(args.results).path(outcome.run_id) / "checkpoint.pt", args.out)
    final = (record.summary or {})["final"]
    about = {
        "name": "own",
        **made,
        "network": {"name": "cnn", "width": config.model.width},
        "channels": images.in_channels,
        "image_size": images.image_size,
        "classes": images.num_classes,
        "mean": list(images.mean),
        "std": list(images.std),
        # It has seen the training images, so generated ones are compared with the test images.
        "reference": "test",
        "trained_on": "45,000 training images of CIFAR-10",
        "test_accuracy": final["test_accuracy"],
        "recipe": overrides,
        "data_digest": images.digest,
        "device": record.environment.get("device_kind"),
    }
    write_atomically(description, json.dumps(about, indent=1) + "\n")
    print(
        f"{description}: digest {made['digest']}, {made['features']} features, {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
