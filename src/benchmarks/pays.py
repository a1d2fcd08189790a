"""Whether a schedule pays in a training on this machine: its steps are faster, and images come fast enough."""

from src import markdown
from src.benchmarks.data import measure_data
from src.benchmarks.deploy import pays
from src.benchmarks.measure import Report, conditions, peer_sizes, time_training
from src.benchmarks.timing import Timing, gain_text
from src.benchmarks.timm_pipeline import in_words
from src.config import Config, with_tokens
from src.runtime.environment import one_line
from src.schedules import Geometry, parse, resolve
from src.schedules.costs import NO_FASTER


def measure(config: Config, spec: str, rounds: int) -> Report:
    """Measure training steps of dense and schedule in turns, and the images that come meanwhile.

    On a CPU the same cores prepare images and train: their times add up. Another device trains while images come: the
    longer time counts.

    Args:
        config: Batch, image size, data and workers are those of the training.
        rounds: Rounds of measuring.
    """
    spec = str(parse(spec))
    plan = resolve(parse(spec), Geometry.from_config(config.model))
    timings = time_training({name: with_tokens(config, name) for name in ("none", spec)}, rounds, steps=1)
    data = measure_data(config, rounds, 1000, [])
    batch = config.data.batch_size
    shared = config.runtime.device_target == "CPU"
    loading = batch / data["data"]["img_s"]
    both = {name: _together(timing, loading, shared) for name, timing in timings.items()}
    whole = Timing(both[spec].seconds, both["none"].seconds)
    return {
        "environment": conditions(config, peer_sizes(config), rounds, 1, []),
        "spec": spec,
        "step_img_s": [batch / timings[name].median for name in ("none", spec)],
        "step": timings[spec].gain_figures,
        "ideal_gain": plan.training_gain,
        "masked": plan.masked,
        "data": data["data"],
        "cpu_ms": data["rows"][0]["cpu_ms"],
        "img_s": [batch / both[name].median for name in ("none", spec)],
        **whole.gain_figures,
        "pays": pays(whole.gains, plan.training_gain),
        "input_bound": not shared and loading > timings[spec].median,
        "shared": shared,
    }


def table(report: Report) -> str:
    """Return the report as Markdown, and the answer in words below it."""
    spec, data = report["spec"], report["data"]
    rows = [
        ["training step", *(f"{speed:.1f}" for speed in report["step_img_s"]), gain_text(report["step"])],
        [f"images, {in_words(data['workers'])}", *2 * [f"{data['img_s']:.1f}"], ""],
        ["together", *(f"{speed:.1f}" for speed in report["img_s"]), gain_text(report)],
    ]
    text = markdown.table(["img/s", "`none`", f"`{spec}`", "gain (rounds)"], rows)
    note = "Gains are medians over the rounds of dense / schedule within a round, not of the columns."
    return f"{text}\n{answer(report)}\n{note}\n\n{one_line(report['environment'])}\n"


def answer(report: Report) -> str:
    """Return in words whether it pays, and what stands in the way."""
    verdict = {"yes": "it pays", "no": "it does not pay", "unclear": "it cannot be told"}
    how = "images are prepared on the cores that train" if report["shared"] else "images come while the device trains"
    text = (
        f"`{report['spec']}` in training: {verdict[report['pays']]}, {100 * report['gain']:+.1f}% of an ideal"
        f" {100 * report['ideal_gain']:+.1f}%; {how}."
    )
    if report["masked"]:
        text += f" {NO_FASTER[0].upper()}{NO_FASTER[1:]}."
    if report["pays"] == "unclear":
        text += " Rounds disagree, are too few, or beat the arithmetic: stop other work, raise --pairs."
    if report["input_bound"]:
        need = report["step_img_s"][1] * report["cpu_ms"] / 1000
        text += (
            f" Input-bound: images come at {report['data']['img_s']:.0f} a second, the step takes"
            f" {report['step_img_s'][1]:.0f}; that keeps {need:.1f} cores busy, so raise data.workers."
        )
    return text


def _together(timing: Timing, loading: float, shared: bool) -> Timing:
    """Return a step's times with those of loading its batch."""
    seconds = tuple(own + loading if shared else max(own, loading) for own in timing.seconds)
    return Timing(seconds, seconds)
