"""Small problems only: threads would cost more than they give. Kernels run interpreted."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: no GPU here

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory):
    """Generated modules go to a folder of the test run."""
    os.environ["NEWTRITON_CACHE"] = str(tmp_path_factory.mktemp("cache"))
