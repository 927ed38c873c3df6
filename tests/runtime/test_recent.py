"""What was used last is kept, whoever asks at the same time."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

from newtriton.runtime.recent import Recent


def test_what_was_used_last_is_kept():
    kept, made = Recent[int, int](3), []
    for key in (1, 2, 3, 1, 4, 2, 1):
        assert kept.made(key, lambda key=key: made.append(key) or 10 * key) == 10 * key
    assert made == [1, 2, 3, 4, 2]
    assert [*kept] == [4, 2, 1]


def test_threads_get_what_they_ask_for():
    kept = Recent[int, int](4)

    def ask(seed: int) -> bool:
        keys = [Random(seed + n).randrange(8) for n in range(500)]
        return all(kept.made(key, lambda key=key: 10 * key) == 10 * key for key in keys)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert len(kept) == 4
