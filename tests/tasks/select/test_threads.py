"""Products on one thread while anyone compares, and what was set before afterwards."""

import numpy as np
import pytest

from tasks.select import threads


def test_the_last_one_out_restores_what_was_set():
    np.ones((2, 2)) @ np.ones((2, 2))
    libraries = threads._libraries()
    assert libraries, "numpy brings a BLAS"
    for library in libraries:
        library.set_num_threads(2)
    before = [library.num_threads for library in libraries]
    first, second = threads.one_thread(), threads.one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert {library.num_threads for library in libraries} == {1}, "the second is still at it"
    second.__exit__(None, None, None)
    assert [library.num_threads for library in libraries] == before
    with pytest.raises(ValueError, match="inside"), threads.one_thread():
        raise ValueError("inside")
    assert [library.num_threads for library in libraries] == before
