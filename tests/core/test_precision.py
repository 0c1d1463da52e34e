"""core.precision: storage of state in fp32, bf16, 8 bit and 4 bit."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.core.codecs import BF16, BLOCK, COMPILE_OPTIONS, FULL, BlockCode, Codec, EightBit, FourBit, rows
from thalweg.core.precision import PRECISIONS, SMALL, fallback_reason, parse_precision
from thalweg.core.random import fold, hash_noise
from thalweg.core.rounding import kahan_read, kahan_write, round_weights, to_bfloat16, to_float16

CPU = torch.device("cpu")
CODES = [EightBit(True), EightBit(False), FourBit(True), FourBit(False)]
CODECS: list[Codec] = [FULL, BF16, *CODES]
IDS = ["8bit signed", "8bit nonnegative", "4bit signed", "4bit nonnegative"]
codes = pytest.mark.parametrize("code", CODES, ids=IDS)
codecs = pytest.mark.parametrize("codec", CODECS, ids=["fp32", "bf16", *IDS])
compiles = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # raised within torch's own compiler
NAN, INF = float("nan"), float("inf")


def sample(n_rows: int, signed: bool, seed: int = 0, spread: float = 1.0) -> Tensor:
    """[n_rows, 256] numbers whose scales are spread by e^spread."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_rows, BLOCK)
    x = torch.randn(shape, generator=generator) * torch.exp(spread * torch.randn(shape, generator=generator))
    return x if signed else x.square()


def table(code: BlockCode) -> Tensor:
    """All values of a code over its scale, from the formula."""
    values = [2.0**e * (1 + k / 2**code.mantissa) - 1 for e in range(2**code.exponent) for k in range(2**code.mantissa)]
    return torch.tensor(values, dtype=torch.float64)


