"""All that changes in a training, and the steps that change it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional, Union

from mindspore import Parameter, amp, nn

from src.config import Config, ImageSize
from src.errors import UserError
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from src.schedules.phases import ranks_by_oracle
from src.training.accumulate import Accumulation
from src.training.distillation import Distillation
from src.training.ema import Ema
from src.training.loss import Loss
from src.training.objectives import Classification
from src.training.optimizer import freeze, make_optimizer, make_scaler
from src.training.step import TrainStep
from src.training.token_labels import TokenLabelling
from src.weights.files import AVERAGE_STEPS, NETWORK, OPTIMIZER, SCALER


@dataclass(frozen=True)
class TrainState:
    """What the training steps of every phase share.

    Attributes:
        asks: Makes of a network the cell that is trained, where its schedule asks an oracle or predictors.
    """

    network: nn.Cell
    optimizer: nn.Optimizer
    scaler: amp.LossScaler
    ema: Optional[Ema]
    asks: Optional[Callable[[nn.Cell], nn.Cell]] = None

    @property
    def eval_network(self) -> nn.Cell:
        """The network to evaluate and to save: the averaged one, where there is one."""
        return self.ema.average if self.ema else self.network

    def parameters(self) -> dict[str, Parameter]:
        """Return every parameter of the state by its name, which starts with the part it belongs to."""
        named = {f"{NETWORK}{weight.name}": weight for weight in self.network.get_parameters()}
        trained = {id(weight) for weight in named.values()}
        for parameter in self.optimizer.get_parameters():
            if id(parameter) not in trained and parameter.name != "learning_rate":  # a table that config gives
                named[f"{OPTIMIZER}{parameter.name}"] = parameter
        if self.ema:
            named.update({copy.name: copy for copy in self.ema.averages})  # their names start with AVERAGE
            named[AVERAGE_STEPS] = self.ema.steps
        if isinstance(self.scaler, amp.DynamicLossScaler):
            named[f"{SCALER}scale_value"] = self.scaler.scale_value
            named[f"{SCALER}counter"] = self.scaler.counter
        return named


def create_train_state(
    config: Config,
    build: Callable[[], nn.Cell],
    rates: list[float],
    asks: Optional[Callable[[nn.Cell], nn.Cell]] = None,
) -> TrainState:
    """Create the state before the first step.

    Args:
        build: Makes the network.
        rates: The learning rate of every step of the run.
        asks: Makes of a network the cell that is trained, where its schedule asks an oracle or predictors.
    """
    network = build()
    if config.train.freeze_blocks is not None:
        freeze(network, config.train.freeze_blocks)
    ema = Ema(network, build(), config.train.ema_decay) if config.train.ema_decay is not None else None
    return TrainState(network, make_optimizer(config, network, rates), make_scaler(config), ema, asks)


def make_train_step(
    state: TrainState,
    config: Config,
    tokens: str,
    group: ProcessGroup = SINGLE_PROCESS,
    image_size: Optional[ImageSize] = None,
) -> Union[TrainStep, Accumulation]:
    """Make the training step of a schedule, for one process of a group.

    Args:
        image_size: Of the images, where it is not the network's.

    Raises:
        UserError: The schedule asks an oracle, and there is none.
    """
    train = config.train
    network = state.network.with_tokens(tokens, image_size)
    masked = network.plan.masked
    if state.asks is not None:
        network = state.asks(network)
    elif ranks_by_oracle(tokens):
        raise UserError(f"{tokens} ranks by an oracle: name its weights by train.oracle=FILE")
    checks_overflow = train.loss_scale_type == "dynamic" or train.on_nan == "skip"
    step = TrainStep(
        make_objective(network, config, masked),
        state.optimizer,
        state.scaler,
        state.ema,
        train.clip_norm,
        checks_overflow,
        group.size,
    )
    return (Accumulation(step, train.accumulate) if train.accumulate > 1 else step).set_train()


def make_objective(network: nn.Cell, config: Config, masked: bool) -> nn.Cell:
    """Return what a configuration's training of a network makes small.

    Args:
        masked: Whether it is one of predictors, and the network as `Distillation` has it.
    """
    smoothing, labels = config.train.label_smoothing, config.token_labels
    if masked:
        return Distillation(network, Loss(network.geometry.num_classes, smoothing), config.predictor)
    if network.geometry.labels_tokens:
        return TokenLabelling(network, smoothing, labels.weight, labels.mix_alpha, labels.maps is not None)
    return Classification(network, Loss(network.geometry.num_classes, smoothing))
