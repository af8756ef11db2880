"""Which part of the sound made it say "speech"? The voice detector of faster-whisper, on a sound that is made here.

    python examples/which_sound.py [--output sound.png]

Silero VAD 6 (MIT licence, silero_vad_v6.onnx in faster-whisper) is a spectrogram written as a convolution, magnitudes,
four convolutions and an LSTM over frames of 32 ms. The sound has a tone, one second of synthetic vowels (pulses of a
voice through three resonances) and a burst of noise, over a floor of noise. The detector must say speech in the vowels
alone, and relevance of that must lie on the vowels, not on what else was to be heard before. The script compares
relevance with what the score loses if a frame is quiet. Exit code 1 if one of these fails. Needs

    pip install --no-deps faster-whisper
    pip install onnx matplotlib

tests/peers/test_examples.py runs it.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pylrp
from pylrp.plot import new_figure, signal

Array = NDArray[Any]
RATE, HOP, FRAME = 16_000, 512, 576  # samples a second, from frame to frame, of a frame
TONE, VOICE, NOISE, END = (0.3, 0.7), (1.0, 2.0), (2.3, 2.7), 3.0  # seconds
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))  # resonances in Hz
COMPOSITE = "epsilon_plus"
LEAST_SHARE, LEAST_PEARSON = 0.9, 0.6


def vowels(count: int) -> Array:
    """Return samples of four vowels, a quarter of a second each, in a voice that rises and falls."""
    time = np.arange(count) / RATE
    phase = np.cumsum(120 * (1 + 0.15 * np.sin(2 * np.pi * 1.3 * time))) / RATE
    pulses = np.diff(np.floor(phase), prepend=0)
    ringing = np.arange(int(0.03 * RATE)) / RATE
    made = np.zeros(count)
    for k, resonances in enumerate(VOWELS):
        response = np.zeros(len(ringing))
        for i, hertz in enumerate(resonances):
            fades = 0.6**i * np.exp(-np.pi * (80 + 20 * i) * ringing)
            response += fades * np.sin(2 * np.pi * hertz * ringing)
        made += np.convolve(pulses, response)[:count] * (np.floor(4 * time).astype(int) % 4 == k)
    window = np.hanning(800) / np.hanning(800).sum()
    made *= np.convolve(np.sin(2 * np.pi * 4 * time) > -0.4, window, "same")  # one syllable a vowel
    return np.asarray(0.25 * made / np.abs(made).max())


def sound(rng: np.random.Generator) -> Array:
    """Return the samples of all of it."""
    time = np.arange(int(END * RATE)) / RATE
    wave = 0.003 * rng.normal(size=len(time))
    wave[within(time, TONE)] += 0.1 * np.sin(2 * np.pi * 1000 * time[within(time, TONE)])
    wave[within(time, NOISE)] += 0.1 * rng.normal(size=within(time, NOISE).sum())
    wave[within(time, VOICE)] += vowels(within(time, VOICE).sum())
    return wave.astype(np.float32)


def within(time: Array, bounds: tuple[float, float]) -> Array:
    """Tell which times lie between two bounds."""
    return np.asarray((time >= bounds[0]) & (time < bounds[1]))


def cut(wave: Array) -> Array:
    """Return frames (count, FRAME) that overlap, as the detector takes them."""
    return np.lib.stride_tricks.sliding_window_view(wave, FRAME)[::HOP].copy()


def model() -> Path:
    """Return the path of the file in the installed package."""
    found = importlib.util.find_spec("faster_whisper")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("faster-whisper is missing: pip install --no-deps faster-whisper")
    return Path(next(iter(found.submodule_search_locations))) / "assets" / "silero_vad_v6.onnx"


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen, explain, check; return the exit code."""
    parser = argparse.ArgumentParser(description='Which part of the sound made it say "speech"?')
    parser.add_argument("--output", type=Path, default=Path("sound.png"))
    options = parser.parse_args(arguments)
    net = pylrp.load(model(), outputs=["speech_probs"])
    rng = np.random.default_rng(0)
    wave = sound(rng)
    frames, quiet = cut(wave), cut((0.003 * rng.normal(size=len(wave))).astype(np.float32))
    state = {name: np.zeros((1, 128), np.float32) for name in ("h", "c")}

    logits = net.forward({"input": frames, **state})
    middle = (np.arange(len(frames)) * HOP + FRAME / 2) / RATE
    voiced, said = within(middle, VOICE), logits > 0
    print(f"says speech in {said[voiced].mean():.0%} of the vowels' frames, {said[~voiced].mean():.0%} of the others")

    targets = np.flatnonzero(voiced & said)[4::4]
    ex = net.explain({"input": frames, **state}, targets=targets.tolist(), composite=COMPOSITE)
    by_frame = ex.relevance["input"].sum(-1)
    positive = np.maximum(by_frame, 0)
    share = (positive[:, voiced].sum(1) / positive.sum(1)).mean()
    heard = np.mean([voiced[: at + 1].mean() for at in targets])
    print(f"{len(targets)} frames: {share:.0%} of the positive relevance on vowels, {heard:.0%} of what was heard")

    found = []
    for at, R in zip(targets, by_frame, strict=True):
        lost = []
        for k in range(at - 12, at + 1):
            changed = frames.copy()
            changed[k] = quiet[k]
            lost.append(logits[at] - net.forward({"input": changed, **state})[at])
        found.append(np.corrcoef(lost, R[at - 12 : at + 1])[0, 1])
    print(f"Pearson correlation with making a frame quiet: {np.mean(found):.2f} on average")

    shown = len(targets) // 2
    along = np.zeros(len(wave))
    for k, R in enumerate(ex.relevance["input"][shown]):
        along[k * HOP : k * HOP + FRAME] += R
    figure = new_figure(9, 2.6, dpi=150)
    ax = figure.subplots()
    signal(ax, along, wave, sample_rate=RATE, percentile=99.0)
    ax.axvline(middle[targets[shown]], color="black", linewidth=0.8)
    ax.set_title('tone, vowels, noise: why "speech" at the black line', fontsize=9, loc="left")
    figure.tight_layout()
    figure.savefig(options.output)
    print(f"picture: {options.output}")
    right = said[voiced].mean() > 0.9 and said[~voiced].mean() < 0.1
    return 0 if right and share > LEAST_SHARE and np.mean(found) > LEAST_PEARSON else 1


if __name__ == "__main__":
    raise SystemExit(main())
