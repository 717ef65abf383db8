"""ndml models: language models on this machine, and bringing one here from the Hugging Face hub."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from ndml import tiny
from ndml.cli.output import table
from ndml.cli.session import Session
from ndml.errors import FieldInvalid, ModelUnavailable, NotAvailable

models = typer.Typer(help="Language models on this machine: list what is here, download from the hub.", no_args_is_help=True)
# Weights once, in the format that runs no code when it is read; everything else a model needs is small.
_LEFT_OUT = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "onnx/*", "openvino/*", "original/*")
_GIB = 1 << 30


def register(app: typer.Typer) -> None:
    models.command("list")(local)
    models.command("download")(download)
    app.add_typer(models, name="models")


def local(context: typer.Context) -> None:
    """The models that need no network: the boxed one, and the hub's cache."""
    session: Session = context.obj
    found = [*_boxed(), *_cached(_hub())]
    rows = [(model["model"], f"{model['bytes'] / _GIB:.2f} GiB", model["path"]) for model in found]
    session.output.result({"models": found}, table("=model", ">size", "path", rows=rows))


def download(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Hub id, for example Qwen/Qwen3-0.6B.", metavar="OWNER/NAME")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    to: Annotated[Path | None, typer.Option(help="Folder for the files; the hub's cache if not given.")] = None,
    all_files: Annotated[bool, typer.Option("--all-files", help="Other formats of the weights too, not safetensors alone.")] = False,
) -> None:
    """Bring a model here, with what is here already not fetched again; then name it as `chat.model`, or to `ndml train`."""
    session: Session = context.obj
    hub = _hub()
    try:
        path = hub.snapshot_download(
            model, revision=revision, local_dir=to, ignore_patterns=None if all_files else list(_LEFT_OUT), tqdm_class=None
        )
    except (hub.errors.HFValidationError, hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        raise FieldInvalid(f"the hub has no model {model!r} at {revision!r}, or not for you: {_first(error)}", field="model") from error
    except (hub.errors.LocalEntryNotFoundError, hub.errors.OfflineModeIsEnabled, hub.errors.HfHubHTTPError, OSError, *_broken()) as error:
        raise ModelUnavailable(_unreachable(model, error)) from error
    weights = list(Path(path).rglob("*.safetensors"))
    if not weights and not all_files:
        raise ModelUnavailable(f"{model} has no safetensors weights: take one that has, or all of its files with --all-files")
    session.output.result({"model": model, "path": str(path)}, f"{model} is in {path}")


def _unreachable(model: str, error: Exception) -> str:
    here = ", ".join(found["model"] for found in [*_boxed(), *_cached(_hub())]) or "none"
    return (
        f"{model} cannot be fetched: {_first(error)} -- see that this machine reaches the hub (HF_ENDPOINT names a mirror, "
        f"HF_HUB_OFFLINE=1 forbids it), or copy the model's folder here and name its path. Here already: {here}"
    )


def _broken() -> tuple[type[Exception], ...]:
    """What a connection raises that breaks off, after the hub's own attempts. Its HTTP client has had two names."""
    names = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
    return tuple(importlib.import_module(name).HTTPError for name in names)


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


def _hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise NotAvailable("huggingface_hub is not installed: pip install 'ndml[train]' or 'ndml[llm]'") from error
    return huggingface_hub


def _boxed() -> list[dict[str, Any]]:
    path = tiny.path()
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else []
    return [{"model": tiny.NAME, "bytes": sum(file.stat().st_size for file in files), "path": str(path)}] if files else []


def _cached(hub: ModuleType) -> list[dict[str, Any]]:
    try:
        cache = hub.scan_cache_dir()
    except hub.errors.CacheNotFound:
        return []
    repos = (repo for repo in cache.repos if repo.repo_type == "model")
    return [{"model": r.repo_id, "bytes": r.size_on_disk, "path": str(r.repo_path)} for r in sorted(repos, key=lambda r: r.repo_id)]
