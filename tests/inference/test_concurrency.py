"""Several tiles at once: the same results in the same order, and an early end."""

from __future__ import annotations

import threading

import pytest
import torch

from restore_cli.inference.concurrency import map_ordered


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_order_from_threads_that_share_the_cores(two_threads, count):
    both_run = threading.Barrier(count, timeout=30)

    def work(item):
        both_run.wait()
        return item, torch.get_num_threads()

    assert list(map_ordered(work, range(6), count)) == [(n, 2 // count) for n in range(6)]
    assert torch.get_num_threads() == 2


def test_other_threads_keep_the_number_of_threads(two_threads):
    numbers, results = [], map_ordered(lambda item: item, range(9), 2)
    next(results)
    other = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    other.start()
    other.join()
    torch.set_num_threads(1)  # as a callback may
    results.close()
    assert numbers == [2]
    assert torch.get_num_threads() == 1


def test_an_error_is_raised_in_its_items_place(two_threads):
    results = map_ordered(lambda item: 1 / item, [2, 1, 0, 4], 2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_ends_networks_within_a_layer(two_threads):
    running, closed, reached = threading.Event(), threading.Event(), []

    class First(torch.nn.Module):
        def forward(self, x):
            running.set()
            closed.wait(30)
            return x

    class Second(torch.nn.Module):
        def forward(self, x):
            reached.append(x)
            return x

    network = torch.nn.Sequential(First(), Second())

    def work(item):
        return item if item == 0 else network(item)

    results = map_ordered(work, range(9), 2)
    assert next(results) == 0
    assert running.wait(30)
    threading.Timer(0.2, closed.set).start()  # `close` waits for the layer, and asks before
    results.close()
    assert reached == []
