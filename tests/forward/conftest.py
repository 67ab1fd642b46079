"""One PyTorch thread for these tests: tiny grids gain nothing from more, and threads of several
test processes that wait for each other at every time step are a hundred times slower."""

import sys

import pytest


@pytest.fixture(autouse=True)
def one_torch_thread():
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
