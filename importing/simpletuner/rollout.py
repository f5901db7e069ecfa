"""Noise schedule, rollout and loss, where SimpleTuner does not always do what its documentation says."""

from __future__ import annotations

from typing import Any

from .draft import Draft
from .report import Report
from .settings import Settings

NOISE, LOSS = "Noise and rollout", "Loss, samples, optimizer"
PREFIX = "scheduled_sampling_"


def schedule(draft: Draft, config: Settings, flow: bool, pretrained: list[Any]) -> list[Any]:
    """The link to the noise schedule: a node of its own where the options say more than the model does."""
    if flow and config["flow_schedule_auto_shift"]:
        if config["flow_schedule_shift"] > 0 and config.is_set("flow_schedule_shift"):
            draft.report.changed.append(
                "flow_schedule_shift: flow_schedule_auto_shift goes before it, as in SimpleTuner"
            )
        draft.report.changed.append(
            "flow_schedule_auto_shift: timesteps are drawn as the model's own schedule says, with the shift that grows "
            "with the image where it has one"
        )
        return pretrained
    if flow:
        return [flow_schedule(draft, config), 0]
    if config["rescale_betas_zero_snr"]:
        prediction = config["prediction_type"] or ("v_prediction" if config["model_family"] == "sd2x" else "epsilon")
        if prediction == "epsilon":
            draft.report.changed.append(
                "rescale_betas_zero_snr: not with epsilon, which says nothing at pure noise; left out"
            )
            return pretrained
        return [draft.add(NOISE, "RolloutDDPMSchedule", prediction=prediction, zero_terminal_snr=True), 0]
    return pretrained


def flow_schedule(draft: Draft, config: Settings) -> str:
    density = "logit_normal"
    if config["flow_use_beta_schedule"]:
        density = "beta"
    if config["flow_use_uniform_schedule"]:  # asked for first in SimpleTuner, too
        density = "uniform"
    beta = density == "beta"
    return draft.add(
        NOISE,
        "RolloutFlowMatchingSchedule",
        shift=config["flow_schedule_shift"] if config["flow_schedule_shift"] > 0 else 1.0,
        timestep_sampling=density,
        logit_std=config["flow_sigmoid_scale"] if density == "logit_normal" else None,
        beta_alpha=config["flow_beta_schedule_alpha"] if beta else None,
        beta_beta=config["flow_beta_schedule_beta"] if beta else None,
    )


def refuse_mixflow(config: Settings) -> None:
    """Raises ValueError where MixFlow and rollouts are both on: both change what the network sees at a level."""
    if config["mixflow_enabled"] and config[f"{PREFIX}max_step_offset"] > 0:
        raise ValueError(
            "mixflow_enabled cannot be combined with scheduled_sampling_max_step_offset, as in SimpleTuner: set one of "
            "them to false or 0"
        )


def noisy_batch(draft: Draft, config: Settings, dataset: list[Any], schedule: list[Any]) -> str:
    """The noise, with what of it SimpleTuner changes."""
    gamma, offset = config["mixflow_gamma"], config["noise_offset"]
    if config["offset_noise"]:
        draft.report.changed.append("offset_noise: SimpleTuner moves the noise in a share of the batches; here in all")
    return draft.add(
        NOISE,
        "RolloutNoisyBatch",
        dataset=dataset,
        schedule=schedule,
        mixflow=gamma if config["mixflow_enabled"] else 0.0,
        input_perturbation=config["input_perturbation"],
        perturbation_steps=config["input_perturbation_steps"],
        noise_offset=offset if config["offset_noise"] else 0.0,
    )


def rollout(draft: Draft, config: Settings, flow: bool, batch: list[Any], model: list[Any]) -> str:
    options = {
        name: config[PREFIX + name]
        for name in ("max_step_offset", "probability", "prob_start", "prob_end", "ramp_steps", "start_step")
    }
    sampler, order = config[f"{PREFIX}sampler"], config[f"{PREFIX}order"]
    if options["max_step_offset"] > 0:
        say_how_rollouts_differ(config, flow, options, draft.report)
        if flow and sampler != "euler":
            draft.report.changed.append(
                f"{PREFIX}sampler: SimpleTuner ignores it for flow matching and always takes Euler steps, so Rollout "
                f"has euler; choose {sampler} there for what its documentation says"
            )
            sampler = "euler"
    return draft.add(
        NOISE,
        "Rollout",
        batch=batch,
        model=model,
        **options,
        sampler=sampler,
        order=order,
        step_size=1.0,
        strategy=config[f"{PREFIX}strategy"],
        ramp_shape=config[f"{PREFIX}ramp_shape"],
    )


