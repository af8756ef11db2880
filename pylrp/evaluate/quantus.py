"""pylrp for Quantus: an ``explain_func`` for its metrics, and a network that it takes for a model of its own.

Quantus (Hedström et al. 2023) calls ``explain_func(model=, inputs=, targets=, **kwargs)`` with a torch module. The
module is loaded once and kept; as metrics that randomise weights change a module in place, it is known by its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from pylrp.evaluate.evaluated_batch import Array
from pylrp.network.network import Network
from pylrp.rules.composites import either

__all__ = ["quantus_explain", "quantus_model"]


def quantus_explain(
    composite: Any = None,
    *,
    rules: Any = None,
    network: Network | None = None,
    sum_channels: bool = False,
    **settings: Any,
) -> Callable[..., Array]:
    """Return a function that Quantus takes as ``explain_func``.

    Parameters
    ----------
    composite : str, Composite, Rule or sequence of Rule, optional
        Default: that of :meth:`pylrp.Network.explain`.
    rules : optional
        Another name for ``composite``.
    network : Network, optional
        The network to explain. Default: what Quantus passes, a torch module, is loaded (torch and onnx are needed),
        and loaded again whenever its weights have changed.
    sum_channels : bool, default False
        Return one value a pixel, ``(batch, 1, height, width)``, as Quantus's own functions do by default.
    **settings
        Further arguments of :meth:`pylrp.Network.explain`, such as ``start`` or ``convention``.

    Returns
    -------
    callable
        ``explain(model, inputs, targets, **kwargs)``; what Quantus passes as ``explain_func_kwargs`` wins over
        ``settings``, its ``device`` is ignored.

    Raises
    ------
    ValueError
        In the call: if ``network`` was given and the model's weights have changed since the first call; such a metric
        asks for explanations of the changed model.

    Examples
    --------
    >>> import quantus  # doctest: +SKIP
    >>> metric = quantus.PixelFlipping(features_in_step=28, perturb_baseline="black")  # doctest: +SKIP
    >>> metric(model, x, y, explain_func=pylrp.evaluate.quantus_explain("epsilon"))  # doctest: +SKIP
    """
    composite = either(composite, rules)
    kept: dict[tuple[object, ...], Network] = {}

    def explain(model: Any, inputs: Any, targets: Any, **kwargs: Any) -> Array:
        asked = {**settings, **kwargs}
        asked.pop("device", None)
        given = np.asarray(inputs)
        net = _network_of(model, network, given, kept)
        x = given.astype(net.dtype, copy=False).reshape(-1, *_sample_shape(net))
        labels = np.asarray(targets).reshape(-1).astype(np.int64)
        relevance = np.asarray(net.explain(x, labels, composite, **asked).relevance).reshape(given.shape)
        return relevance.sum(axis=1, keepdims=True) if sum_channels else relevance

    return explain


def quantus_model(net: Network) -> Any:
    """Return a network as the torch module that Quantus asks for; predictions and explanations are pylrp's.

    For networks that never were in torch. It has no weights that torch could see: metrics that randomise them need the
    module itself.

    Parameters
    ----------
    net : Network
        With one input and one output.

    Returns
    -------
    torch.nn.Module
        Takes and returns tensors; :func:`quantus_explain` knows it.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("Quantus takes torch modules: pip install torch onnx") from error

    class PylrpModule(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.pylrp_network = net

        def forward(self, x: Any) -> Any:
            rows = np.asarray(x.detach().cpu().numpy(), net.dtype).reshape(-1, *_sample_shape(net))
            return torch.from_numpy(net.forward(rows))

    return PylrpModule().eval()


def _sample_shape(net: Network) -> tuple[int, ...]:
    return net.graph.user_shape(next(iter(net.graph.inputs)))


def _network_of(model: Any, network: Network | None, given: Array, kept: dict[tuple[object, ...], Network]) -> Network:
    """Return the network to explain; ``kept`` has the one of the last call by its weights and the input's shape."""
    if isinstance(model, Network):
        return model
    if hasattr(model, "pylrp_network"):
        own: Network = model.pylrp_network
        return own
    if not hasattr(model, "state_dict"):
        if network is None:
            raise TypeError(f"the model is a {type(model).__name__}: pass network=, the same network as pylrp has it")
        return network
    key = (_fingerprint(model), *(given.shape[1:] if network is None else ()))
    if key not in kept:
        if network is not None and kept:
            raise ValueError("the model's weights have changed since the first call: leave network= out")
        kept.clear()  # a cascade of random models needs the last one only
        kept[key] = _loaded(model, given) if network is None else network
    return kept[key]


def _loaded(model: Any, given: Array) -> Network:
    import torch

    from pylrp.loaders import load

    parameters = [p.dtype for p in model.parameters()]
    return load(model, torch.zeros((1, *given.shape[1:]), dtype=parameters[0] if parameters else torch.float32))


def _fingerprint(model: Any) -> str:
    """Return a hash of all weights: changes in place leave the object, and even its version counters, as they were."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().numpy().tobytes())
    return found.hexdigest()
