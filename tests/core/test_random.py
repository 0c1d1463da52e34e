"""core.random: counter-based noise is uniform, independent between elements, steps and streams, and the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from thalweg.core.random import LANES, PART, fold, hash_noise, lanes, mix, mix_int, normal, normal_from, normals, rademacher, salt, words

ROWS = 1024
SEEDS = (12345, -7, 0, 1, 2**31 - 1, -(2**31))


def unit(words: torch.Tensor) -> np.ndarray:
    """The words' top 24 bits as numbers in (0, 1)."""
    return ((((words >> 8) & 0xFFFFFF).double() + 0.5) * 2.0**-24).flatten().numpy()


def noise(seed: int, rows: int = ROWS, first: int = 0) -> torch.Tensor:
    return hash_noise(torch.empty(rows, LANES), seed, first)


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_uniform(seed: int) -> None:
    u = unit(noise(seed))
    # 262,144 numbers: a deviation of the distribution function by 0.0053 would be found in 99.9 % of seeds; so is a mean that is off by 0.0028.
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)
    assert stats.chisquare(np.bincount((u * 4096).astype(int), minlength=4096)).pvalue > 1e-4


def test_each_bit_used_for_rounding_is_fair() -> None:
    words = noise(99)
    for bit in range(7, 32):
        ones = ((words >> bit) & 1).double().mean().item()
        assert abs(ones - 0.5) < 5 * 0.5 / words.numel() ** 0.5, bit


@pytest.mark.parametrize("shift", [1, 2, 3, 8, 16, 100, 128, 255])
def test_elements_of_a_row_are_uncorrelated(shift: int) -> None:
    u = unit(noise(4242, rows=16 * ROWS)).reshape(-1, LANES) - 0.5
    # Pairs are independent over rows, not within one, so the sample is the rows' mean products. A correlation of 0.029 is found in 99.9 % of seeds.
    r = 12 * (u[:, shift:] * u[:, : LANES - shift]).mean(1)
    assert abs(r.mean()) < 5 * r.std() / np.sqrt(r.size)
    assert r.std() / np.sqrt(r.size) < 0.009


@pytest.mark.parametrize("shift", [1, 2, 3, 4, 64, 256, 512])
def test_rows_are_uncorrelated(shift: int) -> None:
    u = unit(noise(4242)).reshape(ROWS, LANES) - 0.5
    for other in (u[shift:], np.roll(u, 1, 1)[shift:]):
        r = 12 * (other * u[:-shift]).mean()
        assert abs(r) < 5 / np.sqrt(other.size)


def test_neighbouring_pairs_fill_the_square_evenly() -> None:
    u = unit(noise(5)).reshape(ROWS, LANES)
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):
        cell = (a * 32).astype(int) * 32 + (b * 32).astype(int)
        counts = np.bincount(cell.flatten(), minlength=1024)
        # 255 expected in each cell. Pairs of one row share their difference, so counts spread more than Poisson (1); one difference for all rows: 30.
        assert counts.var() / counts.mean() < 12


@pytest.mark.parametrize(("first", "second"), [(1000, 1001), (0, 1), (5, -5), (7, 7 + 2**16)])
def test_steps_and_streams_are_uncorrelated(first: int, second: int) -> None:
    u, v = (unit(noise(fold(3, seed))) - 0.5 for seed in (first, second))
    for shift in (0, 1, 256):
        r = 12 * (u[shift:] * v[: u.size - shift]).mean()
        assert abs(r) < 5 / np.sqrt(u.size - shift)


def test_one_element_over_steps_is_uniform_and_uncorrelated() -> None:
    x = torch.empty(1, LANES)
    u = np.stack([unit(hash_noise(x, fold(17, step))) for step in range(4000)])[:, [0, 1, 77, 255]]
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
        assert abs(12 * ((column[1:] - 0.5) * (column[:-1] - 0.5)).mean()) < 5 / np.sqrt(column.size)


def test_layouts_and_slices_give_the_same_words() -> None:
    whole = noise(11)
    flat = hash_noise(torch.empty(ROWS * LANES), 11)
    assert torch.equal(whole.flatten(), flat)
    assert torch.equal(hash_noise(torch.empty(100, 4, 64), 11), whole[:100].view(100, 4, 64))
    assert torch.equal(noise(11, 3, first=5 * LANES), whole[5:8])
    assert torch.equal(hash_noise(torch.empty(77), 11, 333), flat[333:410])
    assert torch.equal(hash_noise(torch.empty(77), torch.tensor(11, dtype=torch.int32), torch.tensor(333, dtype=torch.int32)), flat[333:410])


