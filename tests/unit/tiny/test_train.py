"""The network and its training, on a toy size."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from ndml.tiny.network import build, forward
from ndml.tiny.optimizer import Muon, even_out
from ndml.tiny.publish import publish
from ndml.tiny.tokens import word_pieces
from ndml.tiny.train import Options, Run, open_run, train

TOY = Options(tokens=60_000, batch=600, pool=24, hidden=32, layers=3, heads=2, inner=64, vocabulary=700, easy=1000, warm=5, save_s=1e9)


def test_the_fast_pass_has_the_logits_of_transformers(tokenizer: Tokenizer) -> None:
    run = Run(TOY, tokenizer)
    batch = next(run.batches())
    ids, rows = torch.from_numpy(batch.ids), torch.from_numpy(batch.rows)
    with torch.no_grad():
        logits, look = forward(run.model, run.size, ids, rows, torch.arange(1, 9))
        whole = run.model(input_ids=ids).logits
    expected = torch.gather(whole, 1, rows[..., None].expand(-1, -1, whole.shape[-1]))
    assert torch.allclose(logits, expected, atol=1e-4)
    for looks in (look.before, look.number, look.source, look.copy):
        assert torch.allclose(looks.exp().sum(-1), torch.ones(looks.shape[:-1]), atol=1e-4)
    assert look.copy.shape == (ids.shape[0], TOY.heads, rows.shape[1], ids.shape[1])


def test_the_pieces_of_a_vocabulary_are_words_begun_and_gone_on_with(tokenizer: Tokenizer) -> None:
    begins, follows = word_pieces(tokenizer)
    assert len(begins) > 100 and len(follows) > 100
    assert all(tokenizer.encode(f" {piece}", add_special_tokens=False).tokens == ["\u0120" + piece] for piece in begins)
    assert all(piece.islower() and tokenizer.token_to_id(piece) is not None for piece in follows)


def test_training_lowers_the_loss(tokenizer: Tokenizer) -> None:
    run = Run(TOY, tokenizer)
    losses = [run.step(batch)["loss"] for batch in islice(run.batches(), 60)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_killed_run_goes_on_bitwise(tokenizer: Tokenizer, tmp_path: Path) -> None:
    whole = Run(TOY, tokenizer)
    for batch in islice(whole.batches(), 7):
        whole.step(batch)
    killed = Run(TOY, tokenizer)
    for batch in islice(killed.batches(), 4):
        killed.step(batch)
    killed.save(tmp_path / "state.pt")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "state.new").write_bytes(b"half of a checkpoint")
    again = open_run(TOY, tmp_path)
    for batch in islice(again.batches(), 3):
        again.step(batch)
    assert again.progress == whole.progress
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_checkpoint_of_another_size_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    Run(TOY, tokenizer).save(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="hidden 32"):
        Run(replace(TOY, hidden=64), tokenizer).load(tmp_path / "state.pt")


def test_a_run_begins_with_published_weights_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    published, work = tmp_path / "weights", tmp_path / "work"
    first = Run(TOY, tokenizer)
    first.step(next(first.batches()))
    publish(first, published)
    run = open_run(replace(TOY, seed=2), work, published)
    assert (run.progress.steps, run.tokenizer.to_str()) == (0, tokenizer.to_str())
    for name, value in first.model.state_dict().items():
        assert torch.equal(value.half().float(), run.model.state_dict()[name]), name
    run.step(next(run.batches()))
    run.save(work / "state.pt")
    assert open_run(replace(TOY, seed=2), work, published).progress.steps == 1  # goes on, and not from the beginning again
    with pytest.raises(ValueError, match="start from nothing"):
        open_run(replace(TOY, hidden=64), tmp_path / "other", published)


def test_a_run_ends_saves_and_publishes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    options = replace(TOY, tokens=3000)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    train(open_run(options, tmp_path), tmp_path, every=2)
    done = open_run(options, tmp_path)
    assert done.progress.tokens >= 3000
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == done.progress.steps // 2
    publish(done, tmp_path / "weights")
    assert {"model.safetensors", "tokenizer.json", "config.json", "generation_config.json", "training.json"} <= {
        file.name for file in (tmp_path / "weights").iterdir()
    }


def test_a_run_that_goes_on_logs_means_of_the_steps_it_made(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    run = open_run(replace(TOY, tokens=3000), tmp_path)
    run.step(next(run.batches()))
    step = run.step
    monkeypatch.setattr(run, "step", lambda batch: dict.fromkeys(step(batch), 3.0))
    train(run, tmp_path, every=3)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [3.0] * len(rows) and rows[0]["steps"] == 3


def test_muon_evens_out_the_lengths_of_directions() -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 40), (2, 40, 16)):
        lengths = torch.linalg.svdvals(even_out(torch.randn(shape)))
        assert lengths.min() > 0.5 and lengths.max() < 1.4


def test_muon_finds_a_minimum_and_refuses_what_the_loss_ignores() -> None:
    torch.manual_seed(0)
    goal, matrix = torch.randn(8, 12), torch.zeros(8, 12, requires_grad=True)
    optimizer = Muon([matrix], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        ((matrix - goal) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (matrix - goal).abs().max() < 0.3
    matrix.grad = None
    with pytest.raises(ValueError, match="no gradient"):
        optimizer.step()


def test_a_fresh_last_block_copies(tokenizer: Tokenizer) -> None:
    model = build(Run(TOY, tokenizer).size, 1, 5, 0)
    last = model.model.layers[-1].self_attn
    through = last.o_proj.weight @ last.v_proj.weight
    off = through - torch.diag(through.diagonal())
    assert through.diagonal().min() > 5 * off.abs().mean()
