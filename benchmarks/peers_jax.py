"""One round of local gradient steps in JAX, float64: jit, scan over steps, vmap over clients.

Several honest variants; the benchmark takes the fastest of each group. All return the parameters of
every client after E steps, so they can be compared with the library before they are timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

Params = tuple[jax.Array, jax.Array]


def _scan_round(gradient: Callable[..., Params]) -> Callable[..., Params]:
    """Scan `local_steps` gradient steps, mapped over clients and compiled."""

    @partial(jax.jit, static_argnames=("local_steps",))
    def run(
        kernel: Any, value: Any, data: Any, ridges: Any, step: Any, *, local_steps: int
    ) -> Params:
        def client(*own: jax.Array) -> Params:
            def one(state: Params, _: None) -> tuple[Params, None]:
                slopes = gradient(state[0], state[1], *own)
                return (
                    state[0] - step * (slopes[0] + ridges[1] * state[0]),
                    state[1] - step * (slopes[1] + ridges[0] * state[1]),
                ), None

            return jax.lax.scan(one, (kernel, value), None, length=local_steps)[0]

        return jax.vmap(client)(*data)

    return run


# --- on the statistics G (S, d, d), K (S, d, m)


def _statistics_loss(kernel: Any, value: Any, gram: Any, cross: Any) -> jax.Array:
    product = kernel @ (gram @ value)
    return (0.5 * jnp.vdot(product, gram @ product) - jnp.vdot(cross, product)) / len(gram)


def _statistics_einsum(kernel: Any, value: Any, gram: Any, cross: Any) -> Params:
    mapped = jnp.einsum("sab,bm->sam", gram, value)
    residual = jnp.einsum("sab,bc,scm->sam", gram, kernel, mapped) - cross
    return (
        jnp.einsum("sam,sbm->ab", residual, mapped) / len(gram),
        jnp.einsum("sab,cb,scm->am", gram, kernel, residual) / len(gram),
    )


def _statistics_matmul(kernel: Any, value: Any, gram: Any, cross: Any) -> Params:
    mapped = gram @ value
    residual = gram @ (kernel @ mapped) - cross
    kernel_slope = jnp.tensordot(residual, mapped, ((0, 2), (0, 2)))
    value_slope = jnp.tensordot(gram, kernel.T @ residual, ((0, 2), (0, 1)))
    return kernel_slope / len(gram), value_slope / len(gram)


def _statistics_columns(kernel: Any, value: Any, gram: Any, cross: Any) -> Params:
    """The layout of this library: rows (output, sequence), products on stacked matrices."""
    count, dim, outputs = cross.shape
    stacked = gram.reshape(count * dim, dim)
    mapped = (stacked @ value).reshape(count, dim, outputs).transpose(2, 0, 1)
    rows = mapped.reshape(-1, dim)
    product = (rows @ kernel.T).reshape(outputs, count, dim)
    residual = jnp.einsum("csb,sba->csa", product, gram) - cross.transpose(2, 0, 1)
    flat = residual.reshape(-1, dim)
    pulled = (flat @ kernel).reshape(outputs, count * dim)
    return flat.T @ rows / count, (pulled @ stacked).T / count


# --- on the tokens X (S, n, d), targets Y (S, n, m), token readout


def _token_loss(kernel: Any, value: Any, tokens: Any, targets: Any) -> jax.Array:
    memory = jnp.swapaxes(tokens, 1, 2) @ (tokens @ value) / tokens.shape[1]
    error = (tokens @ kernel) @ memory - targets
    return 0.5 * jnp.vdot(error, error) / (len(tokens) * tokens.shape[1])


def _token_einsum_loss(kernel: Any, value: Any, tokens: Any, targets: Any) -> jax.Array:
    prediction = jnp.einsum(
        "snd,de,ske,skf,fm->snm", tokens, kernel, tokens, tokens, value, optimize="optimal"
    )
    error = prediction / tokens.shape[1] - targets
    return 0.5 * jnp.vdot(error, error) / (len(tokens) * tokens.shape[1])


def _token_matmul(kernel: Any, value: Any, tokens: Any, targets: Any) -> Params:
    count, length = tokens.shape[:2]
    transposed = jnp.swapaxes(tokens, 1, 2)
    memory = transposed @ (tokens @ value) / length
    error = (tokens @ kernel) @ memory - targets
    pulled = transposed @ error
    kernel_slope = jnp.tensordot(pulled, memory, ((0, 2), (0, 2)))
    value_slope = jnp.tensordot(tokens, tokens @ (kernel.T @ pulled), ((0, 1), (0, 1)))
    scale = count * length
    return kernel_slope / scale, value_slope / (scale * length)


STATISTICS = {
    "autodiff": _scan_round(jax.grad(_statistics_loss, argnums=(0, 1))),
    "einsum": _scan_round(_statistics_einsum),
    "matmul": _scan_round(_statistics_matmul),
    "columns": _scan_round(_statistics_columns),
}
TOKENS = {
    "autodiff": _scan_round(jax.grad(_token_loss, argnums=(0, 1))),
    "matmul": _scan_round(_token_matmul),
}
# The contraction order that einsum finds begins with XᵀX, which does not depend on the parameters,
# and XLA moves it out of the loop over steps: on tokens by its code, on statistics by its work.
HOISTED = {"einsum": _scan_round(jax.grad(_token_einsum_loss, argnums=(0, 1)))}


def _whole_run(gradient: Callable[..., Params]) -> Callable[..., Params]:
    """Rounds of full participation with plain averages in one compiled scan, without a history."""
    one_round = _scan_round(gradient)

    @partial(jax.jit, static_argnames=("local_steps", "rounds"))
    def run(
        kernel: Any, value: Any, data: Any, ridges: Any, step: Any, *, local_steps: int, rounds: int
    ) -> Params:
        def body(state: Params, _: None) -> tuple[Params, None]:
            ends = one_round(*state, data, ridges, step, local_steps=local_steps)
            return (ends[0].mean(axis=0), ends[1].mean(axis=0)), None

        return jax.lax.scan(body, (kernel, value), None, length=rounds)[0]

    return run


RUNS = {
    "einsum": _whole_run(_statistics_einsum),
    "matmul": _whole_run(_statistics_matmul),
    "columns": _whole_run(_statistics_columns),
}


def _objective(kernel: Any, value: Any, gram: Any, cross: Any, ridges: Any) -> jax.Array:
    """F up to a constant, clients of one size and weight."""
    penalty = ridges[1] * jnp.vdot(kernel, kernel) + ridges[0] * jnp.vdot(value, value)
    return _statistics_loss(kernel, value, gram, cross) + 0.5 * penalty


def bind_objective(
    kernel: Any, value: Any, data: tuple[Any, Any], *, ridges: tuple[float, float]
) -> dict[str, Callable[[], Any]]:
    """Return calls for value and gradient, and for the Hessian along the point itself."""
    held = [jnp.asarray(array) for array in (kernel, value, *data)]
    gradient = jax.grad(_objective, argnums=(0, 1))
    value_and_gradient = jax.jit(jax.value_and_grad(_objective, argnums=(0, 1)))

    @jax.jit
    def product(kernel: Any, value: Any, gram: Any, cross: Any) -> Params:
        point = (kernel, value)
        return jax.jvp(lambda b, v: gradient(b, v, gram, cross, ridges), point, point)[1]

    return {
        "gradient": lambda: jax.block_until_ready(value_and_gradient(*held, ridges)[1]),
        "product": lambda: jax.block_until_ready(product(*held)),
    }


@partial(jax.jit, static_argnames=("local_steps", "rounds"))
def certificate(
    kernel: Any, value: Any, data: Any, ridges: Any, step: Any, *, local_steps: int, rounds: int
) -> jax.Array:
    """Cert(T) − P(B_0) of one head, token readout (C4): what every local step adds, in a scan."""
    gram, cross = (array.reshape(-1, *array.shape[2:]) for array in data)
    count, dim = len(gram), len(kernel)

    def added(kernel: Any, slope: Any) -> jax.Array:
        features = kernel @ gram
        system = jnp.einsum("sba,sbc,scd->ad", features, gram, features, optimize=True) / count
        linear = jnp.einsum("sba,sbm->am", features, cross) / count
        best = jnp.linalg.solve(system + ridges[0] * jnp.eye(dim), linear)
        mapped = gram @ best
        residual = gram @ (kernel @ mapped) - cross
        profile = jnp.tensordot(residual, mapped, ((0, 2), (0, 2))) / count + ridges[1] * kernel
        outer = mapped @ jnp.swapaxes(mapped, 1, 2)
        joint = jnp.einsum("sab,scd->acbd", gram, outer).reshape(dim**2, dim**2) / count
        largest = jnp.linalg.eigvalsh(joint)[-1] + ridges[1]
        error = slope - profile
        size = jnp.vdot(slope, slope)
        return 0.5 * step * (
            jnp.vdot(error, error) - jnp.vdot(profile, profile) - (1.0 - step * largest) * size
        )  # fmt: skip

    def one(state: Params, _: None) -> tuple[Params, jax.Array]:
        slopes = jax.vmap(_statistics_matmul)(*state, *data)
        full = [slope + ridges[1 - k] * state[k] for k, slope in enumerate(slopes)]
        gained = added(state[0].mean(axis=0), full[0].mean(axis=0))
        return (state[0] - step * full[0], state[1] - step * full[1]), gained

    def round_(state: Params, _: None) -> tuple[Params, jax.Array]:
        ends, gained = jax.lax.scan(one, state, None, length=local_steps)
        means = tuple(jnp.broadcast_to(end.mean(axis=0), end.shape) for end in ends)
        return means, gained.sum()

    start = tuple(jnp.broadcast_to(x, (len(data[0]), *x.shape)) for x in (kernel, value))
    return jax.lax.scan(round_, start, None, length=rounds)[1].sum()


def bind(
    run: Callable[..., Params],
    kernel: Any,
    value: Any,
    data: tuple[Any, Any],
    *,
    ridges: tuple[float, float],
    step: float,
    **lengths: int,
) -> Callable[[], Any]:
    """Return a call without arguments that runs one round, or several, and waits for it."""
    held = [jnp.asarray(array) for array in (kernel, value, *data)]

    def call() -> Any:
        out = run(held[0], held[1], tuple(held[2:]), ridges, step, **lengths)
        return jax.block_until_ready(out)

    return call
