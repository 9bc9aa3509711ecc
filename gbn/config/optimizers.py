"""The schema of the group ``optimizer``: the optimizers and their preconditioners."""

from typing import Literal

from pydantic import Field, model_validator

from gbn.config.section import Count, NonNegative, Positive, Section, Share


class BNPConfig(Section):
    """Options of batch normalization preconditioning, see :class:`gbn.optim.BatchNormPreconditioner`."""

    revision: Count
    rho: Share = 0.99
    eps: NonNegative = 1e-4
    eps_relative: NonNegative = 1e-2
    fan_in_scale: Literal["rows", "images", "none"] = "rows"
    statistics: Literal["channel", "patch"] = "channel"
    exclude: list[str] = Field(default=[])


class _Optimizer(Section):
    """`bnp` is None without preconditioning, to keep it out of such a run's identity."""

    revision: Count
    lr: Positive
    weight_decay: NonNegative = 0.0
    decay: Literal["all", "weights"] = "all"
    precondition: Literal["none", "bnp"] = "none"
    bnp: BNPConfig | None = None

    @model_validator(mode="after")
    def _options_of_what_is_used(self) -> "_Optimizer":
        if self.precondition == "bnp":
            if self.bnp is None:
                raise ValueError("optimizer.precondition=bnp needs the section optimizer.bnp with a revision")
            return self
        if self.bnp is not None:
            changed = [
                name
                for name, field in BNPConfig.model_fields.items()
                if name != "revision" and getattr(self.bnp, name) != field.default
            ]
            if changed:
                raise ValueError(
                    f"optimizer.bnp.{changed[0]} is an option of a preconditioner that is not used: add "
                    "optimizer.precondition=bnp"
                )
            self.bnp = None
        return self


class SGDConfig(_Optimizer):
    """Stochastic gradient descent with (Nesterov) momentum."""

    name: Literal["sgd"]
    momentum: Share = 0.9
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGDConfig":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs momentum > 0, momentum=0 was given")
        return self


class _AdamLike(_Optimizer):
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Positive = 1e-8


class AdamConfig(_AdamLike):
    """Adam."""

    name: Literal["adam"]


class AdamWConfig(_AdamLike):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]


class NAdamConfig(_AdamLike):
    """Adam with Nesterov momentum."""

    name: Literal["nadam"]


class RMSpropConfig(_Optimizer):
    """RMSprop."""

    name: Literal["rmsprop"]
    alpha: Share = 0.99
    momentum: Share = 0.0
    eps: Positive = 1e-8


OptimizerConfig = SGDConfig | AdamConfig | AdamWConfig | NAdamConfig | RMSpropConfig
