"""The kernels that are compiled ahead are those of the programs, each once."""

from newtriton.runtime.checking import kernels
from newtriton.runtime.fused.compiling import distinct

from .small import small


def test_every_kernel_of_a_vgg_is_a_job_once():
    jobs = list(kernels.jobs(["vgg11"], ["tf32"]))
    different = distinct(jobs)
    assert 40 < len(different) < len(jobs)
    assert {j.kind for j in jobs} == {"contraction", "outer", "pointwise"}


def test_the_same_network_gives_the_same_code():
    def sources() -> list[str]:
        return [plan.source for plan in kernels.program_plans(small(), "tf32", 7)]

    kept = [sources() for _ in range(4)]  # nodes lie elsewhere in memory each time
    assert all(again == kept[0] for again in kept)