def say_how_rollouts_differ(config: Settings, flow: bool, options: dict[str, Any], report: Report) -> None:
    offset, probability, ramp = options["max_step_offset"], options["probability"], options["ramp_steps"]
    report.changed.append(
        f"{PREFIX}max_step_offset: a SimpleTuner step is 1/1000 of the way, so {offset} steps span {offset / 10:g}% of "
        "it and hardly drift; Rollout has its step_size, 1. Raise step_size to 20 for the stride of a 50-step sampler"
    )
    if not flow:
        report.changed.append(
            "rollouts of epsilon and v models run towards more noise in SimpleTuner (with the solver library it pins); "
            "ours run towards the image"
        )
    if ramp:
        for name in ("prob_start", "prob_end"):
            if not options[name] and probability:
                report.changed.append(
                    f"{PREFIX}{name}: SimpleTuner takes {PREFIX}probability ({probability:g}) in place of 0; Rollout "
                    "has the 0 that its documentation promises"
                )
        if options["start_step"] and options["prob_start"]:
            report.changed.append(
                f"{PREFIX}start_step: before it SimpleTuner rolls out with prob_start; Rollout does not roll out at all"
            )
    else:
        if options["start_step"]:
            report.changed.append(
                f"{PREFIX}start_step: SimpleTuner ignores it without ramp_steps; Rollout waits for that step"
            )
        if not probability and flow and config[f"{PREFIX}reflexflow"] is not False:
            report.changed.append(
                f"{PREFIX}probability: at 0 SimpleTuner still trains with ReflexFlow's anti-drift term; here 0 means "
                "no rollouts and the ordinary loss"
            )


def loss(draft: Draft, config: Settings, flow: bool, batch: list[Any], model: list[Any]) -> str:
    """ReflexFlow Loss for flow matching unless it was refused (its auto is SimpleTuner's rule), or the plain one."""
    wanted = config[f"{PREFIX}reflexflow"]
    if wanted and not flow:
        draft.report.changed.append(f"{PREFIX}reflexflow: only for flow matching, here as in SimpleTuner; left out")
    if flow and wanted is not False:
        return reflexflow_loss(draft, config, bool(wanted), batch, model)
    return diffusion_loss(draft, config, flow, batch, model)


def reflexflow_loss(draft: Draft, config: Settings, wanted: bool, batch: list[Any], model: list[Any]) -> str:
    report = draft.report
    if config[f"{PREFIX}max_step_offset"] > 0:
        if config[f"{PREFIX}reflexflow_alpha"]:
            report.changed.append(
                f"{PREFIX}reflexflow_alpha: SimpleTuner divides its weights by a sum over the whole image, so that "
                "they stay at 1 and do nothing; ReflexFlow Loss has the same (fc_norm l1). Choose fc_norm mean for "
                "weights that work"
            )
        report.changed.append(
            f"{PREFIX}reflexflow_beta1: SimpleTuner adds the anti-drift term to every item; ours to those that were "
            "rolled out"
        )
    elif wanted:
        report.changed.append(
            f"{PREFIX}reflexflow: there are no rollouts (max_step_offset 0), so it is the ordinary loss; SimpleTuner "
            "adds the anti-drift term all the same"
        )
    if config["loss_type"] != "l2":
        report.changed.append("loss_type: ReflexFlow Loss knows the squared error only (l2)")
    return draft.add(
        LOSS,
        "RolloutReflexFlowLoss",
        batch=batch,
        model=model,
        reflexflow="enable" if wanted else "auto",
        alpha=config[f"{PREFIX}reflexflow_alpha"],
        beta1=config[f"{PREFIX}reflexflow_beta1"],
        beta2=config[f"{PREFIX}reflexflow_beta2"],
        objective="spec",
        target="original",
        fc_norm="l1",
    )


def diffusion_loss(draft: Draft, config: Settings, flow: bool, batch: list[Any], model: list[Any]) -> str:
    kind, report = config["loss_type"], draft.report
    if kind == "smooth_l1":
        report.changed.append("loss_type: smooth_l1 becomes huber, which is the same but for a factor")
    if kind != "l2" and config["huber_schedule"] != "constant":
        report.changed.append(
            f"huber_schedule: {config['huber_schedule']!r} is not offered; huber_c is the same at every noise level"
        )
    gamma = config["snr_gamma"] or 0.0
    if flow and gamma:
        report.changed.append("snr_gamma: not used for flow matching, as in SimpleTuner")
    return draft.add(
        LOSS,
        "RolloutDiffusionLoss",
        batch=batch,
        model=model,
        loss_type="mse" if kind == "l2" else "huber",
        huber_c=config["huber_c"],
        snr_gamma=0.0 if flow else gamma,
        target="original",
    )
