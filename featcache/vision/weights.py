"""Weights: files of tensors, read without running anything in them."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from featcache.core.errors import WeightsError
from featcache.core.seeds import generator
from featcache.core.text import shown

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "backbone.")
_HEAD = "fc."
_UNUSED = "num_batches_tracked"  # of BatchNorm; has no part in evaluation

State = dict[str, Tensor]


def read_weights(path: Path) -> State:
    """Read a file of weights.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or anything ``torch.save`` wrote that holds only tensors.

    Returns
    -------
    dict of str to tensor
        The state dict, unwrapped, without prefixes of wrappers, on the CPU.

    Raises
    ------
    WeightsError
        When the file is missing, broken, holds code, or holds no state dict.
    """
    if not path.is_file():
        raise WeightsError(
            f"no weights file {shown(path)}; expected a .pth or .safetensors file, "
            "'imagenet', 'random', or a name such as IMAGENET1K_V2"
        )
    loaded = _load_safetensors(path) if _is_safetensors(path) else _load_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(
            f"{shown(path)} holds a {type(loaded).__name__}, expected a state dict; "
            "save it with torch.save(model.state_dict(), FILE)"
        )
    return {_plain_name(str(name)): tensor for name, tensor in loaded.items()}


def backbone_state(
    state: Mapping[str, object], network: nn.Module, source: str
) -> State:
    """Return the tensors of a network's backbone, checked one by one.

    Parameters
    ----------
    state : mapping of str to object
        A state dict; classifier tensors (``fc.*``) are left out.
    network : torch.nn.Module
        The torchvision network, for names and shapes.
    source : str
        Start of the error message, such as ``'w.pth is no resnet50'``.

    Returns
    -------
    dict of str to tensor of float32
        In the network's order.

    Raises
    ------
    WeightsError
        Naming the first tensor that is missing, has another shape, is left over, or
        is not finite.
    """
    expected = {k: v.shape for k, v in network.state_dict().items() if _counts(k)}
    result: State = {}
    for name, shape in expected.items():
        tensor = state.get(name)
        if not isinstance(tensor, Tensor):
            raise WeightsError(f"{source}: it has no {name} ({_size(shape)})")
        if tensor.shape != shape:
            raise WeightsError(
                f"{source}: {name} has shape {_size(tensor.shape)}, "
                f"expected {_size(shape)}"
            )
        result[name] = tensor.detach().to("cpu", torch.float32).contiguous()
        if not bool(result[name].isfinite().all()):
            raise WeightsError(f"{source}: {name} holds values that are not finite")
    left_over = [k for k in state if _counts(k) and k not in expected]
    if left_over:
        raise WeightsError(f"{source}: it has a {left_over[0]} too many")
    return result


def random_state(network: nn.Module, seed: int) -> State:
    """Return randomly initialised weights of a backbone.

    Parameters
    ----------
    network : torch.nn.Module
        The torchvision network, for names and shapes.
    seed : int
        Equal seeds give equal weights with every version of torch.

    Returns
    -------
    dict of str to tensor of float32
        Convolutions normal with variance ``2 / fan_out`` (He et al. 2015, as
        torchvision's ResNet), BatchNorm the identity.
    """
    result: State = {}
    expected = {k: v.shape for k, v in network.state_dict().items() if _counts(k)}
    for index, (name, shape) in enumerate(expected.items()):
        if len(shape) == 4:
            deviation = math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
            draw = generator(seed, "backbone", index).standard_normal(
                tuple(shape), dtype="float32"
            )
            result[name] = torch.from_numpy(draw * draw.dtype.type(deviation))
        else:
            ones = name.endswith((".weight", "running_var"))
            result[name] = torch.ones(shape) if ones else torch.zeros(shape)
    return result


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the identity of weights: one sha256 over names, shapes and values.

    Parameters
    ----------
    state : mapping of str to tensor of float32
        The tensors of a backbone.

    Returns
    -------
    str
        64 hex digits, whatever file the tensors came in.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {list(state[name].shape)}\n".encode())
        digest.update(state[name].contiguous().numpy().data)
    return digest.hexdigest()


def packed(state: Mapping[str, Tensor]) -> bytes:
    """Return weights as the bytes of a safetensors file.

    Parameters
    ----------
    state : mapping of str to tensor of float32
        The tensors of a backbone.

    Returns
    -------
    bytes
        For another process, on whatever machine.
    """
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in state.items()})


def unpacked(data: bytes) -> State:
    """Return the weights that `packed` made bytes of.

    Parameters
    ----------
    data : bytes
        From a process of ours; `state_sha256` of them is compared afterwards.

    Returns
    -------
    dict of str to tensor of float32
        Equal tensors.
    """
    from safetensors.torch import load

    return load(data)


def _counts(name: str) -> bool:
    return not name.startswith(_HEAD) and not name.endswith(_UNUSED)


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _plain_name(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _is_safetensors(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _load_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{shown(path)} is no safetensors file: {error}") from None


def _load_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) and "global" in str(error).lower():
            raise WeightsError(
                f"{shown(path)} is refused: it is a pickle that runs code when loaded; "
                "expected tensors only, as torch.save(model.state_dict(), FILE) writes"
            ) from None
        first = str(error).strip().split("\n", 1)[0]
        if "weights_only" in first:  # torch's advice is to run whatever is in there
            first = "torch.save did not write it"
        raise WeightsError(
            f"{shown(path)} is not a weights file, or is truncated: {first}"
        ) from None
