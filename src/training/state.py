"""All that changes in a training, and the steps that change it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from mindspore import Parameter, amp, nn

from src.config import Config
from src.distributed import ALONE, Group
from src.training.optimizer import make_optimizer, make_scaler
from src.training.step import Ema, Loss, TrainStep


@dataclass(frozen=True)
class State:
    """What the training steps of every phase share."""

    network: nn.Cell
    optimizer: nn.Optimizer
    scaler: amp.LossScaler
    ema: Optional[Ema]

    def weights_to_use(self) -> nn.Cell:
        """The network to evaluate and to save: the averaged one, where there is one."""
        return self.ema.average if self.ema else self.network

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter, by its name in last.ckpt."""
        named = {f"network.{weight.name}": weight for weight in self.network.get_parameters()}
        trained = {id(weight) for weight in named.values()}
        for parameter in self.optimizer.get_parameters():
            if id(parameter) not in trained and parameter.name != "learning_rate":  # a table that config gives
                named[f"optimizer.{parameter.name}"] = parameter
        if self.ema:
            named.update({copy.name: copy for copy in self.ema.averages})  # their names start with "ema."
            named["ema_steps"] = self.ema.steps
        if isinstance(self.scaler, amp.DynamicLossScaler):
            named["scaler.scale_value"] = self.scaler.scale_value
            named["scaler.counter"] = self.scaler.counter
        return named

    def step(self, config: Config, tokens: str, group: Group = ALONE) -> TrainStep:
        """The training step of a schedule, for one process of a group."""
        train = config.train
        network = self.network.with_tokens(tokens)
        loss = Loss(network.geometry.num_classes, train.label_smoothing)
        checks_overflow = train.loss_scale_type == "dynamic" or train.on_nan == "skip"
        step = TrainStep(
            network, loss, self.optimizer, self.scaler, self.ema, train.clip_norm, checks_overflow, group.size
        )
        return step.set_train()


def new_state(config: Config, build: Callable[[], nn.Cell], rates: list[float]) -> State:
    """The state before the first step.

    Args:
        build: Makes the network.
        rates: The learning rate of every step of the run.
    """
    network = build()
    ema = Ema(network, build(), config.train.ema_decay) if config.train.ema_decay is not None else None
    return State(network, make_optimizer(config, network, rates), make_scaler(config), ema)
