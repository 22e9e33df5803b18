"""`DeepAttention`: layers of linear attention, a readout, and exact reverse-mode gradients.

    X_{l+1} = [X_l +] Σ_h φ(X_l W_Q) φ(X_l W_K)ᵀ X_l W_V / n,      Ŷ = U W_O

U are the tokens of the last layer's output that are read: all of them, their mean, or the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from linattn._checks import one_of, positive_int, real, shown
from linattn._threads import one_blas_thread
from linattn._typing import AnyArray, Array, BoolArray
from linattn.attention import (
    Tokens,
    by_length,
    check_tokens,
    mean_loss,
    readout_queries,
    share_right,
)
from linattn.deep.passes import (
    Trace,
    layer_backward,
    layer_forward,
    layer_weights,
    outer,
    read_backward,
    store_gradient,
)
from linattn.deep.ragged import check_rows, scatter
from linattn.streams import stream
from linattn.types import READOUTS, Layout, Params

FEATURE_MAPS = ("identity", "relu")
OUTPUTS = ("predictions", "features")


@dataclass(frozen=True, kw_only=True)
class DeepAttention:
    """Deep linear attention; a description of the model, its parameters are `Params`.

    With one layer, φ = identity and no residual it is the single-layer model of the notes
    with B_h = W_Q W_Kᵀ and V_h = W_V W_O, exactly and for every readout: the output of a layer is
    linear in its queries, so reading the mean (or last) output token is querying with the mean
    (or last) input token. At depth, or with ReLU features, the readout reads outputs.

    Parameters
    ----------
    num_layers : int
        L.
    dim : int
        Channels d of a token, the same in every layer.
    inner_dim : int
        r, columns of W_Q and W_K per head.
    num_outputs : int
        m.
    num_heads : int
        H.
    feature_map : {"identity", "relu"}
        φ, applied to queries and keys; φ'(0) = 0 for ReLU.
    residual : bool
        Whether a layer adds its input.
    readout : {"token", "mean", "last"}
        Which tokens of the last layer are multiplied by W_O.

    Raises
    ------
    ValueError
        If an argument is out of range; the sentence names it.

    Notes
    -----
    Blocks per layer l: ``layer{l}.query`` and ``layer{l}.key`` (H, d, r), ``layer{l}.value``
    (H, d, d); at the end ``readout`` (d, m). Kernel blocks are all query and key blocks.

    Cost of a forward pass: L (4 n H r d + H r d²) + q d m multiply-adds per sequence; a gradient
    costs about three times that.

    Examples
    --------
    >>> model = DeepAttention(num_layers=1, dim=1, inner_dim=1, num_outputs=1)
    >>> params = Params(model.layout, np.array([1.0, 1.0, 3.0, 0.5]))
    >>> model.predict(params, [[[2.0]]]).tolist()  # 2·1 · 1·2 · 2·3 · 0.5
    [[[12.0]]]
    """

    num_layers: int
    dim: int
    inner_dim: int
    num_outputs: int
    num_heads: int = 1
    feature_map: str = "identity"
    residual: bool = False
    readout: str = "token"

    def __post_init__(self) -> None:
        for name in ("num_layers", "dim", "inner_dim", "num_outputs", "num_heads"):
            object.__setattr__(self, name, positive_int(name, getattr(self, name)))
        one_of("feature_map", self.feature_map, FEATURE_MAPS)
        one_of("readout", self.readout, READOUTS)
        if not isinstance(self.residual, (bool, np.bool_)):
            raise ValueError(f"residual must be True or False, got {shown(self.residual)}.")

    @cached_property
    def layout(self) -> Layout:
        """Names and shapes of the parameter blocks."""
        factor = (self.num_heads, self.dim, self.inner_dim)
        shapes = {"query": factor, "key": factor, "value": (self.num_heads, self.dim, self.dim)}
        blocks = [
            (f"layer{layer}.{name}", shape)
            for layer in range(self.num_layers)
            for name, shape in shapes.items()
        ]
        return Layout((*blocks, ("readout", (self.dim, self.num_outputs))))

    def initial_params(self, *, scale: float = 1.0, seed: int = 0) -> Params:
        """Return random starting parameters.

        Entries of W_Q and W_K are N(0, scale/√(r d)), so that E‖W_Q W_Kᵀ‖² = scale²·d, and those
        of W_V and W_O N(0, scale²/d), as in the single-layer `initial_params`. No block starts at
        zero: without residuals everything below a zero value block would have gradient zero.

        Parameters
        ----------
        scale : float
            > 0.
        seed : int
            Every block has its own stream (seed, "initial deep", block number).

        Raises
        ------
        ValueError
            If scale is not positive or seed is negative.
        """
        scale = real("scale", scale, above=0.0)
        seed = positive_int("seed", seed, minimum=0, maximum=None)
        kernel_std = np.sqrt(scale / np.sqrt(self.inner_dim * self.dim))
        parts = []
        for k, (name, shape) in enumerate(self.layout.blocks):
            std = kernel_std if name in self.layout.kernel_blocks else scale / np.sqrt(self.dim)
            parts.append(std * stream(seed, "initial deep", k).normal(size=shape).reshape(-1))
        return Params(self.layout, np.concatenate(parts))

    def check_params(self, params: Params) -> None:
        """Refuse parameters that are not of this model.

        Raises
        ------
        TypeError, ValueError
            If `params` are not `Params` with exactly the blocks of `layout`.
        """
        if not isinstance(params, Params):
            raise TypeError(f"params must be Params, got {type(params).__name__}.")
        if params.layout != self.layout:
            blocks = ", ".join(f"{name} {shape}" for name, shape in self.layout.blocks)
            held = ", ".join(f"{name} {shape}" for name, shape in params.layout.blocks)
            raise ValueError(f"params must have the blocks of the model, {blocks}; got {held}.")

    # ------------------------------------------------------------------ stacked sequences

    def trace(self, flat: Array, tokens: Array, *, gates: BoolArray | None = None) -> Trace:
        """Run the model forward on sequences of one length, without checks.

        Parameters
        ----------
        flat : array, shape (D,), or (P, D)
            Parameters in the order of `layout`; of several models, each on its own sequences.
        tokens : array, shape (S, n, d), or (P, S, n, d)
        gates : array of bool, shape (S, L, 2, n, H, r), or (P, S, L, 2, n, H, r), optional
            Fixed gates of the query ([:, l, 0]) and key ([:, l, 1]) features of every layer.
        """
        weights = tuple(layer_weights(self.layout, flat, k) for k in range(self.num_layers))
        tapes = []
        for number, layer in enumerate(weights):
            tokens, tape = layer_forward(
                layer,
                tokens,
                residual=self.residual,
                relu=self.feature_map == "relu",
                gates=None if gates is None else gates[..., number, :, :, :, :],
            )
            tapes.append(tape)
        features, readout = readout_queries(tokens, self.readout), self.layout.view(flat, "readout")
        predictions = features @ readout[..., None, :, :]
        return Trace(features, predictions, tuple(tapes), weights, readout)

    def pull_back(
        self, trace: Trace, *, predictions: Array | None = None, features: Array | None = None
    ) -> Array:
        """Return Σ_s (∂Ŷ_s/∂w)ᵀ c_s + (∂U_s/∂w)ᵀ b_s, (D,); (P, D) of several models.

        Parameters
        ----------
        trace : Trace
        predictions : array, shape (S, q, m), optional
            c, the gradient of a loss in the predictions.
        features : array, shape (S, q, d), optional
            b, the gradient of a loss in the features.
        """
        out = np.zeros((*trace.readout.shape[:-2], self.layout.size))
        cotangent = features
        if predictions is not None:
            through = predictions @ trace.readout.swapaxes(-1, -2)[..., None, :, :]
            cotangent = through if features is None else features + through
            self.layout.view(out, "readout")[...] = outer(trace.features, predictions)
        if cotangent is None:
            return out
        length = trace.layers[0].tokens.shape[-2]
        cotangent = read_backward(cotangent, self.readout, length)
        for number in reversed(range(self.num_layers)):
            gradient, cotangent = layer_backward(
                trace.weights[number],
                trace.layers[number],
                cotangent,
                residual=self.residual,
                to_tokens=number > 0,
            )
            store_gradient(self.layout, out, number, gradient)
        return out

    def open_gates(self, trace: Trace) -> BoolArray:
        """Return the gates of a forward pass, (S, L, 2, n, H, r); ReLU features only."""
        self._check_gated()
        pairs = [(np.asarray(t.query_gate), np.asarray(t.key_gate)) for t in trace.layers]
        held = np.stack([np.stack(pair, axis=1) for pair in pairs], axis=1)
        return held.reshape(*held.shape[:-1], self.num_heads, self.inner_dim)

    # ------------------------------------------------------------------ any sequences

    def predict(self, params: Params, tokens: Tokens, *, gates: Any = None) -> Array | list[Array]:
        """Return the predictions Ŷ.

        Parameters
        ----------
        params : Params
        tokens : array, shape (S, n, d), or list of arrays (n_s, d)
        gates : array of bool or list, optional
            Fixed gates as `gates` returns them for these tokens.

        Returns
        -------
        array, shape (S, q, m), or list of arrays (n_s, m)
            A list only for ragged sequences under the token readout; q = 1 for mean and last.

        Raises
        ------
        TypeError, ValueError
            If the parameters are not of this model, the tokens are not finite float64 of width d,
            or the gates do not fit.
        """
        traces = self._traces(params, tokens, gates)
        return scatter((index, trace.predictions) for index, trace in traces)

    def features(self, params: Params, tokens: Tokens, *, gates: Any = None) -> Array | list[Array]:
        """Return the features U that W_O reads, (S, q, d) or a list; see `predict`."""
        traces = self._traces(params, tokens, gates)
        return scatter((index, trace.features) for index, trace in traces)

    def gates(self, structural: Params, tokens: Tokens) -> AnyArray | list[AnyArray]:
        """Return the gates 1[X_l W_Q > 0] and 1[X_l W_K > 0] of every layer.

        The structural parameters run their own forward pass, with their own residual stream, so the
        gates do not depend on the parameters that are trained under them.

        Parameters
        ----------
        structural : Params
        tokens : array, shape (S, n, d), or list of arrays (n_s, d)

        Returns
        -------
        array of bool, shape (S, L, 2, n, H, r), or list of arrays (L, 2, n_s, H, r) if ragged
            Index 0 of the axis of length 2 are the queries, 1 the keys.

        Raises
        ------
        ValueError
            If φ is the identity, which has no gates.
        """
        self._check_gated()
        traces = self._traces(structural, tokens, None)
        return scatter((index, self.open_gates(trace)) for index, trace in traces)

    def backward(
        self,
        params: Params,
        tokens: Tokens,
        cotangent: Any,
        *,
        of: str = "predictions",
        gates: Any = None,
    ) -> Params:
        """Return the vector–Jacobian product Σ_s (∂O_s/∂w)ᵀ c_s with O = Ŷ or U.

        Parameters
        ----------
        params : Params
        tokens : array, shape (S, n, d), or list of arrays (n_s, d)
        cotangent : array or list, shaped like the output
            c, the gradient of any loss in the output.
        of : {"predictions", "features"}
        gates : array of bool or list, optional
            Fixed gates; the gates themselves have derivative zero.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the sentence names it.
        """
        one_of("of", of, OUTPUTS)
        sequences = self.check_tokens("tokens", tokens)
        width = self.num_outputs if of == "predictions" else self.dim
        lengths = [len(x) if self.readout == "token" else 1 for x in sequences]
        rows = check_rows("cotangent", cotangent, [(q, width) for q in lengths])
        total = np.zeros(self.layout.size)
        for index, trace in self._traces(params, sequences, gates):
            with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
                total += self.pull_back(trace, **{of: np.stack([rows[s] for s in index])})
        return Params(self.layout, total)

    def loss(self, params: Params, tokens: Tokens, targets: Any, *, gates: Any = None) -> float:
        """Return the mean over sequences of (1/2q)‖Ŷ − Y‖², without ridges; see `la.loss`."""
        return mean_loss(self.predict(params, tokens, gates=gates), targets)

    def accuracy(self, params: Params, tokens: Tokens, labels: Any, *, gates: Any = None) -> float:
        """Return the share of queries whose largest output is right; see `la.accuracy`."""
        return share_right(self.predict(params, tokens, gates=gates), labels)

    def check_tokens(self, name: str, tokens: Any) -> list[Array]:
        """Return sequences as a list of (n_s, d) arrays.

        Raises
        ------
        TypeError, ValueError
            If they are not finite float64 of the model's width.
        """
        sequences = check_tokens(name, tokens)
        width = sequences[0].shape[1]
        if width != self.dim:
            raise ValueError(f"{name} must have {self.dim} channels like the model, got {width}.")
        return sequences

    def _check_gated(self) -> None:
        if self.feature_map != "relu":
            raise ValueError(
                f"gates need a model with feature_map='relu', got {self.feature_map!r}."
            )

    def _traces(
        self, params: Params, tokens: Tokens, gates: Any
    ) -> Iterator[tuple[AnyArray, Trace]]:
        """Forward passes over sequences of equal length, each with the sequence numbers."""
        self.check_params(params)
        sequences = self.check_tokens("tokens", tokens)
        held = None
        if gates is not None:
            self._check_gated()
            ends = (self.num_heads, self.inner_dim)
            shapes = [(self.num_layers, 2, len(x), *ends) for x in sequences]
            held = check_rows("gates", gates, shapes, kind=bool)
        for index in by_length([len(x) for x in sequences]):
            stacked = np.stack([sequences[s] for s in index])
            fixed = None if held is None else np.stack([held[s] for s in index])
            with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
                trace = self.trace(params.flat, stacked, gates=fixed)
            yield index, trace
