"""kNN-LM as it is served: what its settings change."""

from __future__ import annotations

from ndml.fusion.knn import KnnOptions
from services.llm.ports import Finish, Sampling
from tests.unit.llm.test_generator import CAT, asked, collect, local, serving


async def test_settings_say_how_much_neighbours_decide() -> None:
    async def said(**options: object) -> tuple[str, Finish]:
        async with serving(local("Llama", **options)) as generator:
            return await collect(generator, asked(Sampling(6), memory=CAT, fusion="knn"))

    async with serving(local("Llama")) as generator:
        alone, _ = await collect(generator, asked(Sampling(6)))
    assert (await said(knn_share=0))[0] == alone == (await said(knn_share=1, knn_reach=1e-9))[0]
    text, finish = await said(knn_share=1, knn_reach=100)
    assert text != alone and finish.read and set(text) <= set("my cat is called Misothe notebook is red")
    store = local("Llama", knn_neighbours=3, knn_temperature=0.001).prepare(asked(memory=CAT, fusion="knn")).plan.store
    assert store is not None and store.options == KnnOptions(share=0.25, neighbours=3, temperature=0.001, reach=1.0)
