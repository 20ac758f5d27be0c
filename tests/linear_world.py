"""Worlds in which training does what is known: proxies for learned mixes, without a model.

`LinearWorld`: a step on a mixture w lowers the losses by A w, whatever came before. `BowlWorld`: weights in a bowl for
each group, with gradients.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage.states import dump
from tasks.mix import Group
from tasks.mix.draws import largest_remainder


class World:
    """Batches of groups, by seed and step; `composed` carries what is owed over the steps of a call."""

    def __init__(self, groups, total, batch, seed=0):
        self.groups, self.total, self.batch, self.seed, self.step = groups, total, batch, seed, 0
        self.trained = 0
        """Steps since this object was made: what was worked, restored or not."""

    def counts(self, proportions, step):
        return np.random.default_rng([self.seed, step]).multinomial(self.batch, proportions)

    def train(self, proportions, steps, *, composed=False):
        assert steps >= 1 and abs(np.sum(proportions) - 1) < 1e-9
        done, owed = np.zeros(self.groups, np.int64), np.zeros(self.groups)
        for _ in range(steps):
            if composed:
                owed = owed + proportions * self.batch
                counts = largest_remainder(np.maximum(owed, 0) / np.maximum(owed, 0).sum(), self.batch)
                owed = owed - counts
            else:
                counts = self.counts(proportions, self.step)
            self.learn(counts / self.batch)
            done += counts
        return done / done.sum()

    def learn(self, mixture):
        self.move(mixture)
        self.step += 1
        self.trained += 1


class LinearWorld(World):
    """Losses fall by `effects @ mixture` a step, times themselves where it `saturates`; from `breaks` on `broken`."""

    def __init__(self, effects, start, total=1000, batch=8, breaks=None, broken=np.nan, seed=0, saturates=False):
        self.effects, self.start = np.asarray(effects, np.float64), np.asarray(start, np.float64)
        super().__init__(len(self.start), total, batch, seed)
        self.now, self.breaks, self.broken, self.saturates = self.start.copy(), breaks, broken, saturates

    def fresh(self, total):
        rest = self.breaks, self.broken, self.seed, self.saturates
        return LinearWorld(self.effects, self.start, total, self.batch, *rest)

    def move(self, mixture):
        self.now = self.now - self.effects @ mixture * (self.now if self.saturates else 1.0)

    def losses(self):
        if self.breaks is not None and self.step >= self.breaks:
            return np.full(self.groups, self.broken)
        return self.now.copy()

    def state(self):
        return {"step": np.int64(self.step), "now": self.now.copy()}

    def restore(self, state):
        self.step, self.now = int(state["step"]), state["now"].copy()


class BowlWorld(World):
    """Group i's loss is floor_i + steep_i / 2 |theta - centre_i|^2; training and validation rows are the same."""

    def __init__(self, centres, steep, floors, total=1000, batch=8, rate=0.1, seed=0):
        self.shape = tuple(np.asarray(part, np.float64) for part in (centres, steep, floors))
        super().__init__(len(self.shape[0]), total, batch, seed)
        self.theta, self.learning_rate, self.turn = np.zeros(self.shape[0].shape[1]), rate, 0

    def fresh(self, total):
        return BowlWorld(*self.shape, total, self.batch, self.learning_rate, self.seed)

    def losses(self):
        return self.at(self.theta)

    def at(self, theta):
        centres, steep, floors = self.shape
        return floors + steep / 2 * np.square(theta - centres).sum(1)

    def slopes(self):
        centres, steep, _ = self.shape
        return steep[:, None] * (self.theta - centres)

    def move(self, mixture):
        self.theta = self.theta - self.learning_rate * mixture @ self.slopes()

    def gradients(self, proportions, reference=None):
        import torch

        from tasks.mix.proxy import GroupGradients

        there = self.counts(proportions, 10_000 + self.turn) > 0
        self.turn += 1
        losses = np.where(there, self.losses(), np.nan)
        beside = np.where(there, self.at(reference["theta"]), np.nan) if reference else np.full(self.groups, np.nan)
        vectors = torch.from_numpy(self.slopes()[there].astype(np.float32))
        return GroupGradients(losses, np.flatnonzero(there), vectors, beside)

    def validation_gradient(self):
        import torch

        return torch.from_numpy(self.slopes().mean(0).astype(np.float32))

    def apply(self, gradient):
        norm = float(gradient.norm())
        self.theta = self.theta - self.learning_rate * gradient.numpy() * min(1.0, 1 / max(norm, 1e-12))
        self.step += 1
        self.trained += 1

    def rate(self):
        return self.learning_rate

    def weights(self):
        return {"theta": self.theta.copy()}

    def state(self):
        return {"step": np.int64(self.step), "turn": np.int64(self.turn), **self.weights()}

    def restore(self, state):
        self.step, self.turn, self.theta = int(state["step"]), int(state["turn"]), state["theta"].copy()


class Samples:
    """What `tasks.mix.samples.Samples` gives a learned mix: here the proxy is a world."""

    needs = ("text",)
    input_columns = ()
    libraries = ()
    world: World
    too_small: tuple[str, ...] = ()

    def __init__(self, config, device):
        self.config, self.device = config, device

    def check(self):
        pass

    def check_columns(self, schema):
        pass

    def depends_on(self):
        return {"device": self.device}

    def summarise(self, rows, labels):
        return pa.table({"group": labels})

    def build(self, names, summaries):
        from tasks.mix.samples import Built

        assert all(isinstance(table, pa.Table) for table in summaries)
        learned = [name for name in names if name not in self.too_small]
        return Built(
            self.world.fresh(self.config.steps), learned, [f"{name!r} is too small" for name in self.too_small]
        )


def install(monkeypatch, world, too_small=()):
    """Have learned mixes train `world`."""
    found = type("Installed", (Samples,), {"world": world, "too_small": tuple(too_small)})
    monkeypatch.setattr("tasks.mix.learning.Samples", found)


def groups(*rows, names="abcdefgh"):
    """Groups with these numbers of rows."""
    return [Group(name, count) for name, count in zip(names, rows, strict=False)]


class Memory:
    """A checkpoint in memory; the crash comes when it has been saved `most` times."""

    def __init__(self, most=None):
        self.most, self.saved, self.saves, self.lines = most, None, 0, []

    def load(self):
        return None if self.saved is None else {name: value.copy() for name, value in self.saved.items()}

    def save(self, state):
        dump(state)  # no Python objects
        self.saved = {name: np.array(value) for name, value in state.items()}
        self.saves += 1
        if self.saves == self.most:
            raise KeyboardInterrupt

    def tell(self, line):
        self.lines.append(line)


def learned(mixer, rows, memory=None, names="abcdefgh"):
    """What a mixer says of groups with these numbers of rows."""
    return mixer.learn(groups(*rows, names=names), [pa.table({"group": pa.array(["a"])})], memory or Memory())


def bytes_of(found):
    """All that a law says, to be compared byte for byte."""
    return found.rounds.tobytes(), repr(found.facts), list(found.notes), list(found.warnings)