@codes
def test_decoded_values_are_those_of_the_formula(code: BlockCode) -> None:
    values = table(code)
    every = torch.arange(2**code.bits)
    q = every[torch.arange(BLOCK) % len(every)].to(torch.uint8).unsqueeze(0)
    packed = q if code.bits == 8 else q[:, : BLOCK // 2] | (q[:, BLOCK // 2 :] << 4)
    found = code.decode((packed, torch.tensor([[0.25]])))[0]
    half = len(values)
    expected = torch.cat((values, -values)) / 4 if code.signed else values / 4
    assert torch.equal(found, expected[torch.arange(BLOCK) % len(every)].float())
    assert code.top == values[-1]
    assert half == 2 ** (code.bits - code.signed)


@codes
@pytest.mark.parametrize("factor", [1.0, 1e-24, 1e-12, 1e12, 1e34])
def test_nearest_rounding_picks_the_nearest_value(code: BlockCode, factor: float) -> None:
    x = sample(8, code.signed, spread=1.5) * factor
    held = code.encode(x)
    values = table(code) * held[1].double()[0]
    for row in range(8):
        values = table(code) * held[1][row].double()
        magnitude = x[row].double().abs()
        distance = (magnitude.unsqueeze(1) - values).abs()
        if not code.signed:
            distance[:, 0] = torch.where(magnitude > 0, INF, distance[:, 0])
        found = code.decode(held, torch.float64)[row]
        nearest = distance.min(1).values
        assert ((found - x[row].double()).abs() <= nearest * (1 + 1e-5) + magnitude * 1e-6).all()
        assert (found * x[row] >= 0).all()


@codes
def test_scale_is_the_smallest_power_of_two_that_holds_the_maximum(code: BlockCode) -> None:
    x = sample(200, code.signed, seed=3) * 10.0 ** torch.linspace(-20, 20, 200).unsqueeze(1)
    scale = code.encode(x)[1].double()
    peak = x.abs().amax(1, keepdim=True).double()
    assert torch.equal(scale, 2.0 ** scale.log2().round())
    assert (peak < scale * (code.top + 1)).all()
    assert (peak >= scale / 2 * code.top * (1 - 1e-6)).all()


@pytest.mark.parametrize("code", CODES[:2], ids=IDS[:2])
def test_error_of_8_bit_is_bounded(code: BlockCode) -> None:
    x = sample(500, code.signed, spread=2.0)
    held = code.encode(x)
    # Half a step is at most 2^-4 of (value + scale); what is raised to code 1 of a non-negative code is off by up to 2^-3 of the scale.
    room = held[1] if code.signed else 2 * held[1]
    assert ((code.decode(held) - x).abs() <= 2**-4 * (x.abs() + room) * (1 + 1e-5)).all()
    stochastic = code.encode(x, hash_noise(x, fold(1)))
    assert ((code.decode(stochastic) - x).abs() <= 2**-3 * (x.abs() + room) * (1 + 1e-5)).all()


@codes
@pytest.mark.parametrize("stochastic", [False, True])
def test_stored_values_are_kept_exactly(code: BlockCode, stochastic: bool) -> None:
    # Where rounding the maximum has not changed the scale, each value is a code of it.
    x = sample(64, code.signed, seed=1)
    once = code.decode(code.encode(x, hash_noise(x, fold(5)) if stochastic else None))
    held = code.encode(once)
    again = code.decode(code.encode(once, hash_noise(x, fold(6)) if stochastic else None))
    same = (held[1] == code.encode(x)[1]).squeeze(1)
    assert same.double().mean() > 0.1
    assert torch.equal(again[same], once[same])


@codes
def test_stochastic_rounding_is_unbiased(code: BlockCode) -> None:
    x = sample(1, code.signed, seed=2, spread=0.5)
    if not code.signed:
        x = x.clamp(min=0.02 * x.max().item())  # above code 1, below which rounding goes up
    copies = 4096
    many = x.repeat(copies, 1)
    decoded = code.decode(code.encode(many, hash_noise(many, fold(7))), torch.float64)
    mean, error = decoded.mean(0), (decoded.mean(0) - x[0]).abs()
    deviation = decoded.std(0) / copies**0.5
    # Each of 256 means within 5 standard errors (one code step is at least 64 of them): a bias of 8 % of a step would be found in 99.9 % of seeds.
    floor = 1e-5 * x.abs().max()
    assert (error <= 5 * deviation + floor).all(), (error / (deviation + 1e-30)).max()
    overall = (decoded - x.double()).mean(1)
    assert overall.mean().abs() <= 4 * overall.std() / copies**0.5 + floor
    assert mean.shape == (BLOCK,)


@codes
def test_stochastic_rounding_uses_only_the_two_neighbours(code: BlockCode) -> None:
    x = sample(50, code.signed, seed=4)
    held = code.encode(x, hash_noise(x, fold(8)))
    found = code.decode(held, torch.float64)
    for row in range(50):
        values = (table(code) * held[1][row].double()).contiguous()
        magnitude = x[row].double().abs()
        upper = torch.searchsorted(values, magnitude.contiguous()).clamp(1, len(values) - 1)
        gaps = torch.stack((found[row].abs() - values[upper], found[row].abs() - values[upper - 1])).abs().min(0).values
        assert (gaps <= 1e-6 * magnitude + 1e-6 * held[1][row]).all()


def test_slow_averages_follow_only_with_stochastic_rounding() -> None:
    code = EightBit(False)
    target = sample(4, False, seed=5, spread=0.3)
    exact, stochastic, nearest = (torch.zeros(4, BLOCK) for _ in range(3))
    generator = torch.Generator().manual_seed(0)
    for t in range(3000):
        g2 = target * torch.randn(target.shape, generator=generator).square()
        exact = 0.999 * exact + 0.001 * g2
        stochastic = code.decode(code.encode(0.999 * stochastic + 0.001 * g2, hash_noise(g2, fold(t))))
        nearest = code.decode(code.encode(0.999 * nearest + 0.001 * g2))
    ratio = stochastic / exact
    assert abs(ratio.mean() - 1) < 0.05  # 1,024 elements, each off by about 20 %: 5 standard errors are 0.03
    assert (nearest / exact).median() < 0.7  # what the default avoids


@codes
def test_zero_stays_zero_and_zero_blocks_are_exact(code: BlockCode) -> None:
    x = sample(4, code.signed)
    x[0] = 0
    x[1, ::2] = 0
    for noise in (None, hash_noise(x, fold(9))):
        found = code.decode(code.encode(x, noise))
        assert (found[x == 0] == 0).all()


@pytest.mark.parametrize("code", [EightBit(False), FourBit(False)], ids=["8bit", "4bit"])
def test_small_positive_values_never_become_zero(code: BlockCode) -> None:
    x = 2.0 ** -torch.linspace(0, 60, BLOCK).unsqueeze(0)
    for factor in (1.0, 1e-25, 1e30):
        for noise in (None, hash_noise(x, fold(10))):
            assert (code.decode(code.encode(x * factor, noise)) > 0).all()
    tiny = torch.full((1, BLOCK), 1e-44)
    assert (code.decode(code.encode(tiny)) > 0).all()


@codecs
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("noisy", [False, True])
def test_not_finite_stays_not_finite(codec: Codec, bad: float, noisy: bool) -> None:
    x = sample(3, signed=False)
    x[1, 77] = bad
    state = codec.decode(codec.encode(x, hash_noise(x, fold(11)) if noisy else None))
    assert not state[1, 77].isfinite()
    assert state[0].isfinite().all()
    assert state[2].isfinite().all()
    if codec.block > 1:
        assert state[1].isnan().all()
    for step in range(3):  # and at later steps, whatever the gradient
        state = codec.decode(codec.encode(0.9 * state + 0.1, hash_noise(x, fold(step)) if noisy else None))
        assert not state[1, 77].isfinite()
        assert state[0].isfinite().all()


NAN_BITS = (0x7FFFFFFF, 0x7F800001, 0x7FC00000, 0x7F80FFFF, -1, -0x7FFFFF, 0x7FFF0000)


@pytest.mark.parametrize("word", [0, -1, 0x7FFFFFFF, -(2**31)])
def test_bf16_keeps_every_nan_and_inf(word: int) -> None:
    bits = torch.tensor([*NAN_BITS, 0x7F800000, -0x800000], dtype=torch.int32)
    found = to_bfloat16(bits.view(torch.float32), torch.full_like(bits, word))
    assert found[: len(NAN_BITS)].isnan().all()
    assert found[len(NAN_BITS) :].tolist() == [INF, -INF]
    half = to_float16(bits.view(torch.float32), torch.full_like(bits, word))
    assert half[: len(NAN_BITS)].isnan().all()
    assert half[len(NAN_BITS) :].tolist() == [INF, -INF]


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**31), 2**31 - 1))
def test_bf16_stochastic_rounding_gives_a_neighbour(x: float, word: int) -> None:
    value = torch.tensor([x])
    found = to_bfloat16(value, torch.tensor([word], dtype=torch.int32))
    below = (value.view(torch.int32) & -0x10000).view(torch.float32).item()
    above = ((value.view(torch.int32) & -0x10000) + 0x10000).view(torch.float32).item()
    assert found.item() in ((below, above) if below != x else (below,))


