"""A term genome's updates of one scalar, term by term and by its six coefficients."""

from __future__ import annotations

import math

from optevo.optim.terms.genome import TermGenome


def by_the_spec(g: TermGenome, gradients: list[float]) -> list[float]:
    """The updates of one scalar, term by term as section 2 of the spec words them."""
    return [sum(weighted) for weighted in weighted_terms(g, gradients)]


def weighted_terms(g: TermGenome, gradients: list[float]) -> list[list[float]]:
    m = v = 0.0
    out = []
    for k, raw in enumerate(gradients, start=1):
        x = max(-g.clip_value, min(g.clip_value, raw)) if g.gradient_clipping else raw
        m = g.beta1 * m + (1 - g.beta1) * x if g.use_momentum else x
        v = g.beta2 * v + (1 - g.beta2) * x * x if g.use_second_moment else x * x
        m_hat = m / (1 - g.beta1**k) if g.bias_correction and g.use_momentum else m
        v_hat = v / (1 - g.beta2**k) if g.bias_correction and g.use_second_moment else v
        root = math.sqrt(v_hat) + g.eps
        term = {
            "GRAD": x,
            "MOMENTUM": m_hat,
            "RMS_NORM": x / root,
            "ADAM_TERM": m_hat / root,
            "SIGN_GRAD": math.copysign(1.0, x) if x else 0.0,
            "UNIT_GRAD": x / (abs(x) + g.eps),
            "NESTEROV": m_hat + g.beta1 * (x - m_hat),
        }
        out.append([a * term[t] for a, t in zip(g.alphas, g.terms, strict=True)])
    return out


def by_the_rule(g: TermGenome, gradients: list[float]) -> list[float]:
    """The updates of one scalar from the six coefficients alone."""
    rule = g.rule()
    m = v = 0.0
    out = []
    for k, raw in enumerate(gradients, start=1):
        x = raw if rule.clip_value is None else max(-rule.clip_value, min(rule.clip_value, raw))
        m_hat = v_hat = 0.0
        if rule.reads_m:
            m = rule.beta1 * m + (1 - rule.beta1) * x
            m_hat = m / (1 - rule.beta1**k) if rule.bias_correction else m
        root = abs(x)
        if rule.reads_v:
            v = rule.beta2 * v + (1 - rule.beta2) * x * x
            v_hat = v / (1 - rule.beta2**k) if rule.bias_correction else v
            root = math.sqrt(v_hat)
        delta = rule.grad * x + rule.momentum * m_hat
        for coefficient, value in (
            (rule.rms * x + rule.adam * m_hat, root),
            (rule.unit * x, abs(x)),
        ):
            if coefficient:
                delta += coefficient / (value + rule.eps)
        delta += rule.sign * (math.copysign(1.0, x) if x else 0.0)
        out.append(delta)
    return out
