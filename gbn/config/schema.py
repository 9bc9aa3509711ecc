"""The schema of a run: every key, its type, its range and its default.

A value equal to its default here is left out of the run's identity (:mod:`gbn.store.identity`), so a key added later
with a default that keeps the old behavior changes no existing run's id. When a default is *changed*, the part's
``revision`` must be raised in its YAML file.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from gbn.config.datasets import (
    CardiacConfig,
    CustomDatasetConfig,
    DatasetConfig,
    DatasetName,
    SunnybrookConfig,
)
from gbn.config.models import ModelConfig
from gbn.config.norms import NormConfig
from gbn.config.optimizers import OptimizerConfig
from gbn.config.section import Count, Epochs, NonNegative, Number, Positive, Section, Seed, Share, Text, Two
from gbn.config.tasks import TaskConfig
from gbn.methods import METHODS

#: How often a run may evaluate its whole test set; each evaluation takes longer than an update.
MOST_LOOKS = 100_000
Processes = Annotated[int, Field(ge=1, le=4096)]


class _Schedule(Section):
    revision: Count
    warmup_epochs: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0


class ConstantConfig(_Schedule):
    """A constant learning rate (after the warm-up, if any)."""

    name: Literal["constant"]


class StepConfig(_Schedule):
    """Multiply the rate by `gamma` at each milestone (a share of all updates)."""

    name: Literal["step"]
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default=[0.5, 0.75])
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1


class CosineConfig(_Schedule):
    """Half a cosine from the rate to `final` times the rate."""

    name: Literal["cosine"]
    final: Share = 0.0


class OneCycleConfig(_Schedule):
    """Linear from `start` times the rate up to the rate at share `peak` of the updates, down to `final`."""

    name: Literal["one_cycle"]
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start: Annotated[float, Field(gt=0, le=1)] = 0.04
    final: Share = 0.0


class EvaluationConfig(Section):
    """The points of a curve: a fixed slice of the validation images on a geometric grid of updates.

    The whole validation and test sets are evaluated every `test_every` epochs and at the end (0: only at the end). A
    generator makes `images` at each point, from fixed latents, and has no `test_every`.
    """

    images: Count = 2000
    points: Count = 40
    first: Count = 5
    exact: bool = True
    calibration_images: Count = 1024
    test_every: NonNegative = 1.0


class RecordConfig(Section):
    """Recordings of the normalizers during training; never part of a run's identity, since they change no number.

    `points` of the curve's geometric grid, over `images` of the training images that exact statistics use. `pictures`
    of the grid's points at which a task that makes pictures saves one (0: none).
    """

    layers: bool = False
    points: Count = 12
    images: Two = 256
    pictures: Number = 6


class AttackConfig(Section):
    """Deliberate disturbances of training, defined in experiments/iebn_noise.

    `constant` [scale, shift] replaces every normalized value by scale x_hat + shift, before gain and bias; `images`
    from the data set `dataset` are added to each training batch, but not to its loss.
    """

    constant: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    dataset: DatasetName | None = None
    images: Number = 0

    @model_validator(mode="after")
    def _whole(self) -> "AttackConfig":
        if (self.dataset is None) != (self.images == 0):
            raise ValueError(
                f"trainer.attack.dataset={self.dataset} with trainer.attack.images={self.images}: foreign images "
                "in a batch need both, for example trainer.attack.dataset=mnist trainer.attack.images=32"
            )
        return self


class TrainerConfig(Section):
    """The training loop."""

    revision: Count
    epochs: Epochs
    batch_size: Count
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    clip_norm: Positive | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    record: RecordConfig = RecordConfig()
    attack: AttackConfig = AttackConfig()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Processes | Literal["auto"] = "auto"
    clock: Literal["auto", "exclusive", "shared"] = "auto"
    checkpoint_seconds: NonNegative = 60.0
    progress: Literal["auto", "bar", "plain", "quiet"] = "auto"

    @model_validator(mode="after")
    def _ends(self) -> "TrainerConfig":
        every = self.evaluation.test_every
        if every and self.epochs / every > MOST_LOOKS:
            raise ValueError(
                f"trainer.evaluation.test_every={every} asks for {self.epochs / every:.3g} looks at the test set in "
                f"trainer.epochs={self.epochs}, at most {MOST_LOOKS:,} are allowed: raise it to "
                f"{self.epochs / MOST_LOOKS:g} or more, or take 0 for a single look at the end"
            )
        return self


class TrackerConfig(Section):
    """The mirror of a run in Weights & Biases; never part of a run's identity."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: Text = "gbn"
    entity: Text | None = None
    tags: list[Text] = Field(default=[])
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 20.0


class LauncherConfig(Section):
    """How the runs of a sweep are distributed over processes; never part of a run's identity."""

    name: Literal["local", "parallel"] = "local"
    jobs: Processes | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _one_process(self) -> "LauncherConfig":
        if self.name == "local" and self.jobs not in (1, "auto"):
            raise ValueError(
                f"launcher.jobs={self.jobs} belongs to launcher=parallel: launcher=local trains one run after another"
            )
        return self


ScheduleConfig = ConstantConfig | StepConfig | CosineConfig | OneCycleConfig


class Config(Section):
    """One run. `seed=0` is a seed like any other."""

    task: Annotated[TaskConfig, Field(discriminator="name")]
    dataset: Annotated[
        DatasetConfig | CustomDatasetConfig | CardiacConfig | SunnybrookConfig, Field(discriminator="name")
    ]
    model: Annotated[ModelConfig, Field(discriminator="name")]
    norm: NormConfig
    optimizer: Annotated[OptimizerConfig, Field(discriminator="name")]
    schedule: Annotated[ScheduleConfig, Field(discriminator="name")]
    trainer: TrainerConfig
    tracker: TrackerConfig = TrackerConfig()
    launcher: LauncherConfig = LauncherConfig()
    seed: Seed = 0
    results_dir: Text = "results"
    experiment: str | None = None

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> "Config":
        for problem in _impossible(self):
            raise ValueError(problem)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return the complete configuration in plain containers, defaults included, as stored with the run."""
        return self.model_dump(mode="json")

    def defaults(self) -> dict[str, Any]:
        """Return the schema's default of every key of this configuration that has one (nested plain containers)."""
        return _defaults(self)


def _defaults(section: BaseModel) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found[name] = _defaults(value)
        elif not field.is_required():
            default = field.get_default(call_default_factory=True)
            found[name] = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
    return found


def _impossible(config: Config) -> list[str]:
    """Return the problems of values that are valid by themselves but cannot work together."""
    problems = config.task.problems(config)
    if config.trainer.device == "cpu" and config.trainer.precision == "fp16":
        problems.append("trainer.precision=fp16 needs a GPU (gradient scaling): use bf16 or fp32 on the CPU")
    some = config.dataset.subset
    if some is not None and config.trainer.batch_size > some:
        problems.append(
            f"trainer.batch_size={config.trainer.batch_size} is more than dataset.subset={some}: no batch would ever "
            "be full"
        )
    if config.trainer.attack.constant is not None and METHODS[config.norm.method].statistics != "batch":
        problems.append(
            f"trainer.attack.constant acts on norms with statistics of the batch, norm={config.norm.name} has none: "
            "use bn, iebn or a gbn pair"
        )
    return problems
