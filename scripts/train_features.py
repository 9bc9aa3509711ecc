"""Train the feature network that FID and KID are measured with where the Inception weights cannot be had.

    python scripts/train_features.py                     # writes results/features/own.pt and own.json
    python scripts/train_features.py --out /tmp/features --epochs 1

One classifier of CIFAR-10 by a fixed recipe; its features are what its last linear layer gets. It is an instrument:
committed, so that everybody measures with the same one, and named by the digest of its weights in every number that
it gives. Trained again (another machine rounds otherwise) it is another instrument, with another name.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.engine.run import run
from gbn.store.files import write_atomically
from gbn.store.records import RunStore

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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("--out", type=Path, default=Path("results/features"), metavar="DIR", help="(%(default)s)")
    add("--epochs", type=float, default=10, help="of the recipe (%(default)s)")
    add(
        "--results", type=Path, default=Path("results/scratch"), metavar="DIR", help="the run's (%(default)s)"
    )
    add("--replace", action="store_true", help="take the place of an instrument that is there")
    return result


def network_of(checkpoint: Path, out: Path) -> dict[str, Any]:
    """Write the weights of a checkpoint without its classifier; what is known of the file."""
    import torch

    from gbn.engine.checkpoint import load_checkpoint

    state = load_checkpoint(checkpoint, torch.device("cpu"))["model"]
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    file = out / "own.pt"
    out.mkdir(parents=True, exist_ok=True)
    torch.save(kept, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return {
        "file": file.name,
        "sha256": sha256,
        "digest": sha256[:8],
        "features": int(state["head.weight"].shape[1]),
        "made_with": f"torch {torch.__version__}",
    }


def main() -> int:
    """Train, write the weights, then the file that says what they are."""
    args = parser().parse_args()
    description = args.out / "own.json"
    if description.exists() and not args.replace:
        print(
            f"error: {description} is there: numbers measured with another network have another name; to replace "
            "it add --replace, to try the recipe add --out DIR",
            file=sys.stderr,
        )
        return 2
    began = time.monotonic()
    overrides = [*RECIPE, f"trainer.epochs={args.epochs:g}", f"results_dir={args.results}"]
    try:
        config = compose(overrides)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    outcome = run(config)
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
        "recipe": [one for one in overrides if not one.startswith("results_dir")],
        "data_digest": images.digest,
        "device": record.environment.get("device_kind"),
    }
    write_atomically(description, json.dumps(about, indent=1) + "\n")
    print(
        f"{description}: digest {made['digest']}, {made['features']} features, {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