def test_rows_of_ones_own_get_the_words_that_hash_noise_gives() -> None:
    row = torch.arange(3, 9, dtype=torch.int32).unsqueeze(1)
    assert torch.equal(words(row, lanes(torch.device("cpu")), 11), noise(11, 6, first=3 * LANES))


def test_keys_of_tensors_lie_apart() -> None:
    keys = np.sort(np.array([salt(i) for i in range(200)]))
    assert np.diff(keys).min() > 1000


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # raised within torch's own compiler
def test_compiled_words_equal_eager_words() -> None:
    compiled = torch.compile(lambda x, seed, first: hash_noise(x, seed, first) + 0, dynamic=True, fullgraph=True)
    for seed in (12345, -98765):
        word, first = torch.tensor(seed, dtype=torch.int32), torch.tensor(512, dtype=torch.int32)
        for x in (torch.empty(5, LANES), torch.empty(1, LANES), torch.empty(1003), torch.empty(3, 7, 11)):
            assert torch.equal(compiled(x, word, first), hash_noise(x, seed, 512))


def test_no_global_state_is_used() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    noise(3)
    rademacher(torch.empty(5), torch.Generator().manual_seed(1))
    normal(torch.empty(5), torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())


def test_mix_on_host_and_device_agree_and_mix_is_a_bijection() -> None:
    words = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31), 123456789], dtype=torch.int32)
    assert mix(words).tolist() == [mix_int(int(w)) for w in words]
    low = torch.arange(2**20, dtype=torch.int32) - 2**19
    assert mix(low).unique().numel() == low.numel()


def test_mix_avalanche() -> None:
    x = torch.randint(-(2**31), 2**31, (20_000,), dtype=torch.int64, generator=torch.Generator().manual_seed(0)).to(torch.int32)
    for bit in range(32):
        mask = torch.tensor(1 << bit if bit < 31 else -(2**31), dtype=torch.int32)
        change = mix(x) ^ mix(x ^ mask)
        rates = torch.stack([((change >> out) & 1).double().mean() for out in range(32)])
        assert (rates - 0.5).abs().max() < 0.03  # 5 standard errors are 0.018


def test_fold_separates_its_arguments() -> None:
    seeds = {fold(a, b) for a in range(64) for b in range(64)}
    assert len(seeds) == 64 * 64
    assert fold(1, 2) != fold(2, 1)
    assert fold(0) != fold(0, 0)
    assert fold(2**40) != fold(0)
    assert fold(-1) == fold(-1)
    assert all(-(2**31) <= s < 2**31 for s in seeds)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rademacher_has_both_signs_in_equal_parts(dtype: torch.dtype) -> None:
    x = rademacher(torch.empty(100, 1000, dtype=dtype), torch.Generator().manual_seed(2))
    assert x.dtype == dtype
    assert x.shape == (100, 1000)
    assert sorted(x.unique().tolist()) == [-1.0, 1.0]
    assert abs(x.double().mean()) < 5 / 100_000**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_normal_has_unit_second_moment(dtype: torch.dtype) -> None:
    x = normal(torch.empty(100_000, dtype=dtype), torch.Generator().manual_seed(2))
    assert x.dtype == dtype
    assert abs(x.mean()) < 5 / 100_000**0.5
    assert abs(x.abs().double().square().mean() - 1) < 5 * (2 / 100_000) ** 0.5


def test_probes_repeat_with_their_generator() -> None:
    like = torch.empty(50)
    for draw in (rademacher, normal):
        first, again = (draw(like, torch.Generator().manual_seed(9)) for _ in range(2))
        assert torch.equal(first, again)
        assert not torch.equal(first, draw(like, torch.Generator().manual_seed(10)))


def test_normal_numbers_in_parts_are_those_of_the_whole() -> None:
    like = torch.empty(3, PART // 2 + 77)
    first, second = hash_noise(like, 5), hash_noise(like, 6)
    whole = normal_from(first, second, torch.float32)
    assert torch.equal(normals(first, second, torch.float32), whole) and abs(float(whole.std()) - 1) < 0.01