@pytest.mark.parametrize(
    ("cast", "x"), [(to_bfloat16, 1.001), (to_bfloat16, -3.3e-20), (to_float16, 1.0003), (to_float16, -3.21e-6), (to_float16, 777.7)]
)
def test_16_bit_stochastic_rounding_is_unbiased(cast: object, x: float) -> None:
    assert callable(cast)
    many = torch.full((4096, BLOCK), x)
    found = cast(many, hash_noise(many, fold(12))).double()
    assert found.unique().numel() == 2
    step = found.max() - found.min()
    # 1,048,576 draws with a deviation of at most half a step: a bias of 0.4 % of a step would be found in 99.9 % of seeds.
    assert abs(found.mean() - many[0, 0].double()) < 5 * 0.5 * step / 1024


def test_fp16_stochastic_rounding_keeps_exact_values_and_limits() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16)
    every = every[every.isfinite()]
    assert torch.equal(to_float16(every.float(), hash_noise(every, 3)), every)
    assert to_float16(torch.tensor([1e6, -1e6]), torch.zeros(2, dtype=torch.int32)).tolist() == [INF, -INF]


@codecs
@pytest.mark.parametrize("noisy", [False, True])
def test_slices_equal_the_whole(codec: Codec, noisy: bool) -> None:
    n, a, b = 12 * BLOCK, 3 * BLOCK, 8 * BLOCK
    x = sample(12, signed=False, seed=6)
    held = codec.allocate(n, CPU)
    whole = codec.encode(x, hash_noise(x, 5) if noisy else None)
    part = codec.encode(x[3:8], hash_noise(x[3:8], 5, first=a) if noisy else None)
    assert all(torch.equal(p, w[3:8]) for p, w in zip(part, whole, strict=True))
    views = codec.slices(held, a, b)
    for view, new in zip(views, part, strict=True):
        view.copy_(new.view(view.shape))
    inside = rows(codec.decode(held))
    assert torch.equal(inside[3:8], rows(codec.decode(whole))[3:8])
    assert not inside[:3].any()
    assert not inside[8:].any()


@codecs
def test_storage_starts_at_zero_and_has_the_stated_bytes(codec: Codec) -> None:
    n = 5 * BLOCK
    held = codec.allocate(n, CPU)
    assert sum(s.numel() * s.element_size() for s in held) == codec.bytes(n)
    state = codec.decode(held)
    assert state.numel() == n
    assert state.dtype == torch.float32
    assert not state.any()
    assert codec.decode(held, torch.float64).dtype == torch.float64


