"""What strengthens a memory: graded use, not being found. Run it against `make run`."""

import os

from ndml.client import DEFAULT_ADDRESS, Feedback, NdmlClient

with NdmlClient(os.environ.get("NDML_ADDRESS", DEFAULT_ADDRESS), user="bea") as memory:
    memory.add("Bea is allergic to walnuts.", speaker="Bea", protected=True)
    again = memory.add("Bea is allergic to walnuts.", speaker="Bea", deduplicate=True)
    print("said again:", again.gate.decision if again.gate else "not gated", "- stored once" if again.deduplicated else "- stored twice")
    memory.add("Bea likes marzipan.", speaker="Bea")

    used, *others = memory.search("What must Bea not eat?", k=2)
    done = memory.reinforce([Feedback(used.memory.trace_id, 1.0), *(Feedback(hit.memory.trace_id, -0.2) for hit in others)])
    print(len(done.results), "graded,", done.credited, "neighbours got credit")

    found = memory.get(used.memory.trace_id, include_strength=True, include_history=True)
    print(found.text, "- strength", round(found.strength.strength, 3) if found.strength else "unknown")
    print(*(f"  {event.kind}: {event.why}" for event in found.history), sep="\n")

    with memory.consolidate(dry_run=True) as progress:
        for step in progress:
            print(f"clusters {step.clusters_done} of {step.clusters_total}, {step.merged} would be merged")