def test_adamw_state_in_8_bit_is_at_most_2_1_bytes_per_parameter() -> None:
    n = 2**20
    assert (EightBit(True).bytes(n) + EightBit(False).bytes(n)) / n <= 2.1
    assert (FourBit(True).bytes(n) + FourBit(False).bytes(n)) / n <= 1.1
    assert BF16.bytes(n) == 2 * n


def test_full_precision_is_fp64_with_fp64_weights() -> None:
    held = FULL.allocate(7, CPU, torch.float64)
    assert held[0].dtype == torch.float64
    x = torch.tensor([1 / 3], dtype=torch.float64)
    assert torch.equal(FULL.decode(FULL.encode(x), torch.float64), x)


@codes
def test_fp64_states_are_coded_like_their_fp32_values(code: BlockCode) -> None:
    x = sample(3, code.signed)
    assert all(torch.equal(a, b) for a, b in zip(code.encode(x.double()), code.encode(x), strict=True))


def test_4_bit_codes_are_packed_two_to_a_byte() -> None:
    code = FourBit(True)
    x = torch.zeros(1, BLOCK)
    x[0, 0], x[0, BLOCK // 2], x[0, 1] = 127.0, -127.0, 1.0
    packed, scale = code.encode(x)
    assert packed.shape == (1, BLOCK // 2)
    assert packed.dtype == torch.uint8
    step = scale.item()
    low, high = packed[0, 0].item() & 15, packed[0, 0].item() >> 4
    assert high == low | 8  # the same magnitude, negative
    assert code.decode((packed, scale))[0, 0].item() == -code.decode((packed, scale))[0, BLOCK // 2].item()
    assert packed[0, 1].item() == round(math.log2(1 / step + 1))


@compiles
@codecs
@pytest.mark.parametrize("noisy", [False, True])
def test_compiled_bits_equal_eager_bits(codec: Codec, noisy: bool) -> None:
    def step(x: Tensor, held: tuple[Tensor, ...], seed: Tensor) -> None:
        new = 0.5 * codec.decode(held) + x
        for store, value in zip(held, codec.encode(new, hash_noise(new, seed) if noisy else None), strict=True):
            store.copy_(value)

    torch.compiler.reset()  # all cases share the code of `step`, and torch limits its graphs
    compiled = torch.compile(step, dynamic=True, fullgraph=True, options=dict(COMPILE_OPTIONS))
    for n_rows in (2, 37):
        first, second = (tuple(rows(s) if s.dim() == 1 else s for s in codec.allocate(n_rows * BLOCK, CPU)) for _ in range(2))
        x = sample(n_rows, signed=False, seed=7, spread=1.0)
        for t in range(3):
            x = x.roll(1) * 1.7
            seed = torch.tensor(fold(t), dtype=torch.int32)
            step(x, first, seed)
            compiled(x, second, seed)
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        x[1, 5] = NAN
        seed = torch.tensor(fold(9), dtype=torch.int32)
        step(x, first, seed)
        compiled(x, second, seed)
        a, b = codec.decode(first), codec.decode(second)
        assert torch.equal(a.isnan(), b.isnan())
        assert a[1, 5].isnan()
        assert torch.equal(a[0], b[0])


@pytest.mark.parametrize("mode", ["nearest", "stochastic"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_round_weights(mode: str, dtype: torch.dtype) -> None:
    w = sample(2, signed=True)
    found = round_weights(w, dtype, hash_noise(w, 3), mode)
    assert found.dtype == dtype
    limit = {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype, 0.0)
    assert ((found.float() - w).abs() <= limit * w.abs() + 2**-24 * bool(limit)).all()
    if mode == "nearest":
        assert torch.equal(found, w.to(dtype))


def test_round_weights_refuses_what_it_cannot_do() -> None:
    w = torch.ones(2)
    with pytest.raises(ValueError, match="'nearest', 'stochastic' or 'kahan'.*'up'"):
        round_weights(w, torch.bfloat16, None, "up")
    with pytest.raises(ValueError, match="hash_noise"):
        round_weights(w, torch.bfloat16, None, "stochastic")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kahan_keeps_updates_far_below_a_step_of_the_weight(dtype: torch.dtype) -> None:
    w, compensation, plain = torch.ones(8, dtype=dtype), torch.zeros(8, dtype=dtype), torch.ones(8, dtype=dtype)
    for _ in range(1000):
        w, compensation = kahan_write(w, compensation, kahan_read(w, compensation) + 1e-4)
        plain = (plain.float() + 1e-4).to(dtype)
    assert w.dtype == compensation.dtype == dtype
    assert torch.allclose(kahan_read(w, compensation), torch.full((8,), 1.1), atol=5e-3)
    assert (plain == 1).all() if dtype == torch.bfloat16 else (plain < 1.09).all()


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kahan_leaves_over_the_same_compiled_as_eagerly(dtype: torch.dtype) -> None:
    """A compiler takes a cast there and back for nothing, and what is left over would be zero."""
    largest = torch.finfo(dtype).max
    ends = [0.0, -0.0, 1e-7, 2.0**-24, 3 * 2.0**-25, -(2.0**-14), largest, -largest * (1 + 2.0**-12), 1e5, 3e38, torch.inf, -torch.inf, torch.nan]
    x = torch.cat((torch.tensor(ends), torch.randn(5000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 4, 5000)))
    ties = (1 + torch.arange(64) * torch.finfo(dtype).eps + torch.finfo(dtype).eps / 2).float()
    new, zero = torch.cat((x, ties)), torch.zeros(len(x) + 64, dtype=dtype)
    eager, compiled = kahan_write(zero, zero, new), torch.compile(kahan_write, dynamic=True)(zero, zero, new)
    for mine, theirs in zip(compiled, eager, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    assert float((eager[1][-64:] != 0).float().mean()) == 1


def test_kahan_keeps_not_finite_weights() -> None:
    new = torch.tensor([NAN, INF, -INF, 1.0, 1e6])
    w, compensation = kahan_write(torch.zeros(5, dtype=torch.float16), torch.zeros(5, dtype=torch.float16), new)
    found = kahan_read(w, compensation)
    assert found[0].isnan()
    assert found[1:].tolist() == [INF, -INF, 1.0, INF]


def test_parse_precision_gives_a_codec_for_each_state() -> None:
    names, positive = ("m", "v"), ("v",)
    assert parse_precision(None, names, positive) == {"m": FULL, "v": FULL}
    assert parse_precision("fp32", names, positive) == {"m": FULL, "v": FULL}
    assert parse_precision("bf16", names, positive) == {"m": BF16, "v": BF16}
    assert parse_precision("8bit", names, positive) == {"m": EightBit(True), "v": EightBit(False)}
    assert parse_precision("4bit", names, positive) == {"m": FourBit(True), "v": FourBit(False)}
    assert parse_precision({"m": "8bit"}, names, positive) == {"m": EightBit(True), "v": FULL}
    assert parse_precision({"m": "4bit", "v": "bf16"}, names, positive) == {"m": FourBit(True), "v": BF16}
    assert parse_precision("8bit", (), ()) == {}


@pytest.mark.parametrize("spec", ["int8", "8 bit", 8, {"m": "fp8"}, {"v": 4}, True])
def test_wrong_precisions_are_refused_with_the_accepted_ones(spec: object) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        parse_precision(spec, ("m", "v"), ("v",))  # type: ignore[arg-type]
    found = next(iter(spec.values())) if isinstance(spec, dict) else spec
    assert repr(found) in str(caught.value)
    assert all(repr(p) in str(caught.value) for p in PRECISIONS)


def test_unknown_states_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'momentum'.*'m', 'v'"):
        parse_precision({"momentum": "8bit"}, ("m", "v"), ("v",))
    with pytest.raises(ValueError, match="no state"):
        parse_precision({"m": "8bit"}, (), ())


def test_small_tensors_fall_back_with_a_reason() -> None:
    for codec, n in itertools.product([BF16, *CODES], (1, SMALL - 1)):
        reason = fallback_reason(codec, n)
        assert reason is not None
        assert str(n) in reason
        assert str(SMALL) in reason
    for codec in CODECS:
        assert fallback_reason(codec, SMALL) is None
        assert fallback_reason(FULL, 1) is None


@codes
def test_wrong_sizes_are_refused(code: BlockCode) -> None:
    with pytest.raises(ValueError, match=f"blocks of {BLOCK}; found 100"):
        code.allocate(100, CPU)
    with pytest.raises(ValueError, match=r"found \[2, 100\]"):
        code.encode(torch.zeros(2, 100))
    with pytest.raises(ValueError, match="bytes per row; found 7"):
        code.decode((torch.zeros(2, 7, dtype=torch.uint8), torch.ones(2, 1)))
